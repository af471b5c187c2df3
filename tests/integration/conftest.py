"""The small log, written once, and what keeps small runs quick."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.integration.failing_commands import FailingCommands
from tests.integration.small import write_small_log

from rankloom.api import evaluating
from rankloom.training import trainer


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_log(tmp_path_factory.mktemp("log"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def without_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the plots and the measured matmul rate, which take longer than a small training."""
    monkeypatch.setattr(evaluating, "write_report", lambda *_, **__: None)
    monkeypatch.setattr(trainer, "matmul_rate", lambda *_: 1e12)


@pytest.fixture
def at(
    tmp_path: Path,
    log: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> FailingCommands:
    return FailingCommands(tmp_path, log, monkeypatch, capsys)
