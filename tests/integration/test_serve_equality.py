"""All interfaces give offline's scores: to the bit where a request is scored alone."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
from benchmarks.random_requests import ASKERS, Answer, Request
from benchmarks.serving_equality import (
    ALONE,
    TWICE,
    World,
    ask_all,
    caches_of,
    compare,
    make_world,
    swapped_server,
)
from tests.integration.served import server

NUM_REQUESTS = 100


class Asked(NamedTuple):
    """What was asked through each interface."""

    requests: Mapping[str, list[Request]]
    answers: Mapping[str, Mapping[str, Answer]]
    caches: Mapping[str, str]
    num_swaps: int = 0

    def compared(self, interface: str, world: World) -> dict[str, Any]:
        requests, answers = self.requests[interface], self.answers[interface]
        assert len(answers) == len(TWICE) * len(requests)
        return compare(interface, requests, answers, self.caches, world.rankers)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("equality"))


def drawn(world: World, *, count: int = NUM_REQUESTS, seed: int) -> dict[str, list[Request]]:
    """Draw other requests for each interface: one's misses would be the others' hits."""
    found = {}
    for number, interface in enumerate(ASKERS):
        draws = world.requests(seed + number)
        found[interface] = [draws.draw() for _ in range(count)]
    return found


@pytest.fixture(scope="module")
def alone(world: World, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """One request after the other, batching and cutting off."""
    folder = tmp_path_factory.mktemp("alone")
    requests = drawn(world, seed=0)
    options = (*ALONE, f"access_log.path={folder / 'access.jsonl'}")
    with server(world.artifacts[0], folder, *(f"--set={one}" for one in options)) as one:
        answers = {name: ask_all(one, name, mine, num_clients=1) for name, mine in requests.items()}
        assert one.stop() == 0
    return Asked(requests, answers, caches_of(folder / "access.jsonl"))


@pytest.fixture(scope="module")
def together(world: World, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """Several clients at a time, while artifacts are swapped."""
    folder = tmp_path_factory.mktemp("together")
    requests = drawn(world, count=NUM_REQUESTS // 4, seed=100)
    answers = {}
    with swapped_server(world.artifacts, folder, is_alone=False) as (one, swaps):
        for name, mine in requests.items():
            answers[name] = ask_all(one, name, mine, num_clients=4)
            until_s, enough = time.monotonic() + 120, min(swaps.count + 1, 2)
            while swaps.count < enough:
                assert time.monotonic() < until_s, one.log.read_text()
                time.sleep(0.05)
    return Asked(requests, answers, caches_of(folder / "access.jsonl"), swaps.count)


def test_requests_are_of_all_kinds(world: World) -> None:
    requests = [one for mine in drawn(world, seed=0).values() for one in mine]
    candidates = [one["candidates"] for one in requests]
    assert any(not one["user"]["history_item_id"] for one in requests)
    assert any(one["user"]["user_id"].startswith("unknown") for one in requests)
    assert any(None in one["release_year"] for one in candidates)
    assert any([] in one["genres"] for one in candidates)
    assert max(len(one["item_id"]) for one in candidates) > 190
    assert min(len(one["item_id"]) for one in candidates) < 10


@pytest.mark.parametrize("interface", ASKERS)
def test_alone_scores_are_offlines_to_the_bit(world: World, alone: Asked, interface: str) -> None:
    found = alone.compared(interface, world)
    assert found["largest_error"] == 0
    assert found["equal_to_the_bit"] == found["answers"] == 2 * NUM_REQUESTS


@pytest.mark.parametrize("interface", ASKERS)
def test_hits_are_to_the_bit_their_misses(world: World, alone: Asked, interface: str) -> None:
    found = alone.compared(interface, world)
    assert found["hits"] >= NUM_REQUESTS
    assert found["hits_equal_to_the_bit"] == found["hits_after_their_miss"] > NUM_REQUESTS / 4
    assert found["largest_hit_error"] == 0


@pytest.mark.parametrize("interface", ASKERS)
def test_in_shared_batches_scores_are_within_the_tolerance(
    world: World, together: Asked, interface: str
) -> None:
    found = together.compared(interface, world)
    assert found["largest_error"] <= found["tolerance"] == 1e-5
    assert found["hits"] > 0


def test_both_artifacts_answered(world: World, together: Asked) -> None:
    seen = {one.digest for mine in together.answers.values() for one in mine.values()}
    assert seen == set(world.rankers)
    # There and back.
    assert together.num_swaps >= 2


def test_the_other_artifact_scores_otherwise(world: World, alone: Asked) -> None:
    one, other = world.rankers
    swapped = {one: world.rankers[other], other: world.rankers[one]}
    requests, answers = alone.requests["json"], alone.answers["json"]
    found = compare("json", requests, answers, alone.caches, swapped)
    assert found["largest_error"] > 100 * found["tolerance"]
    assert found["equal_to_the_bit"] == 0
