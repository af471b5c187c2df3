from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.artifact.tampering import GOLDEN, VOCABULARIES, WEIGHTS, Copy, flip
from torch import Tensor

from rankloom.artifact.ranker import load
from rankloom.artifact.verify import first_difference, verify
from rankloom.errors import ArtifactError

NUM_FLIPS = 200
NUM_SWAPS = 40


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Copy:
    return Copy(written, tmp_path / "copy")


def programs_of(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in (folder / "programs").iterdir()}


def constants_of(folder: Path, program: str) -> list[str]:
    """Name the constants that only this program of the three rates reads."""
    read = {
        name: [one["target"] for one in content["nodes"] if one["op"] == "constant"]
        for name, content in programs_of(folder).items()
    }
    others = {one for name, found in read.items() if name != program for one in found}
    shared = {"candidate", "one_request"}
    if program in shared:
        others = {one for name in read.keys() - shared for one in read[name]}
    return [one for one in read[program] if one not in others]


def test_an_artifact_is_what_was_exported(written: Path) -> None:
    assert set(programs_of(written)) == {"user", "request", "candidate", "one_request"}
    found = verify(written)
    assert found.num_requests == 8
    assert set(found.largest_error) == {"one by one", "with kept user state", "all at once"}
    assert max(found.largest_error.values()) < 1e-6


