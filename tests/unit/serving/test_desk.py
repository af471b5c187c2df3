"""The desk: every question is answered once, as offline scoring would."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankloom.artifact.golden import GoldenRequest, read_golden
from rankloom.errors import DeadlineError, OverloadedError, ServingError
from rankloom.serving.desk import Desk, Outcome, Question, Refused, RetiredError, Scores
from rankloom.serving.engine import Engine, UserState
from rankloom.serving.parts import Parts, take_apart, user_key
from rankloom.serving.scheduling.config import SchedulerConfig
from rankloom.serving.scheduling.work import Ask, Refusal
from rankloom.serving.telemetry.metrics import Metrics


class Office:
    """A desk that is open, with the golden requests of its artifact."""

    def __init__(
        self,
        folder: Path,
        *,
        cache_bytes: int = 1 << 24,
        metrics: Metrics | None = None,
        **options: Any,
    ) -> None:
        self.engine = Engine.load(folder)
        self.requests = [one for one, _ in read_golden(folder)]
        self.desk = Desk(SchedulerConfig(**options), cache_bytes=cache_bytes, metrics=metrics)
        self.desk.add(self.engine)
        self.desk.serve(self.engine.digest)
        self.thread = threading.Thread(target=self.desk.run)

    def question(self, request: GoldenRequest, *, budget_s: float = 30.0) -> Question:
        decoder = self.engine.ranker.decoder
        block = decoder.decode_block(request.user, request.candidates, request.context)
        parts = take_apart(block, self.engine.schema)
        now = time.monotonic()
        return Question(
            digest=self.engine.digest,
            parts=parts,
            user_key=user_key(parts),
            arrived_s=now,
            deadline_s=now + budget_s,
        )

    def ask(self, question: Question) -> queue.SimpleQueue[Outcome]:
        found: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self.desk.submit(question, found.put)
        return found

    def offline(self, request: GoldenRequest) -> dict[str, np.ndarray]:
        return self.engine.ranker.score(request.user, request.candidates, request.context)

    def close(self) -> None:
        self.desk.stop()
        if self.thread.ident:
            self.thread.join(30)
            assert not self.thread.is_alive()


@pytest.fixture
def office(artifacts: dict[str, Path]) -> Iterator[Office]:
    # No batching and no cutting: scores are to the bit those of offline scoring.
    made = Office(artifacts["separated"], batching=False, max_micro_batch_ms=None)
    yield made
    made.close()


def scores(found: queue.SimpleQueue[Outcome]) -> Scores:
    outcome = found.get(timeout=30)
    assert isinstance(outcome, Scores), outcome
    return outcome


def test_questions_are_answered_to_the_bit_and_users_are_kept(office: Office) -> None:
    office.thread.start()
    seen: set[bytes] = set()
    for request in office.requests * 2:
        question = office.question(request)
        # Several golden requests may be of one user.
        is_hit = question.user_key in seen
        seen.add(question.user_key)
        found = scores(office.ask(question))
        assert found.is_hit == is_hit
        assert (found.timing_ms["user"] > 0) != is_hit
        assert found.timing_ms["candidates"] > 0
        for task, expected in office.offline(request).items():
            assert np.array_equal(found.scores[task], expected)


def test_concurrent_misses_of_one_user_are_computed_once(office: Office) -> None:
    calls: list[int] = []
    compute = office.engine.user_state

    def counted(parts: Parts) -> UserState:
        calls.append(1)
        return compute(parts)

    office.engine.user_state = counted  # type: ignore[method-assign]
    found = [office.ask(office.question(office.requests[0])) for _ in range(5)]
    office.thread.start()
    for one in found:
        assert not scores(one).is_hit
    assert len(calls) == 1


def test_a_state_that_nobody_wants_kept_takes_no_room(office: Office) -> None:
    question = office.question(office.requests[0])
    passing = replace(question, keep_state=False)
    office.thread.start()
    for one, is_hit in ((passing, False), (question, False), (passing, True)):
        assert scores(office.ask(one)).is_hit == is_hit


def test_a_state_is_kept_if_one_of_those_that_share_it_wants_that(office: Office) -> None:
    question = office.question(office.requests[0])
    asked = [office.ask(one) for one in (replace(question, keep_state=False), question)]
    office.thread.start()
    assert not any(scores(one).is_hit for one in asked)
    assert scores(office.ask(question)).is_hit


def test_it_is_known_how_long_a_computation_takes(office: Office) -> None:
    is_released = threading.Event()
    compute = office.engine.user_state

    def hanging(parts: Parts) -> UserState:
        is_released.wait(30)
        return compute(parts)

    office.engine.user_state = hanging  # type: ignore[method-assign]
    office.thread.start()
    assert office.desk.busy_s() == 0.0
    found = office.ask(office.question(office.requests[0]))
    until_s = time.monotonic() + 30
    while office.desk.busy_s() < 0.05:
        assert time.monotonic() < until_s
        time.sleep(0.005)
    is_released.set()
    scores(found)
    while office.desk.busy_s():
        assert time.monotonic() < until_s
        time.sleep(0.005)


def test_without_a_cache_users_are_computed_each_time(artifacts: dict[str, Path]) -> None:
    office = Office(artifacts["din"], cache_bytes=0)
    office.thread.start()
    for _ in range(2):
        assert not scores(office.ask(office.question(office.requests[0]))).is_hit
    office.close()


def test_batches_and_pieces_give_the_same_scores(artifacts: dict[str, Path]) -> None:
    office = Office(artifacts["din"], max_micro_batch_ms=0.01, min_batching_gain=0.0)
    asked = [(one, office.ask(office.question(one))) for one in office.requests * 3]
    office.thread.start()
    for request, found in asked:
        answered = scores(found).scores
        for task, expected in office.offline(request).items():
            np.testing.assert_allclose(answered[task], expected, atol=1e-6)
    office.close()


@pytest.mark.parametrize("is_divisible", [True, False])
def test_the_scheduler_is_told_which_candidates_must_be_scored_together(
    office: Office, is_divisible: bool
) -> None:
    scheduler = office.desk._scheduler
    submit, asks = scheduler.submit, []

    def noted(ask: Ask, now: float, *, has_state: bool) -> Refusal | None:
        asks.append(ask)
        return submit(ask, now, has_state=has_state)

    scheduler.submit = noted  # type: ignore[method-assign]
    office.engine.is_divisible = is_divisible
    office.ask(office.question(office.requests[0]))
    assert [one.is_divisible for one in asks] == [is_divisible]


def test_what_cannot_be_in_time_is_refused_at_once(office: Office) -> None:
    question = office.question(office.requests[0], budget_s=1e-6)
    refused = office.ask(question).get(timeout=0)
    assert isinstance(refused, Refused)
    assert isinstance(refused.error, DeadlineError)
    # It is never to be in time: that says nothing of when there will be room.
    assert refused.hold.until_s <= time.monotonic()


def test_a_refusal_says_which_requests_need_not_be_tried(artifacts: dict[str, Path]) -> None:
    office = Office(artifacts["separated"], max_waiting=1)
    office.ask(office.question(office.requests[0]))
    question = office.question(office.requests[0], budget_s=0.05)
    before = time.monotonic()
    refused = office.ask(question).get(timeout=0)
    assert isinstance(refused, Refused)
    # Its user's state is to be computed, too.
    assert refused.hold.num_candidates > question.parts.num_rows
    assert refused.hold.budget_s == pytest.approx(0.05)
    assert before < refused.hold.until_s < before + 0.15
    office.close()


def test_what_waited_too_long_is_given_up(artifacts: dict[str, Path]) -> None:
    office = Office(artifacts["separated"], admission="none", drop="expired")
    found = office.ask(office.question(office.requests[0], budget_s=0.01))
    time.sleep(0.02)
    office.thread.start()
    assert isinstance(found.get(timeout=30), DeadlineError)
    office.close()


def test_a_cancelled_question_is_not_answered(office: Office) -> None:
    found: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    key = office.desk.submit(office.question(office.requests[0]), found.put)
    office.desk.cancel(key)
    office.desk.cancel(key)
    other = office.ask(office.question(office.requests[0]))
    office.thread.start()
    scores(other)
    assert found.empty()


def test_a_failing_run_fails_its_questions_and_no_others(office: Office) -> None:
    compute = office.engine.logits
    bad = office.question(office.requests[0])

    def fails_for_one(slices: Any) -> Any:
        if slices[0].request.num_rows == bad.parts.num_rows:
            raise RuntimeError("broken")
        return compute(slices)

    office.engine.logits = fails_for_one  # type: ignore[method-assign]
    others = [
        one for one in office.requests if len(next(iter(one.scores.values()))) != bad.parts.num_rows
    ]
    assert others
    found, fine = office.ask(bad), office.ask(office.question(others[0]))
    office.thread.start()
    assert isinstance(found.get(timeout=30), ServingError)
    scores(fine)


def test_the_queue_is_empty_once_all_is_answered(artifacts: dict[str, Path]) -> None:
    metrics = Metrics()
    office = Office(artifacts["separated"], metrics=metrics)
    office.thread.start()
    scores(office.ask(office.question(office.requests[0])))
    until_s = time.monotonic() + 10
    while b"rankloom_queue_length 0.0" not in metrics.render():
        assert time.monotonic() < until_s
        time.sleep(0.01)
    office.close()


def test_an_unknown_artifact_and_an_ending_server_are_told(office: Office) -> None:
    question = office.question(office.requests[0])
    retired = replace(question, digest="another")
    assert isinstance(office.ask(retired).get(timeout=0), RetiredError)
    office.desk.stop()
    assert isinstance(office.ask(question).get(timeout=0), OverloadedError)


def test_stop_answers_what_waits(office: Office) -> None:
    found = [office.ask(office.question(one)) for one in office.requests]
    office.desk.stop()
    office.thread.start()
    for one in found:
        scores(one)


def test_an_artifact_stays_until_its_questions_are_answered(
    artifacts: dict[str, Path], office: Office
) -> None:
    waiting = office.ask(office.question(office.requests[0]))
    new = Engine.load(artifacts["din"])
    office.desk.add(new)
    office.desk.serve(new.digest)
    assert not isinstance(office.ask(office.question(office.requests[0])), RetiredError)
    office.thread.start()
    scores(waiting)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        outcome = office.ask(office.question(office.requests[0])).get(timeout=30)
        if isinstance(outcome, RetiredError):
            return
    pytest.fail("the old artifact is still there")
