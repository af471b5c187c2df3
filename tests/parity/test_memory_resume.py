"""A memory's table, its optimizer and the log of its usage survive a stop bit for bit."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from tests.integration.small import STEPS_PER_EPOCH, everything_in, small_train, small_values
from tests.parity.test_resume import assert_same, resumed, stop_after

pytestmark = pytest.mark.usefixtures("without_extras")

MEMORY = {
    "model.interaction": {"kind": "mlp", "hidden_dims": (8,)},
    "model.sequence": {"history": {"kind": "lmn", "num_slots": 100, "top_k": 4, "dim": 8}},
    "training.log_every_steps": 4,
}


def test_stopped_between_two_records(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = copy.deepcopy(small_values(log, layout="grouped"))
    del values["schema"]["history"]["columns"]["rating"]  # no item has one to compare with
    whole, _ = small_train(values, tmp_path / "whole", MEMORY)
    with monkeypatch.context() as patch:
        stop_after(patch, STEPS_PER_EPOCH + 6)
        stopped, _ = small_train(values, tmp_path / "parts", MEMORY)
    assert stopped.is_interrupted
    resumed(tmp_path / "parts")
    expected = everything_in(whole.folder.path)
    assert_same(everything_in(tmp_path / "parts"), expected)
    for record in expected["metrics"]:
        if record["kind"] == "step":
            assert record["auxiliary"]["history/write"] > 0
            assert 0 < record["auxiliary"]["history/memory_used"] <= 1
            assert 0 < record["auxiliary"]["history/memory_entropy"] <= 1
