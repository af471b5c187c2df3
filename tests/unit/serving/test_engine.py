"""The engine: pieces of requests are scored as whole ones are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from rankloom.artifact.golden import GoldenRequest, read_golden
from rankloom.serving.engine import MEASURED_SIZES, Engine, Prepared, Slice
from rankloom.serving.parts import Parts, take_apart, user_key

NAMES = ("din", "separated")


class Artifact:
    """An engine and golden requests of its artifact."""

    def __init__(self, folder: Path) -> None:
        self.engine = Engine.load(folder)
        self.requests = [request for request, _ in read_golden(folder)]

    def parts(self, request: GoldenRequest) -> Parts:
        decoder = self.engine.ranker.decoder
        block = decoder.decode_block(request.user, request.candidates, request.context)
        return take_apart(block, self.engine.schema)

    def prepared(self, request: GoldenRequest) -> Prepared:
        parts = self.parts(request)
        return self.engine.prepare(parts, self.engine.user_state(parts))

    def offline(self, request: GoldenRequest) -> Mapping[str, np.ndarray]:
        return self.engine.ranker.score(request.user, request.candidates, request.context)


@pytest.fixture(params=NAMES)
def artifact(artifacts: dict[str, Path], request: pytest.FixtureRequest) -> Artifact:
    return Artifact(artifacts[request.param])


def test_a_whole_request_is_scored_as_offline_to_the_bit(artifact: Artifact) -> None:
    for request in artifact.requests:
        prepared = artifact.prepared(request)
        logits = artifact.engine.logits([Slice(prepared, 0, prepared.num_rows)])
        found = artifact.engine.scores(logits)
        for task, expected in artifact.offline(request).items():
            assert np.array_equal(found[task], expected)


def test_slices_of_several_requests_in_one_run_are_scored_alike(artifact: Artifact) -> None:
    engine = artifact.engine
    assert engine.is_batchable
    together = [
        (request, artifact.prepared(request))
        for request in artifact.requests
        if engine.group_of(artifact.parts(request))
        == engine.group_of(artifact.parts(artifact.requests[0]))
    ]
    assert len(together) > 1
    rests = engine.logits([Slice(one, 1, one.num_rows) for _, one in together if one.num_rows > 1])
    left = iter(rests)
    firsts = engine.logits([Slice(one, 0, 1) for _, one in together])
    for (request, one), first in zip(together, firsts, strict=True):
        found = engine.scores([first, *([next(left)] if one.num_rows > 1 else [])])
        for task, expected in artifact.offline(request).items():
            np.testing.assert_allclose(found[task], expected, atol=1e-6)


def test_a_kept_state_gives_the_bits_of_a_new_one(artifact: Artifact) -> None:
    for request in artifact.requests:
        parts = artifact.parts(request)
        first, second = (artifact.engine.user_state(parts) for _ in range(2))
        assert first.num_bytes > 0
        # What is counted is what is held: no tensor is a part of a larger one.
        held = sum(one.untyped_storage().nbytes() for one in first.values.values())
        assert first.num_bytes == held
        for name, value in first.values.items():
            assert torch.equal(value, second.values[name])


def test_the_state_of_another_user_gives_other_scores(artifact: Artifact) -> None:
    one, other = artifact.requests[:2]
    parts = artifact.parts(one)
    wrong = artifact.engine.prepare(parts, artifact.engine.user_state(artifact.parts(other)))
    (logits,) = artifact.engine.logits([Slice(wrong, 0, wrong.num_rows)])
    found = artifact.engine.scores([logits])["like"]
    assert np.abs(found - artifact.offline(one)["like"]).max() > 1e-6


def test_the_key_is_of_the_users_values_only(artifact: Artifact) -> None:
    request = artifact.requests[0]
    key = user_key(artifact.parts(request))
    later = {**request.context, "hour": 3, "timestamp": request.context["timestamp"] + 60}
    fewer = {name: values[:1] for name, values in request.candidates.items()}
    elsewhere = GoldenRequest(request.user, fewer, later, {})
    assert user_key(artifact.parts(elsewhere)) == key
    for column, value in {"age": 99, "user_id": "nobody"}.items():
        changed = GoldenRequest({**request.user, column: value}, fewer, later, {})
        assert user_key(artifact.parts(changed)) != key


def test_the_key_sees_every_event(artifacts: dict[str, Path]) -> None:
    artifact = Artifact(artifacts["din"])
    request = max(artifact.requests, key=lambda one: len(set(one.user["history_item_id"][-8:])))
    events = list(request.user["history_item_id"])
    # Only the newest 8 are kept.
    at = next(n for n in range(-7, 0) if events[n] != events[n - 1])
    keys = {user_key(artifact.parts(request))}
    events[at], events[at - 1] = events[at - 1], events[at]
    swapped = {**request.user, "history_item_id": events}
    keys.add(
        user_key(artifact.parts(GoldenRequest(swapped, request.candidates, request.context, {})))
    )
    assert len(keys) == 2


def test_work_of_several_sizes_is_timed_when_an_artifact_is_loaded(artifacts) -> None:
    timings = Engine.load(artifacts["din"]).timings
    assert {one.num_candidates for one in timings} == {0, *MEASURED_SIZES}
    assert all(0 < one.seconds < 10 for one in timings)
    seconds = {
        size: min(one.seconds for one in timings if one.num_candidates == size)
        for size in MEASURED_SIZES
    }
    assert seconds[512] > seconds[8]
