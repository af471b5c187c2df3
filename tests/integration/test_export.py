"""From a run to an artifact that scores as the run does, or nothing at all."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.integration.failing_commands import FailingCommands, is_clear, trained
from tests.integration.small import (
    command,
    environment,
    run_rankloom,
    small_train,
    small_values,
)
from tests.integration.test_bad_run import fill, full_disk
from tests.integration.test_kill import start, wait_for

from rankloom import load, verify
from rankloom.artifact import export as exporting
from rankloom.errors import ArtifactError
from rankloom.sequence import SEQUENCES

pytestmark = pytest.mark.usefixtures("without_extras")

NUM_LINES = 40
ONE_EPOCH = {"training.epochs": 1}
RANKMIXER = {
    "tokenization": {"kind": "per_feature", "token_dim": 14},
    "interaction": {"kind": "rankmixer", "num_layers": 1},
}
# What serving must not need.
BLOCKED = (
    *("pyarrow", "typer", "matplotlib", "tensorboard"),
    *("rankloom.models", "rankloom.interaction", "rankloom.tokenization", "rankloom.sequence"),
    *("rankloom.heads", "rankloom.training", "rankloom.evaluation", "rankloom.api"),
)
SERVE = """
import json, sys
from pathlib import Path

blocked = sys.argv[2].split(",")

class Blocking:
    def find_spec(self, name, path=None, target=None):
        if any(name == one or name.startswith(one + ".") for one in blocked):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocking())
import rankloom