@pytest.mark.parametrize(
    "name",
    [
        WEIGHTS,
        VOCABULARIES,
        GOLDEN,
        "golden.json",
        *(f"programs/{one}.json" for one in ("user", "request", "candidate", "one_request")),
    ],
)
def test_a_damaged_file_is_named(copy: Copy, name: str) -> None:
    flip(copy / name, (copy / name).stat().st_size // 2)
    assert copy.refused() == (
        f"{copy.folder}: {name} was changed since it was written. Export the run again, or "
        "restore it."
    )
    with (copy / name).open("ab") as file:
        file.write(b" ")
    assert f"{name} has " in copy.refused()
    (copy / name).unlink()
    assert copy.refused().startswith(f"{copy.folder}: {name} is missing.")


def test_all_damaged_files_are_named(copy: Copy) -> None:
    flip(copy / WEIGHTS, 100)
    (copy / GOLDEN).unlink()
    message = copy.refused()
    assert WEIGHTS in message
    assert GOLDEN in message


def test_a_damaged_manifest(copy: Copy) -> None:
    path = copy / "manifest.json"
    text = path.read_text()
    path.write_text(text[:-5])
    assert copy.refused().startswith(f"{path}: is no JSON. Got: ")
    at = text.index('"tolerance": ') + len('"tolerance": ')
    path.write_text(text[:at] + "2" + text[at + 1 :])
    assert copy.refused().startswith(f"{path}: its content does not match its digest. Got ")
    path.write_text("[]")
    assert "must have format_version 1. Got 'None'" in copy.refused()
    path.write_text("[" * 100_000)
    assert "is no JSON" in copy.refused()
    path.write_bytes(b"\xff\xfe")
    assert "cannot be read" in copy.refused()
    path.unlink()
    assert copy.refused().startswith(f"{path}: cannot be read. Got: No such file or directory. ")


def test_a_folder_that_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json: cannot be read"):
        load(tmp_path)


def hang(values: Any) -> None:
    """Take away a task that another one is given."""
    del values["tasks"]["like"]


def deep(values: Any) -> None:
    nested: list[Any] = []
    for _ in range(900):
        nested = [nested]
    values["outputs"] = nested


MANIFESTS: list[tuple[Callable[[Any], object], str]] = [
    (lambda v: v.update(format_version=2), "must have format_version 1. Got '2'"),
    (lambda v: v.update(format_version=True), "must have format_version 1. Got 'True'"),
    (lambda v: v.update(format_version="1"), "must have format_version 1. Got '1'"),
    (lambda v: v.update(code="import os"), "code: unknown key"),
    (lambda v: v.update(tolerance=math.nan), "tolerance: "),
    (lambda v: v.update(tolerance=math.inf), "tolerance: "),
    (lambda v: v.update(tolerance=-1.0), "tolerance: "),
    (deep, "outputs"),
    (lambda v: v["files"].update({"../x": v["files"][WEIGHTS]}), "'../x' is no file of an art"),
    (lambda v: v["files"].update({"/etc/passwd": v["files"][WEIGHTS]}), "'/etc/passwd' is no file"),
    (lambda v: v["files"].update({"x" * 300: v["files"][WEIGHTS]}), "is no file of an artifact"),
    (lambda v: v["files"].pop(WEIGHTS), f"{WEIGHTS} is not listed"),
    (lambda v: v.update(programs=["user", "candidate", "../x"]), "programs.2: "),
    (lambda v: v["programs"].remove("one_request"), "one_request.json"),
    (lambda v: v["programs"].remove("user"), "user.json"),
    (lambda v: v["features"]["item_id"].update(kind="code"), "features.item_id: kind must be one"),
    (lambda v: v["features"]["item_id"].update(table="nowhere"), "become rows of 'item'"),
    (lambda v: v["features"]["genres"].update(table="item", vocabulary=None), "'genres'"),
    (lambda v: v["features"]["hour"].update(num_embeddings=10**6), "'hour' must have 1000000 rows"),
    (lambda v: v["features"]["hour"].update(num_embeddings=None, hash_buckets=30), "have 31 rows"),
    (lambda v: v["features"].pop("hour"), "table 'hour' is no feature's"),
    (lambda v: v["features"]["hour"].update(side="item"), "features/hour"),
    (lambda v: v["features"]["history"].update(time=None), "history"),
    (hang, "tasks.love.given: no task is named 'like'"),
    (lambda v: v["outputs"].append("like"), "outputs must be the tasks"),
    (lambda v: v["outputs"].pop(), "gives 2 results, not 1"),
    (lambda v: v.update(vocabularies=[]), f"'{VOCABULARIES}' is no file of an artifact"),
    (lambda v: v["vocabularies"].remove("user"), "table 'user' has no vocabulary"),
    (lambda v: v["vocabularies"].append("hour"), "has no vocabulary of table 'hour'"),
    (lambda v: v["tables"]["item"].update(num_embeddings=2**62), "table 'item' must have"),
    (lambda v: v["tables"]["item"].update(num_embeddings=2**70), "table 'item' must have"),
    (lambda v: v["tables"]["item"].update(storage="int8"), "all be float32 or all be int8"),
    (lambda v: v["tables"]["item"].update(storage="pickle"), "tables.item.storage"),
    (lambda v: v["tables"].pop("item"), "table 'item' must have 82 rows. Got none"),
    (lambda v: v["embedder"]["config"].update(embedding_dim=2**62), "do not fit"),
    (lambda v: v["embedder"]["config"].update(embedding_dim=16), "table 'user' must be 16 wide"),
    (lambda v: v["embedder"]["config"].update(tables={"x": {}}), "do not fit"),
    (lambda v: v["embedder"]["length_multiple"].update(history=2**40), "length_multiple"),
    (lambda v: v["embedder"].update(ids=["nobody"]), "features that there are not: nobody"),
    (lambda v: v["embedder"].update(ids=["genres"]), "differs from what was exported"),
    (
        lambda v: v["embedder"].update(sets={"main": 32, "fm": 2}),
        "table 'user@fm' must be 2 wide. Got none",
    ),
    (lambda v: v["embedder"]["statistics"].pop("age"), "'age' has no boundaries"),
    (lambda v: v["embedder"]["statistics"]["age"].update(boundaries=[1.0]), "'age' must have 3"),
    (lambda v: v["embedder"]["statistics"]["age"].update(boundaries="x"), "statistics.age"),
    (lambda v: v["embedder"]["statistics"]["release_year"].pop("mean"), "statistics.release_year"),
    (lambda v: v["state"].pop(), "is not what the programs make"),
    (lambda v: v["state"][0].update(rate="request"), "is not what the programs make"),
]


@pytest.mark.parametrize(("change", "what"), MANIFESTS)
def test_hostile_manifests_are_refused(
    copy: Copy, change: Callable[[Any], object], what: str
) -> None:
    """All digests fit: they were computed anew."""
    message = copy.change_json("manifest.json", change).refused()
    assert what in message, message
    assert message.startswith(str(copy.folder)), message
    assert len(message) < 4000


def double(table: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.update({table: tensors[table].double()})


WEIGHT_CHANGES: list[tuple[Callable[[dict[str, Tensor]], object], str]] = [
    (double("table/item"), "table 'item' must have 82 rows of float32. Got (82, 32) of float64"),
    (lambda t: t.update({"table/item": t["table/item"][:9]}), "Got (9, 32) of float32"),
    (
        lambda t: t.update({"table/item": t["table/item"][:, :9]}),
        "table 'item' must be 32 wide. Got 9",
    ),
    (lambda t: t.update({"table/item": t["table/item"][0]}), "Got (32,) of float32"),
    (lambda t: t.pop("table/item"), "table 'item' is missing in the weights"),
    (lambda t: t.pop("numeric/feature_release_year.mean"), "statistics of numbers do not fit"),
    (lambda t: t.update({"numeric/x": t["table/item"]}), "statistics of numbers do not fit"),
    (lambda t: t.clear(), "is missing in the weights"),
]


@pytest.mark.parametrize(("change", "what"), WEIGHT_CHANGES)
def test_hostile_weights_are_refused(
    copy: Copy, change: Callable[[dict[str, Tensor]], object], what: str
) -> None:
    if change is WEIGHT_CHANGES[-1][0]:
        # A program names the constant first.
        what = "names a constant that there is not"
    message = copy.change_tensors(WEIGHTS, change).refused()
    assert what in message, message


@pytest.mark.parametrize("program", ["user", "request", "candidate"])
def test_constants_that_do_not_fit_are_refused(copy: Copy, program: str) -> None:
    name = f"constant/{constants_of(copy.folder, program)[-1]}"
    copy.change_tensors(WEIGHTS, lambda tensors: tensors.update({name: torch.ones(3, 5, 7)}))
    at = "one_request" if program == "candidate" else program
    message = copy.refused()
    assert message.startswith(f"{copy.folder}/programs/{at}.json: cannot run. Got RuntimeError: ")
    assert len(message.splitlines()) == 1
    copy.change_tensors(WEIGHTS, lambda tensors: tensors.pop(name))
    assert f"names a constant that there is not. Got '{name.removeprefix('constant/')}'" in (
        copy.refused()
    )


@pytest.mark.parametrize(
    ("level", "change"),
    [
        ("inputs/features/user_id", "table/user"),
        ("user/", "user"),
        ("request/", "request"),
        ("logits/", "one_request"),
    ],
)
def test_the_first_tensor_that_differs_is_named(copy: Copy, level: str, change: str) -> None:
    constants = [] if "/" in change else constants_of(copy.folder, change)
    names = [f"constant/{one}" for one in constants] or [change]

    def shift(tensors: dict[str, Tensor]) -> None:
        for name in names:
            if tensors[name].is_floating_point():
                tensors[name] += 0.25

    message = copy.change_tensors(WEIGHTS, shift).refused()
    assert message.startswith(f"{copy.folder}: golden request 0: {level}"), message
    assert "differs from what was exported. Got an error of " in message


def test_differences_are_named_in_the_order_of_computing() -> None:
    one, other = torch.zeros(2), torch.ones(2)
    expected = {"inputs/a": one, "user/b": one, "request/c": one, "logits/d": one}
    for name in expected:
        found = {**expected, name: other, "logits/d": other}
        assert first_difference(found, expected, 0.5) == name
    assert first_difference(expected, expected, 0.0) is None
    assert first_difference({"inputs/a": one.double()}, {"inputs/a": one}, 1.0) == "inputs/a"
    assert first_difference({"inputs/a": one[:1]}, {"inputs/a": one}, 1.0) == "inputs/a"
    assert first_difference({}, {"user/b": one}, 1.0) == "user/b"
    bad = torch.tensor([0.0, math.nan])
    assert first_difference({"user/b": bad}, {"user/b": one}, 1.0) == "user/b"


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"slots": lambda old: old.fill_(10**6)}, "vocabulary of table"),
        ({"slots": lambda old: old.fill_(0)}, "vocabulary of table"),
        ({"slots": lambda old: old[:-1]}, "vocabulary of table"),
        ({"slots": lambda old: old.double()}, "vocabulary of table"),
        ({"hashes": lambda old: old[:3]}, "vocabulary of table"),
        ({"offsets": lambda old: old + 1}, "vocabulary of table"),
        ({"offsets": lambda old: old.flip(0)}, "vocabulary of table"),
        ({"padded": lambda old: old[:4]}, "vocabulary of table"),
        ({"seed": lambda old: old - 1}, "vocabulary of table"),
        ({"seed": lambda old: old.repeat(2)}, "vocabulary of table"),
    ],
)
def test_hostile_vocabularies_are_refused(
    copy: Copy, arrays: dict[str, Callable[[Tensor], Tensor]], what: str
) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        for name, changed in arrays.items():
            tensors[f"item/{name}"] = changed(tensors[f"item/{name}"]).clone()

    message = copy.change_tensors(VOCABULARIES, change).refused()
    assert what in message, message
    assert VOCABULARIES in message


