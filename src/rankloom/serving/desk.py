"""Where requests wait for the compute thread: the scheduler at work, with real clocks and threads.

    desk = Desk(SchedulerConfig(), cache_bytes=1 << 30)
    engine = Engine.load(folder)
    desk.add(engine)
    desk.serve(engine.digest)
    threading.Thread(target=desk.run).start()
    desk.submit(question, answer)

Whatever happens to a question, `answer` is called once: with scores, or with an error.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rankloom.errors import DeadlineError, OverloadedError, ServingError
from rankloom.serving.engine import Engine, Prepared, Slice, Tensors, UserState
from rankloom.serving.parts import Parts
from rankloom.serving.refusals import Hold
from rankloom.serving.scheduling.config import SchedulerConfig
from rankloom.serving.scheduling.scheduler import Scheduler
from rankloom.serving.scheduling.work import Ask, Refusal, UserWork, Work
from rankloom.serving.telemetry.metrics import Metrics
from rankloom.serving.user_states import UserStates

logger = logging.getLogger("rankloom.serving")


class RetiredError(ServingError):
    """A question is about an artifact that is not served any more; it must be decoded anew."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A decoded request."""

    digest: str
    """Of the artifact that it was decoded for."""
    parts: Parts
    """Its columns."""
    user_key: bytes
    """Of the user's values."""
    arrived_s: float
    """When it came in, on the clock of `time.monotonic`."""
    deadline_s: float
    """When its answer must be with the client."""
    keep_state: bool = True
    """Whether its user's state may take a place in the cache."""
    num_spared: int = 0
    """Candidates of requests since the one before it that a `Hold` kept from being tried."""


@dataclass(frozen=True)
class Scores:
    """An answer."""

    scores: Mapping[str, npt.NDArray[np.float64]]
    """Task -> (N,)."""
    timing_ms: Mapping[str, float]
    """`queue`: until its first work began; `user` and `candidates`: the work itself."""
    is_hit: bool
    """Whether the user's state was kept from before."""


@dataclass(frozen=True)
class Refused:
    """A refusal, and what it says of other requests."""

    error: ServingError
    hold: Hold
    """Requests that need not be tried."""


Outcome = Scores | Refused | ServingError


@dataclass
class _Generation:
    """An artifact, and what is kept of its users."""

    engine: Engine
    states: UserStates[UserState]
    num_pending: int = 0


@dataclass(eq=False)
class _Pending:
    """A question that waits."""

    key: int
    question: Question
    generation: _Generation
    answer: Callable[[Outcome], None]
    state: UserState | None
    is_hit: bool
    prepared: Prepared | None = None
    logits: list[Tensors] = field(default_factory=list)
    began_s: float | None = None
    user_s: float = 0.0
    candidates_s: float = 0.0

    @property
    def user_key(self) -> Hashable:
        """Of the artifact's own users."""
        return self.question.digest, self.question.user_key


