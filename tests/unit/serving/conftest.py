"""Two small artifacts: one whose candidates read the history, and a separated mixer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.integration.served import MODELS, export_small
from tests.integration.small import write_small_log


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> folder of an artifact."""
    log = write_small_log(tmp_path_factory.mktemp("served_log") / "log")
    return {name: export_small(name, log, tmp_path_factory.mktemp(name)) for name in MODELS}
