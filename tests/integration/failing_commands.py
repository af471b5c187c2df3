"""A place where commands fail: what they say, and that they leave nothing half written."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.integration.small import (
    SPLITS,
    command,
    small_train,
    small_values,
    write_run_file,
)

from rankloom.api.result import RunFolder

Change = Callable[[pa.Table], pa.Table]


class FailingCommands:
    """A folder with a copy of the small log, a run file, and the command."""

    def __init__(
        self,
        folder: Path,
        log: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        for split in SPLITS:
            (self.data / split).mkdir(parents=True)
            shutil.copy(log / split / "part-0.parquet", self.part(split))
        self.values = small_values(self.data)
        self.values["training"] = self.values["training"] | {"epochs": 1}
        self.run_file = write_run_file(folder / "run.yaml", self.values)
        self.to = folder / "to"
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def part(self, split: str = "train") -> Path:
        return self.data / split / "part-0.parquet"

    def change(self, change: Change, split: str = "train") -> Path:
        path = self.part(split)
        pq.write_table(change(pq.read_table(path)), path)
        return path

    def train(self, *options: str | Path) -> str:
        return self.refused("train", self.run_file, "--to", self.to, *options)

    def refused(self, *arguments: str | Path) -> str:
        """Run a command that must fail; give its message."""
        before = everything_under(self.folder)
        self.capsys.readouterr()
        assert command(self.monkeypatch, *arguments) == 2
        message = self.capsys.readouterr().err
        assert "Traceback" not in message
        after = everything_under(self.folder)
        assert {path for path in after if path.suffix == ".tmp"} == set()
        if self.to not in before:
            self.made = sorted(after.keys() - before.keys())
        assert {path: after.get(path) for path in before} == before
        # What Arrow says of a damaged file has several lines.
        lines = [message.replace("\n", " ")] if "row group" in message else message.splitlines()
        for line in lines:
            assert is_clear(line), line
        return message.strip()


def everything_under(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def is_clear(line: str) -> bool:
    """Whether a line reads `where: what. Got x. What to do.`, or heads lines that do."""
    if re.fullmatch(r"\S.* has \d+ mistakes:", line):
        return True
    where, found, rest = line.strip().partition(": ")
    sentences = re.split(r"(?<=[.?]) +", rest.strip())
    # That something must be there, or must read so, says what to do by itself.
    is_advice = sentences[0].endswith((" is missing.", " not a mapping.")) or "must read" in rest
    return bool(where and found) and rest[-1] in ".?" and (len(sentences) >= 2 or is_advice)


def trained(at: FailingCommands, **overrides: Any) -> RunFolder:
    small_train(at.values, at.to, overrides)
    return RunFolder(at.to)