folder = Path(sys.argv[1])
one = json.loads((folder / "golden.json").read_text())["requests"][0]
found = rankloom.load(folder).score(one["user"], one["candidates"], one["context"])
print(max(abs(a - b) for task in found for a, b in zip(found[task], one["scores"][task])))
"""


def small_model(log: Path, kind: str) -> dict[str, Any]:
    is_grouped = kind in {"grouped", *SEQUENCES}
    values = small_values(log, layout="grouped" if is_grouped else "flat")
    if kind in SEQUENCES:
        history = values["schema"]["history"] | {"columns": {"item_id": {"table": "item"}}}
        values["schema"] = values["schema"] | {"history": history}
        values["model"] = values["model"] | {"sequence": {"history": {"kind": kind}}}
    if kind == "rankmixer":
        values["model"] = values["model"] | RANKMIXER
    return values


@pytest.mark.parametrize("kind", ["flat", "grouped", "din", "transformer", "rankmixer"])
def test_an_artifact_scores_as_the_run_predicts(
    log: Path,
    tmp_path: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = small_model(log, kind)
    small_train(values, tmp_path / "run", ONE_EPOCH)
    is_grouped = values["data"]["layout"] == "grouped"
    source = (log / "grouped" if is_grouped else log) / "test" / "part-0.parquet"
    scored, to = tmp_path / "scored.parquet", tmp_path / "artifact"
    assert command(monkeypatch, "predict", tmp_path / "run", source, "--to", scored) == 0
    assert command(monkeypatch, "export", tmp_path / "run", "--to", to) == 0
    output = capsys.readouterr().out
    assert "verified  8 golden requests, " in output
    assert f"MB  {to}" in output
    assert command(monkeypatch, "verify", to) == 0
    assert capsys.readouterr().out.startswith("verified  8 golden requests, ")

    ranker = load(to)
    places = ranker.decoder.columns()
    lines = pq.read_table(source).slice(0, NUM_LINES).to_pylist()
    expected = pq.read_table(scored).slice(0, NUM_LINES).to_pylist()
    assert list(ranker.schema.tasks) == list(values["tasks"])
    for line, wanted in zip(lines, expected, strict=True):
        columns = {name: line[name] for name in places["candidates"]}
        found = ranker.score(
            {name: line[name] for name in places["user"]},
            columns if is_grouped else {name: [one] for name, one in columns.items()},
            {name: line[name] for name in places["context"]},
        )
        for task, scores in found.items():
            assert np.abs(scores - np.atleast_1d(wanted[task])).max() < 1e-6


@pytest.fixture(scope="module")
def run(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "run"
    small_train(small_values(log), folder, ONE_EPOCH)
    return folder


@pytest.fixture(scope="module")
def artifact(run: Path) -> Path:
    done = run_rankloom("export", run, "--to", run.parent / "artifact", cwd=run.parent)
    assert (done.returncode, done.stderr) == (0, "")
    return run.parent / "artifact"


def test_serving_needs_no_architecture_no_training_and_no_arrow(artifact: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(artifact), ",".join(BLOCKED)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout) < 1e-6


def test_verify_is_a_command(artifact: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    assert command(monkeypatch, "verify", artifact) == 0
    assert "verified  8 golden requests, 225 scores: largest error" in capsys.readouterr().out
    shutil.copytree(artifact, tmp_path / "copy")
    with (tmp_path / "copy" / "weights.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    assert command(monkeypatch, "verify", tmp_path / "copy") == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith(f"{tmp_path / 'copy'}: weights.safetensors was changed since")
    assert is_clear(message)


def test_an_empty_folder_is_filled(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert command(monkeypatch, "export", run, "--to", "here") == 0
    verify(tmp_path / "here")
    (tmp_path / "this").mkdir()
    monkeypatch.chdir(tmp_path / "this")
    assert command(monkeypatch, "export", run, "--to", ".") == 0
    verify(tmp_path / "this")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["here", "this"]


def test_what_is_asked_for_is_checked_first(at: FailingCommands) -> None:
    """Before the run is read: it is not there."""
    run, to = at.folder / "no run", at.folder / "artifact"
    message = at.refused("export", run, "--to", to, "--quantize", "tables,usr")
    assert message.startswith("quantize: must be of tables, user, candidate. Got usr.")
    message = at.refused("export", run, "--to", at.data)
    assert message.startswith(f"{at.data}: is there already.")
    message = at.refused("export", run, "--to", at.run_file)
    assert message.startswith(f"{at.run_file}: is there already.")
    assert str(run) in at.refused("export", run, "--to", to)
    assert str(to) in at.refused("verify", to)


def test_a_log_that_is_gone(at: FailingCommands) -> None:
    trained(at)
    golden = at.part("test").rename(at.folder / "kept.parquet")
    for split in ("train", "valid"):
        at.part(split).unlink()
    to = at.folder / "artifact"
    message = at.refused("export", at.to, "--to", to)
    assert message.endswith("Golden requests need a log: name a Parquet file with --golden.")
    assert "part-0.parquet" in message or "*.parquet" in message
    other = at.folder / "none.parquet"
    assert at.refused("export", at.to, "--to", to, "--golden", other).startswith(str(other))
    pq.write_table(pq.read_table(golden).drop_columns(["genres"]), other)
    assert "'genres'" in at.refused("export", at.to, "--to", to, "--golden", other)
    pq.write_table(pq.read_table(golden).slice(0, 0), other)
    assert str(other) in at.refused("export", at.to, "--to", to, "--golden", other)
    pq.write_table(pq.read_table(golden).slice(0, 1), other)
    assert command(at.monkeypatch, "export", at.to, "--to", to, "--golden", other) == 0
    assert verify(to).num_rows == 1


def test_a_place_that_cannot_be_written(at: FailingCommands) -> None:
    trained(at)
    # Even for root: below a regular file there are no folders.
    to = at.run_file / "artifact"
    message = at.refused("export", at.to, "--to", to)
    assert message.startswith(f"{to}: cannot be written (Not a directory).")


def test_a_full_disk(at: FailingCommands) -> None:
    trained(at)
    to = at.folder / "artifact"
    for owner, name in ((exporting, "write_tensors"), (Path, "write_text"), (Path, "replace")):
        with at.monkeypatch.context() as patch:
            patch.setattr(owner, name, full_disk)
            assert command(patch, "export", at.to, "--to", to) == 2
            message = at.capsys.readouterr().err.strip()
        assert message.startswith(f"{to}: cannot be written (No space left on device). Free some")
        assert is_clear(message)
        assert [one.name for one in at.folder.iterdir() if "artifact" in one.name] == []


def test_a_disk_that_fills(run: Path, small_disk: Path, monkeypatch: Any, capsys: Any) -> None:
    filler = fill(small_disk, but=40_000)
    to = small_disk / "artifact"
    assert command(monkeypatch, "export", run, "--to", to) == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith(f"{to}: cannot be written (No space left on device). Free some")
    assert [one.name for one in small_disk.iterdir()] == ["filler"]
    filler.unlink()
    assert command(monkeypatch, "export", run, "--to", to) == 0


@pytest.mark.usefixtures("heeds_ctrl_c")
@pytest.mark.parametrize("where", ["write_golden", "verify"])
def test_ctrl_c_leaves_nothing(
    run: Path, tmp_path: Path, where: str, monkeypatch: Any, capsys: Any
) -> None:
    real = getattr(exporting, where)

    def stopping(*args: Any, **kwargs: Any) -> Any:
        found = real(*args, **kwargs)
        assert next(tmp_path.iterdir()).name.startswith(".artifact.")
        signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(exporting, where, stopping)
    assert command(monkeypatch, "export", run, "--to", tmp_path / "artifact") == 130
    assert "Traceback" not in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_is_killed_leaves_no_artifact(
    run: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    to = tmp_path / "artifact"
    process = start("export", run, "--to", to, cwd=tmp_path)
    wait_for(lambda: any(tmp_path.iterdir()), process)
    process.kill()
    assert process.communicate()[1] == ""
    if to.exists():
        # Whole, if the kill came too late.
        verify(to)
        return
    with pytest.raises(ArtifactError):
        load(to)
    assert all(one.name.startswith(".artifact.") for one in tmp_path.iterdir())
    assert command(monkeypatch, "export", run, "--to", to) == 0
    verify(to)
