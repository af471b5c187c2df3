from __future__ import annotations

from typing import Any

import pytest
from benchmarks.training_throughput import MEASURED, summarise


def row(variant: str, repeat: int, rows_per_s: float) -> dict[str, Any]:
    measured = {**dict.fromkeys(MEASURED, 1.0), "samples_per_s": rows_per_s}
    return {"variant": variant, "repeat": repeat, "measured": measured}


def test_ratios_are_taken_within_a_repeat() -> None:
    """A third, fast repeat of one side alone must not count."""
    rows = [row("rankloom", 0, 20), row("floor", 0, 10), row("rankloom", 1, 4)]
    rows += [row("floor", 1, 8), row("rankloom", 2, 100)]
    ratio = summarise(rows)["rankloom_over_floor"]
    assert (ratio["n"], ratio["median"]) == (2, pytest.approx(1.25))
    assert "rankloom_over_best_peer" not in summarise(rows)