class Desk:
    """Questions in, answers out; computed by the one thread that calls `run`.

    Args:
        config: Of the scheduler.
        cache_bytes: For users' states.
        metrics: Where to count.
    """

    def __init__(
        self, config: SchedulerConfig, *, cache_bytes: int, metrics: Metrics | None = None
    ) -> None:
        self._scheduler = Scheduler(config)
        self._cache_bytes = cache_bytes
        self._metrics = metrics or Metrics()
        self._changed = threading.Condition()
        self._generations: dict[str, _Generation] = {}
        self._served: str | None = None
        self._offered: str | None = None
        self._pending: dict[int, _Pending] = {}
        self._waiting_for_user: dict[Hashable, list[_Pending]] = {}
        self._keys = itertools.count(1)
        self._is_stopping = False
        self._began_s: float | None = None

    def add(self, engine: Engine) -> None:
        """Answer questions about an artifact too, before or after it is the one that is served."""
        with self._changed:
            if not self._generations:
                self._scheduler.costs.begin_with(engine.timings)
            states: UserStates[UserState] = UserStates(self._cache_bytes)
            self._generations.setdefault(engine.digest, _Generation(engine, states))
            self._offered = engine.digest

    def serve(self, digest: str) -> None:
        """Let an artifact that was added be the one that stays; others go once nobody needs them.

        Also takes back an artifact that was added and is not to be served: name the one that is.
        """
        with self._changed:
            self._served, self._offered = digest, None
            self._retire()

    def submit(self, question: Question, answer: Callable[[Outcome], None]) -> int:
        """Take a question, or answer at once why not.

        Args:
            question: Decoded.
            answer: Is called once, by this thread or by the compute thread.

        Returns:
            Its key, for `cancel`.
        """
        with self._changed:
            key = next(self._keys)
            refused = self._admit(key, question, answer)
            if refused is None:
                self._changed.notify()
        if refused is not None:
            answer(refused)
        return key

    def cancel(self, key: int) -> None:
        """Forget a question that nobody waits for any more; its `answer` is not called."""
        with self._changed:
            if self._scheduler.cancel(key):
                self._forget(key)

    def stop(self) -> None:
        """Let `run` return when everything that waits is answered."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()

    def busy_s(self) -> float:
        """Give the seconds since the present work began, or 0 while there is none."""
        began_s = self._began_s
        return 0.0 if began_s is None else time.monotonic() - began_s

    def run(self) -> None:
        """Compute until `stop` is called and nothing waits."""
        while True:
            work, mine = self._next()
            if work is None:
                return
            began_s = self._began_s = time.monotonic()
            try:
                found = self._compute(work, mine)
            except Exception:
                logger.exception("computing %d requests failed", len(mine))
                self._fail(work)
            else:
                self._finish(work, mine, found, time.monotonic() - began_s)
            self._began_s = None

    def _admit(
        self, key: int, question: Question, answer: Callable[[Outcome], None]
    ) -> Refused | ServingError | None:
        """Let the scheduler decide about a question; gives why it is refused."""
        generation = self._generations.get(question.digest)
        if generation is None:
            return RetiredError(f"artifact {question.digest[:12]}: is not served any more.")
        if self._is_stopping:
            return OverloadedError("server: is ending. Ask again.")
        state = generation.states.get(question.user_key)
        pending = _Pending(key, question, generation, answer, state, is_hit=state is not None)
        engine, parts = generation.engine, question.parts
        group = engine.group_of(parts) if engine.is_batchable else key
        ask = Ask(
            key=key,
            arrived_s=question.arrived_s,
            deadline_s=question.deadline_s,
            num_candidates=parts.num_rows,
            num_events=parts.num_events,
            user_key=pending.user_key,
            group=(question.digest, group),
            is_divisible=engine.is_divisible,
        )
        now = time.monotonic()
        self._scheduler.was_spared(question.num_spared, now)
        refusal = self._scheduler.submit(ask, now, has_state=state is not None)
        if refusal is not None:
            self._metrics.reject(refusal.reason)
            budget_s = question.deadline_s - question.arrived_s
            hold = Hold(refusal.as_candidates, budget_s, now + refusal.holds_s)
            return Refused(_error_of(refusal, now), hold)
        self._pending[key] = pending
        generation.num_pending += 1
        if state is None:
            waiting = self._waiting_for_user.setdefault(pending.user_key, [])
            self._metrics.look_up_user("wait" if waiting else "miss")
            waiting.append(pending)
        else:
            self._metrics.look_up_user("hit")
        return None

    def _next(self) -> tuple[Work | None, list[_Pending]]:
        """Wait for work; gives the questions that it is for."""
        with self._changed:
            while True:
                work, dropped = self._scheduler.next(time.monotonic())
                self._drop(dropped)
                if work is not None:
                    break
                if self._is_stopping:
                    return None, []
                self._metrics.set_queue(len(self._pending))
                self._changed.wait()
            if isinstance(work, UserWork):
                keys = work.keys[:1]
            else:
                keys = tuple(one.key for one in work.slices)
            mine = [self._pending[key] for key in keys]
            now = time.monotonic()
            for one in mine:
                one.began_s = one.began_s or now
            self._metrics.set_queue(len(self._pending))
            return work, mine

    def _compute(self, work: Work, mine: list[_Pending]) -> UserState | list[Tensors]:
        engine = mine[0].generation.engine
        if isinstance(work, UserWork):
            return engine.user_state(mine[0].question.parts)
        slices = []
        for one, (_, start, stop) in zip(mine, work.slices, strict=True):
            if one.prepared is None:
                assert one.state is not None
                one.prepared = engine.prepare(one.question.parts, one.state)
            slices.append(Slice(one.prepared, start, stop))
        return [dict(each) for each in engine.logits(slices)]

    def _finish(
        self, work: Work, mine: list[_Pending], found: UserState | list[Tensors], seconds: float
    ) -> None:
        """Give each question its part of what was computed, and answer those that have all."""
        with self._changed:
            if isinstance(found, UserState):
                self._keep(mine[0], found, seconds)
            else:
                num_rows = sum(len(next(iter(one.values()))) for one in found)
                self._metrics.run_batch(candidates=num_rows, requests=len(mine))
                for one, logits in zip(mine, found, strict=True):
                    one.logits.append(logits)
                    one.candidates_s += seconds
            now = time.monotonic()
            complete = [self._forget(key) for key in self._scheduler.finished(work, now, seconds)]
        for one in complete:
            one.answer(self._scores(one, now))

    def _keep(self, one: _Pending, state: UserState, seconds: float) -> None:
        """Keep a user's state if anyone wants that, and give it to all that wait for it."""
        states = one.generation.states
        evictions = states.counts.evictions
        together = self._waiting_for_user.pop(one.user_key, [])
        if any(each.question.keep_state for each in (one, *together)):
            states.put(one.question.user_key, state)
        self._metrics.set_user_cache(
            entries=len(states),
            num_bytes=states.num_bytes,
            evictions=states.counts.evictions - evictions,
        )
        for waiting in together:
            waiting.state, waiting.user_s = state, seconds
            waiting.began_s = waiting.began_s or time.monotonic()

    def _scores(self, one: _Pending, now: float) -> Scores:
        began_s = one.question.arrived_s if one.began_s is None else one.began_s
        if now > one.question.deadline_s:
            self._metrics.miss_deadline()
        return Scores(
            one.generation.engine.scores(one.logits),
            {
                "queue": 1e3 * (began_s - one.question.arrived_s),
                "user": 1e3 * one.user_s,
                "candidates": 1e3 * one.candidates_s,
            },
            one.is_hit,
        )

    def _fail(self, work: Work) -> None:
        with self._changed:
            failed = [self._forget(key) for key in self._scheduler.failed(work)]
        for one in failed:
            one.answer(ServingError("server: computing failed; its log says more."))

    def _drop(self, keys: tuple[int, ...]) -> None:
        for key in keys:
            self._metrics.miss_deadline()
            self._forget(key).answer(
                DeadlineError("server: the request waited until it was too late. Ask again.")
            )

    def _forget(self, key: int) -> _Pending:
        one = self._pending.pop(key)
        waiting = self._waiting_for_user.get(one.user_key)
        if waiting is not None and one in waiting:
            waiting.remove(one)
            if not waiting:
                del self._waiting_for_user[one.user_key]
        one.generation.num_pending -= 1
        self._retire()
        return one

    def _retire(self) -> None:
        """Let artifacts go that are not served and that nothing waits for."""
        for digest, one in list(self._generations.items()):
            if digest not in {self._served, self._offered} and not one.num_pending:
                del self._generations[digest]


def _error_of(refusal: Refusal, now: float) -> ServingError:
    """Say why the scheduler did not admit a request."""
    after = refusal.retry_after_s
    again = "Ask for fewer candidates, or give more time." if after is None else "Ask again later."
    if refusal.reason == "full":
        return OverloadedError(f"server: has no room for a request more. {again}")
    finish_ms = 1e3 * (refusal.predicted_finish_s - now)
    return DeadlineError(
        f"server: cannot answer in time. Got {finish_ms:.0f} ms until it would be done. {again}"
    )
