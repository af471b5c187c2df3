"""The benchmark of the two layouts, at sizes of a test; what is gated are rows and losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from benchmarks import grouping
from benchmarks.harness import Cell

from rankloom.data.regroup import ungroup_log

REQUESTS = 40


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write logs to a folder of the test's, and measure in this process."""

    def here(name: str, kind: str, repeat: str, options: str) -> Any:
        measure = {"read": grouping._measure_reading, "train": grouping._measure_training}[kind]
        return measure(int(repeat), grouping.json.loads(options))

    monkeypatch.setattr(grouping, "LOGS", tmp_path)
    monkeypatch.setattr(grouping, "PIECE_REQUESTS", 16)
    monkeypatch.setattr(grouping, "run_module", here)


def measured(variant: str, **changes: Any) -> dict[str, Any]:
    sizes = {"num_requests": REQUESTS, "train_requests": REQUESTS, "batch_size": 300}
    settings = {**grouping.SETTINGS, **sizes, "models": ["mlp"], "repeats": 2, **changes}
    cell = next(c for c in grouping.planned_cells(settings) if c.variant == variant)
    return grouping.run_cell(cell)


def test_both_logs_hold_the_same_rows(tmp_path: Path) -> None:
    logs = grouping.write_logs(REQUESTS)
    assert pq.read_metadata(logs["flat"]).num_rows == REQUESTS * grouping.CANDIDATES
    assert pq.read_metadata(logs["grouped"]).num_rows == REQUESTS
    ungroup_log(logs["grouped"], tmp_path / "back.parquet")
    assert pq.read_table(tmp_path / "back.parquet").equals(pq.read_table(logs["flat"]))


def test_the_grouped_log_is_smaller() -> None:
    found = measured("disk")
    assert found["grouped"]["all"] < found["flat"]["all"]
    summary = grouping.summarise([{"variant": "disk", "repeat": 0, "measured": found}])
    assert summary["disk"]["flat / grouped"] > 1


def test_reading_is_timed() -> None:
    found = measured("read")
    assert found["rows_per_s"].keys() == set(grouping.READERS)
    summary = grouping.summarise([{"variant": "read", "repeat": 0, "measured": found}])
    assert summary["read"]["share"].keys() == {
        "grouped / flat",
        "grouped_shuffled / flat_shuffled",
    }


def test_all_ways_of_training_have_the_same_losses() -> None:
    found = measured("train mlp")
    assert found["rows_per_s"].keys() == set(grouping.WAYS)
    # fp32 sums in another order.
    assert found["largest_loss_difference"] < 1e-5
    summary = grouping.summarise([{"variant": "train mlp", "repeat": 0, "measured": found}])
    assert summary["train mlp"]["largest_loss_difference"] == found["largest_loss_difference"]


def test_all_cells_are_told_apart() -> None:
    cells = grouping.planned_cells(grouping.SETTINGS)
    repeats, models = grouping.SETTINGS["repeats"], grouping.SETTINGS["models"]
    assert len({cell.digest for cell in cells}) == len(cells) == 1 + repeats * (1 + len(models))
    assert all(isinstance(cell, Cell) for cell in cells)
