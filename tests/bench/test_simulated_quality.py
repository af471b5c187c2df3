"""How a model's logit is divided among the true parts."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.simulated_quality import PARTS, VARIANTS, planned_cells, recovery, summarise

SETTINGS = {"seeds": 2, "log": {}, "training": {}, "variants": VARIANTS}


def test_recovery_is_how_much_of_each_part_a_logit_holds() -> None:
    rng = np.random.default_rng(0)
    parts = {"main": rng.normal(size=5000), "triples": rng.normal(size=5000)}
    logit = 0.25 * parts["triples"] + parts["main"] - 1.0
    found = recovery(logit, parts)
    assert found["main"] == pytest.approx(1.0)
    assert found["triples"] == pytest.approx(0.25)
    assert found["explained"] == pytest.approx(1.0)
    noisy = recovery(logit + np.sqrt(1 + 0.25**2) * rng.normal(size=5000), parts)
    assert noisy["explained"] == pytest.approx(0.5, abs=0.05)


def test_the_gap_closed_is_measured_from_the_same_seeds_logistic_regression() -> None:
    rows = []
    for cell in planned_cells(SETTINGS):
        if cell.variant not in {"linear", "mlp"}:
            continue
        auc = {"linear": 0.6, "mlp": 0.7}[cell.variant] + 0.02 * cell.repeat
        measured = {
            "seed": cell.repeat,
            "auc": auc,
            "gauc": auc,
            "log_loss": 0.5,
            "flops_per_row": 1.0,
            "recovery": dict.fromkeys((*PARTS, "explained"), 0.5),
            "oracle": {"auc": 0.8, "rows": 10},
        }
        rows.append({"variant": cell.variant, "repeat": cell.repeat, "measured": measured})
    found = summarise(rows)["variants"]
    assert found["linear"]["gap_closed"]["mean"] == 0
    assert found["mlp"]["gap_closed"]["min"] == pytest.approx(0.1 / 0.2)
    assert found["mlp"]["gap_closed"]["max"] == pytest.approx(0.1 / 0.18)
