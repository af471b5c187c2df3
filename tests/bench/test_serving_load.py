"""The benchmarks of load: who is asked what, and what counts as in time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import load_models, serving_load, serving_overload
from benchmarks.harness import ROOT, Row
from benchmarks.load_ways import Variant, compare_under_load
from benchmarks.open_loop import Asked, summary_of
from benchmarks.plain_server import flat_logits, read_once

from rankloom.api import load_result
from rankloom.artifact.ranker import Ranker, load

SMALL = {
    "mixer": {"token_dim": 24, "num_layers": 1},
    "transformer": {
        "token_dim": 24,
        "num_layers": 1,
        "history": {"num_layers": 1, "dim": 8, "num_heads": 2},
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("load")


@pytest.fixture
def artifact(folder, request, monkeypatch) -> Path:
    monkeypatch.setattr(load_models, "ARTIFACTS", folder)
    return load_models.artifact_of(request.param, SMALL[request.param])


def scored_plainly(ranker: Ranker, artifact: Path, one: dict[str, Any]) -> np.ndarray:
    network = load_result(artifact.parent / "run").model.network
    with torch.inference_mode():
        batch = ranker.decoder.decode(one["user"], one["candidates"], None)
        inputs = ranker.embedder(batch).inputs
        return flat_logits(network, inputs, read_once(network, inputs))["click"].numpy()


@pytest.mark.parametrize("artifact", list(SMALL), indirect=True)
def test_the_plain_server_scores_as_the_artifact_does(artifact: Path) -> None:
    ranker = load(artifact)
    draws = load_models.LoadRequests(has_history="transformer" in artifact.parent.name, seed=1)
    one = {"user": draws.user(), "candidates": draws.candidates(7)}
    inputs = ranker.inputs(ranker.decoder.decode(one["user"], one["candidates"], None))
    expected = ranker.logits(inputs)["click"].numpy()
    np.testing.assert_allclose(scored_plainly(ranker, artifact, one), expected, atol=1e-5)


@pytest.mark.parametrize("artifact", ["transformer"], indirect=True)
def test_servers_are_asked_in_turns_and_users_states_are_found_as_planned(artifact: Path) -> None:
    plan = {"seed": 0, "candidates": [5], "deadlines_ms": [2000], "known_users": 3}
    plan |= {"has_history": True, "warm_up": 6, "seconds": 1.5}
    variants = [Variant("plain", 0.0), Variant("all", 0.0), Variant("all", 1.0)]
    found = compare_under_load(artifact, variants, plan, rates=lambda _: [20.0], threads=1)
    assert list(found) == ["plain", "all 0% hits", "all 100% hits"]
    for one in found.values():
        (at,) = one["rates"]
        assert at["other"] == []
        assert at["sent"] > 10
        assert at["cpu_shares"]["compute"] > 0
    shares = {name: one["rates"][0]["hit_share"] for name, one in found.items()}
    assert shares == {"plain": 0.0, "all 0% hits": 0.0, "all 100% hits": 1.0}


def test_what_counts() -> None:
    asked = [
        Asked(50.0, 20.0, 19.0, "ok", True, 15.0),
        Asked(50.0, 60.0, 59.0, "ok", False, 15.0),
        Asked(20.0, 22.0, 2.0, "refused"),
        Asked(20.0, 30.0, 30.0, "given_up"),
    ]
    found = summary_of(asked, 2.0)
    assert found["goodput_per_s"] == 0.5
    assert found["in_time_share_by_deadline"] == {"20": 0.0, "50": 0.5}
    assert found["refused_share"] == 0.25
    # Of three that were admitted one was late and one was given up.
    assert found["late_share_of_admitted"] == pytest.approx(2 / 3)
    assert found["refusal_ms"]["p99"] == 2.0
    assert found["overhead_ms"]["p50"] == pytest.approx((4 + 44) / 2)


def rows(goodputs: dict[str, list[float]]) -> list[Row]:
    ms = {"mean": 5.0, "p50": 5.0, "p95": 9.0, "p99": 9.5}
    measured = {
        name: {
            "unloaded": {"ms": ms, "work_ms": ms, "overhead_ms": ms},
            "rates": [
                {
                    "offered_per_s": 10.0 * (at + 1),
                    "load": [1.0, 2.0][at],
                    "goodput_per_s": goodput,
                    "in_time_share": goodput / (10.0 * (at + 1)),
                    "in_time_share_by_deadline": {"50": 0.5},
                    "refused_share": 0.1,
                    "late_share_of_admitted": 0.02,
                    "refusal_ms": ms,
                    "ms": ms,
                    "clients_cpu_share": 0.1,
                    "cpu_shares": {"compute": 0.9},
                }
                for at, goodput in enumerate(values)
            ],
        }
        for name, values in goodputs.items()
    }
    return [{"variant": "mixer", "repeat": 0, "measured": measured}]


def test_ratios_are_of_peaks_within_a_cell() -> None:
    found = serving_load.summarise(rows({"plain": [9.0, 8.0], "all 0% hits": [10.0, 18.0]}))
    mine = found["mixer"]["all 0% hits"]
    assert mine["peak_over_plain"]["median"] == 2.0
    assert mine["rate_in_time_per_s"]["median"] == 20.0
    assert found["mixer"]["plain"]["rate_in_time_per_s"]["median"] == 10.0


def test_goals_are_judged_from_twice_capacity_on() -> None:
    found = serving_overload.summarise(rows({"all": [10.0, 8.0]}))["all"]
    assert "meets" not in found["1x"]
    assert found["2x"]["meets"] == {
        "goodput_over_peak": False,
        "refusal_p99_ms": False,
        "late_share_of_admitted": False,
    }


def test_clients_need_no_torch() -> None:
    code = "import sys, benchmarks.open_loop; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
