"""Whatever ends the process, the run folder can be read and the training goes on."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow.parquet import ParquetWriter
from tests.integration.small import (
    command,
    environment,
    everything_in,
    rankloom_command,
    run_rankloom,
    small_train,
    small_values,
    write_run_file,
)
from tests.parity.test_resume import assert_same

from rankloom.api import load_result, resume
from rankloom.api.result import RunFolder
from rankloom.training import checkpoint
from rankloom.training.checkpoint import read_manifest
from rankloom.training.hooks import read_metrics

KILLS = 2
NO_TEST = {"test": None}


def start(*arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        rankloom_command(*arguments),
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(is_true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + 120
    while not is_true() and process.poll() is None:
        assert time.monotonic() < limit
        time.sleep(0.01)


def long_run(log: Path, folder: Path, **training: Any) -> tuple[Path, dict[str, Any]]:
    """Write a run file of many short epochs."""
    values = small_values(log)
    values["data"] = values["data"] | NO_TEST
    values["training"] = values["training"] | training
    return write_run_file(folder / "run.yaml", values), values


def last_step(folder: Path) -> int:
    last = RunFolder(folder).checkpoints.path("last")
    return 0 if last is None else int(read_manifest(last)["state"]["step"])


def test_kill_between_any_two_writes(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_extras: None
) -> None:
    """The folder is copied before everything that changes it: each copy is what a kill leaves."""
    folder, copies = tmp_path / "run", tmp_path / "copies"

    def copied_before(real: Callable[..., Any]) -> Callable[..., Any]:
        def copying(*args: Any, **kwargs: Any) -> Any:
            if folder.exists():
                shutil.copytree(folder, copies / f"{len(list(copies.iterdir())):03d}")
            return real(*args, **kwargs)

        return copying

    copies.mkdir()
    overrides = {"training.epochs": 1, "training.checkpoint_every_steps": 4}
    with monkeypatch.context() as patch:
        for owner, name in (
            (Path, "rename"),
            (Path, "replace"),
            (checkpoint, "write_tensors"),
            (checkpoint.shutil, "rmtree"),
        ):
            patch.setattr(owner, name, copied_before(getattr(owner, name)))
        small_train(small_values(log), folder, overrides)
    found = sorted(copies.iterdir())
    steps = [last_step(copy) for copy in found]
    assert len(found) > 30
    assert steps == sorted(steps)
    assert set(steps) == {0, 4, 8, 12, 13}
    for copy, step in zip(found, steps, strict=True):
        assert step >= _last_logged_step(copy) - 4
        if step:
            load_result(copy)
    expected = everything_in(folder)
    for copy in [*found[:3], *found[3::9], found[-1]]:
        if (copy / "run.yaml").is_file():
            resume(copy, printer=lambda _: None)
            assert_same(everything_in(copy), expected)


def test_kill_at_random_moments(log: Path, tmp_path: Path) -> None:
    """Checkpoints are written all the time, so that most kills hit one."""
    run_file, values = long_run(log, tmp_path, epochs=3, checkpoint_every_steps=1)
    folder = tmp_path / "killed"
    arguments: list[str | Path] = [run_file, "--to", folder]
    for moment in np.random.default_rng(0).uniform(0, 0.2, KILLS):
        seen = last_step(folder) if folder.exists() else 0
        process = start("train", *arguments, cwd=tmp_path)
        wait_for(lambda seen=seen: _has_passed(folder, seen), process)
        time.sleep(moment)
        process.kill()
        assert process.communicate()[1] == ""
        # A record is written before its step's checkpoint: one step is lost at most.
        assert last_step(folder) >= max(seen, _last_logged_step(folder) - 1)
        load_result(folder)
        arguments = ["--resume", folder]
    done = run_rankloom("train", "--resume", folder, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    small_train(values, tmp_path / "whole")
    assert_same(everything_in(folder), everything_in(tmp_path / "whole"))
    # Nothing of the kills is left: two checkpoints at most, and their pointers.
    names = sorted(path.name for path in RunFolder(folder).checkpoints.folder.iterdir())
    assert [name for name in names if name.startswith(".")] == []
    assert len([name for name in names if name.startswith("step-")]) <= 2


def _has_passed(folder: Path, seen: int) -> bool:
    try:
        return last_step(folder) > seen
    except Exception:  # noqa: BLE001 (read while the process replaces it)
        return False


def _last_logged_step(folder: Path) -> int:
    path = RunFolder(folder).metrics
    return max([r["step"] for r in read_metrics(path)], default=0) if path.is_file() else 0


def test_ctrl_c_saves_and_says_how_to_go_on(log: Path, tmp_path: Path) -> None:
    run_file, values = long_run(log, tmp_path, epochs=8, log_every_steps=3)
    folder = tmp_path / "stopped here"
    process = start("train", run_file, "--to", folder, cwd=tmp_path)
    wait_for((folder / "metrics.jsonl").is_file, process)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, "")
    step = last_step(folder)
    assert output.splitlines()[-1] == (
        f"stopped   step {step} is saved in {RunFolder(folder).checkpoints.path('last')}; "
        f"go on with: rankloom train --resume '{folder}'"
    )
    done = run_rankloom("train", "--resume", folder, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"resumed   {folder} at step {step}" in done.stdout
    small_train(values, tmp_path / "whole")
    assert_same(everything_in(folder), everything_in(tmp_path / "whole"))


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_elsewhere_leaves_no_half_written_file(
    log: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    without_extras: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small_train(small_values(log), tmp_path / "run", {"training.epochs": 1})
    before = sorted(tmp_path.rglob("*"))
    real = ParquetWriter.write_table

    def stopping(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ParquetWriter, "write_table", stopping)
    source = log / "test" / "part-0.parquet"
    code = command(
        monkeypatch, "predict", tmp_path / "run", source, "--to", tmp_path / "to.parquet"
    )
    assert code == 130
    assert capsys.readouterr().err.startswith("stopped")
    assert sorted(tmp_path.rglob("*")) == before