def test_a_vocabulary_of_more_keys_than_the_table_has_rows_is_refused(copy: Copy) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if name.startswith("genres/")]:
            del tensors[name]
        for name in [name for name in tensors if name.startswith("item/")]:
            tensors[name.replace("item", "genres")] = tensors[name].clone()

    message = copy.change_tensors(VOCABULARIES, change).refused()
    assert "table 'genres' must have 82 rows. Got 14." in message


def without_state(content: dict[str, Any]) -> None:
    content["inputs"][0] = "nobody_makes_it"


def results_of_nodes(content: dict[str, Any], results: list[Any]) -> None:
    content["results"] = results


def unknown(content: dict[str, Any]) -> None:
    content["nodes"][-1]["op"] = "os.system"


PROGRAMS: list[tuple[str, Callable[[Any], object], str]] = [
    ("candidate", unknown, "has an unknown operation. Got 'os.system'"),
    ("candidate", without_state, "reads 'nobody_makes_it', which no program makes"),
    ("one_request", without_state, "reads 'nobody_makes_it', which no program makes"),
    ("user", lambda p: p["inputs"].__setitem__(0, "features/item_id"), "differs more often"),
    ("user", lambda p: p["inputs"].__setitem__(0, "features/hour"), "differs more often"),
    ("user", lambda p: p["inputs"].__setitem__(0, "request_index"), "differs more often"),
    ("user", lambda p: p["inputs"].__setitem__(0, "features/none"), "no feature gives"),
    ("user", lambda p: p["inputs"].__setitem__(0, "x/y/z"), "no feature gives"),
    ("user", lambda p: p["outputs"].__setitem__(0, "features/age"), "makes what is there already"),
    ("user", lambda p: p["outputs"].__setitem__(0, "request_index"), "what is there already"),
    ("user", lambda p: p["outputs"].__setitem__(0, p["outputs"][1]), "what is there already"),
    ("user", lambda p: p["outputs"].append("more"), "gives 2 results, not 3"),
    ("request", lambda p: p["results"].pop(), "gives 1 results, not 2"),
    ("candidate", lambda p: p["results"].pop(), "gives 1 results, not 2"),
    ("one_request", lambda p: p["results"].append(p["results"][0]), "gives 3 results, not 2"),
    ("user", lambda p: p["results"].__setitem__(0, 7), "has no results"),
    ("user", lambda p: p["results"].__setitem__(0, {"node": "sym_size_int"}), "no tensor"),
    ("candidate", lambda p: p["results"].reverse(), "golden requests are off by"),
    ("one_request", lambda p: p["results"].reverse(), "logits/like differs"),
    ("user", lambda p: p["results"].reverse(), "request 0: user/"),
    ("user", lambda p: p["nodes"].reverse(), "uses a node before it is made"),
]


