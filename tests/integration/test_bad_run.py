"""Bad options, folders, checkpoints and disks: one clear message, and nothing half written."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
import yaml
from tests.integration.failing_commands import FailingCommands, is_clear, trained
from tests.integration.small import (
    command,
    run_rankloom,
    small_train,
    write_run_file,
)

from rankloom.api.result import RunFolder
from rankloom.training import checkpoint

pytestmark = pytest.mark.usefixtures("without_extras")

TEN = {
    "training.epochs": 0,
    "training.batch_size": -1,
    "training.learning_rate": 1,
    "model.interaction.hidden_dim": 3,
    "schema.hour.num_embedings": 4,
    "schema.age.encode.num_buckets": 1,
    "roles.usr": "user_id",
    "tasks.love.given": "liek",
    "evaluation.metrics": ["acu"],
    "evaluations": {},
}


def test_ten_mistakes_are_all_reported(at: FailingCommands) -> None:
    values = yaml.safe_load(at.run_file.read_text())
    for path, value in TEN.items():
        *parents, last = path.split(".")
        target = values
        for name in parents:
            target = target[name]
        target[last] = value
    write_run_file(at.run_file, values)
    first, *lines = at.train().splitlines()
    assert first == f"{at.run_file} has 10 mistakes:"
    found = {line.strip().partition(": ")[0] for line in lines}
    assert found == {path.replace("metrics", "metrics.0") for path in TEN}
    assert at.made == []


def test_a_missing_run_file(at: FailingCommands) -> None:
    message = at.refused("train", at.folder / "no.yaml")
    assert message == (
        f"{at.folder / 'no.yaml'}: cannot be read (No such file or directory). "
        "Give a YAML run file."
    )


@pytest.mark.parametrize("text", ["a: [", "- a", "", "\x00", "a: &x [*x]"])
def test_a_run_file_that_is_no_yaml_mapping(at: FailingCommands, text: str) -> None:
    at.run_file.write_text(text)
    assert at.train().startswith(str(at.run_file))
    assert at.made == []


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("training.epoch=2", "training.epoch: unknown key. Did you mean 'epochs'?"),
        ("training.epochs", "--set training.epochs: must read path.to.key=value."),
        ("training.epochs.x=2", "--set training.epochs.x: training.epochs is 1, not a mapping."),
        ("training.epochs=[", "--set training.epochs=[ line 1: is not YAML"),
        (
            "training.sparse={kind: adam, tables: {itm: {lr: 1}}}",
            "training.sparse.tables.itm: no table has this name. Did you mean 'item'?",
        ),
        ("training.early_stopping.metric=like/acu", "training.early_stopping.metric: must be"),
        ("training.early_stopping.metric=lik/auc", "training.early_stopping.metric: must be"),
        ("evaluation.metrics=[calibration]", "evaluation.metrics: must hold a metric"),
        ("training.warm_start=nowhere", "training.warm_start: nowhere has no checkpoint."),
        ("evaluation.slices=[hours]", "column 'hours' (a key) is missing"),
    ],
)
def test_a_wrong_override(at: FailingCommands, option: str, said: str) -> None:
    assert said in at.train("--set", option)
    assert at.made == []


@pytest.mark.parametrize("name", ["movielen", "synthetics"])
def test_unknown_data(at: FailingCommands, name: str) -> None:
    to = at.folder / "quick"
    message = at.refused("quickstart", "--data", name, "--to", to)
    assert message.startswith("rankloom quickstart --data: ")
    assert f"Got {name!r}." in message
    assert not to.exists()
    assert f"unknown name {name!r}" in at.refused("data", "prepare", name, "--to", to)
    assert not to.exists()


@pytest.mark.parametrize("split", ["tset", "layout", "files", "model_config"])
def test_an_unknown_split(at: FailingCommands, split: str) -> None:
    trained(at)
    message = at.refused("evaluate", at.to, "--split", split)
    assert message.startswith(f"split: must be one of train, valid, test. Got {split!r}.")


def test_a_split_that_the_run_file_does_not_name(at: FailingCommands) -> None:
    at.values["data"] = {**at.values["data"], "test": None}
    trained(at)
    assert at.refused("evaluate", at.to).startswith("data.test: is missing. Name its")


def test_a_checkpoint_from_another_schema(at: FailingCommands) -> None:
    folder = trained(at)
    other, _ = small_train(at.values, at.folder / "other", {"schema.hour.num_embeddings": 25})
    shutil.rmtree(folder.checkpoints.folder)
    shutil.copytree(other.folder.checkpoints.folder, folder.checkpoints.folder)
    for arguments in (["train", "--resume", at.to], ["evaluate", at.to]):
        message = at.refused(*arguments)
        assert "was trained with another schema." in message
        assert "training.warm_start" in message


@pytest.mark.parametrize("name", ["network", "tables", "optimizer"])
def test_a_damaged_checkpoint(at: FailingCommands, name: str) -> None:
    checkpoint = trained(at).checkpoints.path("last")
    assert checkpoint is not None
    path = checkpoint / f"{name}.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for arguments in (["train", "--resume", at.to], ["evaluate", at.to]):
        message = at.refused(*arguments)
        assert message.startswith(f"{checkpoint}: {name}.safetensors missing or changed")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"folder": "../../x"}'])
def test_a_damaged_pointer(at: FailingCommands, content: bytes) -> None:
    pointer = trained(at).checkpoints.folder / "last.json"
    pointer.write_bytes(content)
    assert at.refused("train", "--resume", at.to).startswith(f"{pointer}: names no checkpoint.")


@pytest.mark.parametrize("name", ["transforms.json", "vocabulary"])
def test_damaged_transforms(at: FailingCommands, name: str) -> None:
    path = next(p for p in trained(at).transforms.iterdir() if p.name.startswith(name))
    path.write_bytes(path.read_bytes().replace(b"a", b"b", 1)[:-9])
    assert str(path) in at.refused("evaluate", at.to)
    path.unlink()
    assert str(path) in at.refused("evaluate", at.to)


def test_a_folder_that_is_no_run(at: FailingCommands) -> None:
    for verb in (["evaluate"], ["describe"], ["train", "--resume"]):
        message = at.refused(*verb, at.data)
        assert message.startswith(str(at.data)), message


def test_a_folder_that_holds_a_run_is_left_alone(at: FailingCommands) -> None:
    trained(at)
    assert at.train().startswith(f"{at.to}: holds a run already.")


def test_bad_data_leave_the_run_that_they_would_overwrite(at: FailingCommands) -> None:
    trained(at)
    at.part().write_bytes(b"")
    assert "is empty" in at.train("--overwrite")


def test_checkpoints_that_are_no_runs_are_left_alone(at: FailingCommands) -> None:
    (at.folder / "checkpoints" / "mine").mkdir(parents=True)
    (at.folder / "checkpoints" / "mine" / "weights").write_text("x")
    run_file = at.run_file.rename(at.folder / "small.yaml")
    message = at.refused("train", run_file, "--to", at.folder)
    assert message.startswith(f"{at.folder}: holds checkpoints, but no run.")


def test_a_place_that_cannot_be_written(at: FailingCommands) -> None:
    # Even for root: below a regular file there are no folders.
    below = at.run_file / "runs"
    assert at.refused("train", at.run_file, "--to", below).startswith(f"{below}: ")
    trained(at)
    scored = at.refused("predict", at.to, at.part("test"), "--to", below / "scored.parquet")
    assert scored.startswith(f"{below / 'scored.parquet'}: ")
    prepared = at.refused("data", "prepare", "synthetic", "--to", below)
    assert prepared.startswith(str(below))
    quick = at.refused("quickstart", "--data", "synthetic", "--to", below)
    assert quick.startswith(str(below))


def test_debug_shows_the_traceback(at: FailingCommands) -> None:
    done = run_rankloom("train", at.folder / "no.yaml", "--debug", cwd=at.folder)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ConfigError" in done.stderr
    plain = run_rankloom("train", at.folder / "no.yaml", cwd=at.folder)
    assert plain.returncode == 2
    assert "Traceback" not in plain.stderr


def test_an_unknown_option_is_no_traceback(at: FailingCommands) -> None:
    done = run_rankloom("train", "--steps", "3", cwd=at.folder)
    assert done.returncode == 2
    assert "No such option" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistake_of_ours_is_one_line_too(at: FailingCommands) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    at.monkeypatch.setattr("rankloom.api.load_run", broken)
    assert command(at.monkeypatch, "train", at.run_file) == 1
    message = at.capsys.readouterr().err
    assert message.startswith("rankloom: ZeroDivisionError: oops. This should not happen.")
    assert "--debug" in message


def fill(disk: Path, *, but: int) -> Path:
    """Leave only some bytes free."""
    filler = disk / "filler"
    usage = shutil.disk_usage(disk)
    filler.write_bytes(bytes(usage.free - but))
    return filler


@pytest.mark.parametrize("free", [0, 4_000, 8_000, 20_000, 40_000, 60_000, 80_000])
def test_a_full_disk(at: FailingCommands, small_disk: Path, free: int) -> None:
    """However far the training comes, what stands in the folder is whole and goes on."""
    to = small_disk / "run"
    filler = fill(small_disk, but=free)
    arguments = ("train", at.run_file, "--to", to, "--set", "training.checkpoint_every_steps=1")
    assert command(at.monkeypatch, *arguments) == 2
    message = at.capsys.readouterr().err.strip()
    assert "Traceback" not in message
    assert is_clear(message), message
    assert str(to) in message
    assert "No space left on device" in message
    assert "Free some space" in message or "Free space" in message
    assert [path for path in small_disk.rglob("*") if ".tmp" in path.name] == []
    filler.unlink()
    if RunFolder(to).run_file.is_file():
        assert command(at.monkeypatch, "train", "--resume", to) == 0
    else:
        assert command(at.monkeypatch, "train", at.run_file, "--to", to) == 0


def test_a_full_disk_while_predicting(at: FailingCommands, small_disk: Path) -> None:
    trained(at)
    fill(small_disk, but=0)
    to = small_disk / "scored.parquet"
    message = at.refused("predict", at.to, at.part("test"), "--to", to)
    assert message.startswith(f"{to}: predictions cannot be written")
    assert sorted(small_disk.iterdir()) == [small_disk / "filler"]


def test_a_full_disk_while_a_checkpoint_is_written(at: FailingCommands) -> None:
    trained(at, **{"training.epochs": 1})
    at.monkeypatch.setattr(checkpoint, "write_tensors", full_disk)
    other = at.folder / "other"
    message = at.refused("train", at.run_file, "--to", other)
    assert message.startswith(f"{other / 'checkpoints' / 'step-00000013.0'}: cannot be written (No")
    assert list((other / "checkpoints").iterdir()) == []


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_while_a_result_is_written(at: FailingCommands) -> None:
    trained(at)
    at.monkeypatch.setattr(Path, "write_text", full_disk)
    message = at.refused("evaluate", at.to)
    assert message.startswith(f"{at.to}: evaluation.json and report.html cannot be written (No ")
