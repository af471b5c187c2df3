"""The benchmarks of the compiler, at sizes of a test; what is gated are counts and errors."""

from __future__ import annotations

import pytest
from benchmarks import hoist_parity, mari
from benchmarks.harness import Cell


@pytest.mark.parametrize("model", ["mlp", "rankmixer tokens"])
def test_divided_products_cost_what_the_formula_says(model: str) -> None:
    measured = mari.run_cell(Cell(f"{model} N=8", 0, {"model": model, "N": 8, "turns": 1}))
    assert measured["hoisted_flops"] == measured["formula_flops"] < measured["plain_flops"]
    assert measured["ms"].keys() == set(mari.SIDES)


def test_parity_is_measured_in_each_precision() -> None:
    measured = hoist_parity.run_cell(Cell("interaction/mlp", 0))
    assert measured["held_values"] > 0
    assert measured["errors"].keys() == hoist_parity.BOUNDS.keys()
    assert measured["errors"]["fp64"] < 1e-10
    summary = hoist_parity.summarise([{"variant": "interaction/mlp", "measured": measured}])
    assert summary["all_within_bounds"]
