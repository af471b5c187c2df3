"""`rankloom serve` while things go wrong: clients get right scores, or are told why not.

The faults are those of `benchmarks/serving_faults.py`, for a few seconds each; `broken_promises`
there names what must not be.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.hostile_bodies import violation
from benchmarks.serving_faults import FAULTS, SETTINGS, broken_promises, measure, mix
from benchmarks.serving_world import World, make_artifact, serving_world

SHORT = {
    **SETTINGS,
    "again": False,
    "duration_s": 1.5,
    "calm_s": 0.75,
    "slow": 150,
    "pause_s": 0.5,
    "hostile": 300,
    "hostile_per_s": 200.0,
    # Other tests may take the cores meanwhile.
    "allowed_delay_ms": 500.0,
    # The largest requests of a process may be its last ones: only a soak shows a small leak.
    "allowed_growth_mb": 256.0,
}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_artifact(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def world(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A server that ends with the module; each fault leaves it whole."""
    with serving_world(tmp_path_factory.mktemp("world"), artifact) as one:
        yield one


def found(world: World, fault: str, **options: Any) -> dict[str, Any]:
    measured = measure(world, FAULTS[fault], {**SHORT, **options})
    assert measured["broken_promises"] == []
    return measured


def test_a_killed_front_end_is_noticed_by_no_client(world: World) -> None:
    measured = found(world, "front_end_killed")
    assert measured["kills"] >= 1
    assert measured["during"]["outcomes"].keys() <= {"ok", "default"}


def test_clients_are_told_at_once_that_the_compute_process_was_killed(world: World) -> None:
    measured = found(world, "compute_killed")
    assert measured["told"].keys() <= {"503 overloaded", "503 not_ready", "200 ok"}
    assert measured["told"]["503 not_ready"] > 10
    assert measured["told_p99_ms"] < 500


def test_users_are_unknown_while_redis_is_away(world: World) -> None:
    measured = found(world, "redis_stopped")
    assert measured["during"]["outcomes"]["default"] > 0
    assert "default" not in measured["after"]["outcomes"]


def test_slow_clients_are_cut_off(world: World) -> None:
    # Longer than a head and a body may take.
    measured = found(world, "slow_clients", duration_s=4.0)
    assert measured["ended_by_server"]["head 408"] > 0
    assert measured["ended_by_server"]["body 408"] > 0


def test_what_clients_give_up_is_not_computed(world: World) -> None:
    measured = found(world, "disconnects")
    assert measured["given_up"] > 20


def test_hostile_requests_are_answered_with_problems(world: World) -> None:
    measured = found(world, "hostile_bodies")
    assert measured["sent"] == SHORT["hostile"]
    assert measured["statuses"].keys() <= {"200", "400", "413", "415", "504"}


def test_a_server_on_a_full_disk_answers_and_ends_in_order(artifact: Path, tmp_path: Path) -> None:
    with serving_world(tmp_path, artifact, output=Path("/dev/full")) as world:
        measured = found(world, "disk_full")
        assert min(measured["dropped"].values()) > 0
        assert found(world, "terminated")["half_sent"] == {"200": 8}


@pytest.mark.slow
def test_a_server_outlives_all_of_it(artifact: Path, tmp_path: Path) -> None:
    with serving_world(tmp_path, artifact) as world:
        measured = measure(world, mix, {**SHORT, "duration_s": 20.0})
        assert measured["broken_promises"] == []
        assert measured["rounds"] >= 1


def test_broken_promises_are_found() -> None:
    span = {"outcomes": {"ok": 9}, "ms": {"p95": 10.0}}
    kept = {
        "is_over": False,
        "restarts": 1,
        "restarts_expected": 1,
        "in_flight_at_rest": 0,
        "growth_mb": {"front-1": 1.0},
        **dict.fromkeys(("before", "during", "after"), span),
    }
    allowed = {"allowed_delay_ms": 10.0, "allowed_growth_mb": 16.0}
    assert broken_promises(kept, allowed) == []
    for broken in (
        {"restarts": 2},
        {"in_flight_at_rest": 1},
        {"growth_mb": {"compute": 17.0}},
        {"after": {**span, "outcomes": {"ok": 8, "wrong": 1}}},
        {"during": {**span, "outcomes": {"overloaded": 1}}},
        {"after": {**span, "ms": {"p95": 41.0}}},
        {"violations": ["no document"]},
        {"candidates_asked": 10, "candidates_computed_by_all": 6},
        {"longest_life_s": {"head": 99.0}},
    ):
        assert len(broken_promises({**kept, **broken}, allowed)) == 1


def test_answers_without_a_problem_are_found() -> None:
    problem = b'{"status": 503, "code": "overloaded"}'
    assert violation("/v1/rank", 503, "application/problem+json", problem) is None
    assert violation("/v2/health", 400, "application/json", b'{"error": "why"}') is None
    for path, status, body in (
        ("/v1/rank", 503, b"Service Unavailable"),
        ("/v1/rank", 500, b'{"status": 500, "code": "internal"}'),
        ("/v1/rank", 400, problem),
        ("/v2/models/rankloom/infer", 400, b'{"error": ""}'),
    ):
        assert violation(path, status, "application/json", body) is not None