@pytest.mark.parametrize(("program", "change", "what"), PROGRAMS)
def test_hostile_programs_are_refused(
    copy: Copy, program: str, change: Callable[[Any], object], what: str
) -> None:
    message = copy.change_json(f"programs/{program}.json", change).refused()
    assert what in message, message
    assert message.startswith(str(copy.folder)), message


@pytest.mark.parametrize("program", ["user", "request", "one_request", "candidate"])
def test_a_program_that_cannot_run_is_named(
    copy: Copy, program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(content: dict[str, Any]) -> None:
        args = [content["results"][0], 10**6]
        content["nodes"].append({"name": "bad", "op": "getitem", "args": args})
        content["results"][0] = {"node": "bad"}

    message = copy.change_json(f"programs/{program}.json", change).refused()
    assert message.startswith(f"{copy.folder}/programs/{program}.json: cannot run. Got "), message
    assert message.endswith("Export the run again.")
    # Generated code prints itself when it fails.
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda g: g.update(requests=[]), "has no golden request"),
        (lambda g: g.update(requests=7), "golden.json: holds no golden requests"),
        (lambda g: g["requests"].__setitem__(0, "x"), "golden.json: holds no golden requests"),
        (lambda g: g["requests"][0].pop("scores"), "golden.json: holds no golden requests"),
        (lambda g: g["requests"][1].update(user=7), "request 1: cannot be decoded. Got DataError"),
        (lambda g: g["requests"][1]["user"].pop("age"), "request 1: cannot be decoded"),
        (lambda g: g["requests"][1]["user"].update(age="x"), "request 1: cannot be decoded"),
        (lambda g: g["requests"][0]["scores"].pop("like"), "request 0: holds no scores"),
        (lambda g: g["requests"][0]["scores"].update(like=["x"]), "request 0: holds no scores"),
        (lambda g: g["requests"][0]["scores"].update(like=[[1]]), "request 0: holds no scores"),
        (lambda g: g["requests"][0]["scores"]["like"].pop(), "cannot be scored one by one"),
        (lambda g: g["requests"][0]["scores"]["love"].__setitem__(0, 0.9), "scored one by one"),
        (lambda g: g["requests"][0]["scores"]["love"].__setitem__(0, math.nan), "off by nan"),
        (lambda g: g["requests"][0]["user"].update(user_id=None), "inputs/features/user_id diff"),
    ],
)
def test_hostile_golden_requests_are_refused(
    copy: Copy, change: Callable[[Any], object], what: str
) -> None:
    message = copy.change_json("golden.json", change).refused()
    assert what in message, message
    assert message.startswith(str(copy.folder)), message


