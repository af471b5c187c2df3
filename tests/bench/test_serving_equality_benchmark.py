"""The benchmark of served scores; what it runs is tested in tests/integration."""

from __future__ import annotations

from benchmarks import serving_equality
from benchmarks.random_requests import ASKERS


def test_every_interface_is_asked_all_requests_both_ways() -> None:
    settings = {**serving_equality.SETTINGS, "requests": 25, "requests_of_a_cell": 10}
    cells = serving_equality.planned_cells(settings)
    counts = {
        (name, is_alone): [
            one.options["requests"]
            for one in cells
            if (one.options["interface"], one.options["alone"]) == (name, is_alone)
        ]
        for name in ASKERS
        for is_alone in (False, True)
    }
    assert all(count == [10, 10, 5] for count in counts.values())
    assert len({one.id for one in cells}) == len(cells) == 18


def test_errors_are_the_largest_and_counts_are_added() -> None:
    pieces = [{"answers": 4, "largest_error": 1e-8}, {"answers": 6, "largest_error": 3e-8}]
    rows = [{"variant": "json", "repeat": n, "measured": one} for n, one in enumerate(pieces)]
    assert serving_equality.summarise(rows) == {"json": {"answers": 10, "largest_error": 3e-8}}