def test_golden_tensors_that_lack_or_have_more_are_refused(copy: Copy) -> None:
    copy.change_tensors(GOLDEN, lambda t: t.pop("0/logits/like"))
    assert "logits/like differs from what was exported. Got it only here." in copy.refused()
    copy.change_tensors(GOLDEN, lambda t: t.update({"0/logits/like": torch.ones(1)}))
    assert "logits/like differs from what was exported. Got (32,) of" in copy.refused()
    copy.change_tensors(GOLDEN, lambda t: t.update({"0/user/more": torch.ones(1)}))
    assert "user/more differs from what was exported. Got it only in the" in copy.refused()


def header(name: str, **about: Any) -> bytes:
    text = json.dumps({name: about}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(64)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(8),
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        header("table/item", dtype="F32", shape=[2**40, 2**40], data_offsets=[0, 64]),
        header("table/item", dtype="F32", shape=[0, 2**62, 2**62], data_offsets=[0, 0]),
        header("table/item", dtype="F32", shape=[0, 2**70], data_offsets=[0, 0]),
        header("table/item", dtype="F32", shape=[0] * 100, data_offsets=[0, 0]),
        header("table/item", dtype="F32", shape=[-1, -16], data_offsets=[0, 64]),
        header("table/item", dtype="F32", shape=[16], data_offsets=[64, 0]),
        header("table/item", dtype="F32", shape=[16], data_offsets=[2**40, 2**40 + 64]),
        header("table/item", dtype="code", shape=[16], data_offsets=[0, 64]),
        header("table/item", dtype="U8", shape=[True], data_offsets=[0, 1]),
    ],
)
def test_hostile_headers_are_refused(copy: Copy, content: bytes) -> None:
    for name in (WEIGHTS, VOCABULARIES, GOLDEN):
        before = (copy / name).read_bytes()
        (copy / name).write_bytes(content)
        copy.signed()
        message = copy.refused()
        assert name in message, message
        (copy / name).write_bytes(before)


def is_sound_or_refused(copy: Copy, what: str) -> bool:
    """Whether it still verifies; anything but an `ArtifactError` fails the test."""
    try:
        verify(copy.folder)
    except ArtifactError:
        return False
    except Exception as error:
        raise AssertionError(what) from error
    return True


def test_flipped_bytes_are_refused_or_harmless(copy: Copy, written: Path) -> None:
    """The digests are computed anew after each flip."""
    random = np.random.default_rng(5)
    texts = [
        "manifest.json",
        "golden.json",
        *(f"programs/{one}.json" for one in programs_of(written)),
    ]
    names = [*texts, WEIGHTS, VOCABULARIES, GOLDEN]
    sound = 0
    for number in range(NUM_FLIPS):
        name = names[number % len(names)]
        path = copy / name
        size = path.stat().st_size
        if name not in texts:
            size = 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]
        at, bit = int(random.integers(size)), 1 << int(random.integers(7))
        flip(path, at, bit)
        copy.signed()
        sound += is_sound_or_refused(copy, f"{name} at {at} by {bit}")
        for one in (name, "manifest.json"):
            shutil.copy(written / one, copy / one)
    assert 0 < sound < NUM_FLIPS


ODD: list[Any] = [
    *(None, True, -1, 0, 7, 2**40, 2**62, 2**70, 0.5, 1e308, math.nan, "", "x", "features/age"),
    *([], [0], {}, {"node": "cat_default"}, {"a": 1}, [[]], [2**20] * 9, {"float": "nan"}),
]


def places(content: Any) -> list[tuple[Any, Any]]:
    """List each value of a JSON content by what holds it, and its key there."""
    found: list[tuple[Any, Any]] = []
    inner = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in inner:
        found.append((content, key))
        if isinstance(value, dict | list):
            found += places(value)
    return found


def test_swapped_values_are_refused_or_harmless(copy: Copy, written: Path) -> None:
    """One value of a JSON file becomes another one, and the digests are computed anew."""
    random = np.random.default_rng(6)
    names = ["manifest.json", "golden.json", *(f"programs/{n}.json" for n in programs_of(written))]
    sound = 0
    for number in range(NUM_SWAPS):
        name = names[number % len(names)]
        content = json.loads((written / name).read_text())
        found = places(content)
        holder, key = found[int(random.integers(len(found)))]
        holder[key] = ODD[int(random.integers(len(ODD)))]
        (copy / name).write_text(json.dumps(content))
        copy.signed()
        sound += is_sound_or_refused(copy, f"{name}: {key!r} is {holder[key]!r}")
        for one in (name, "manifest.json"):
            shutil.copy(written / one, copy / one)
    assert 0 < sound < NUM_SWAPS
