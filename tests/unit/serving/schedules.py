"""Asks and schedulers whose costs are round numbers, and a thread that keeps to them.

User work takes 2 ms, a batch 1 ms and 10 us a candidate; nothing is raised by a margin.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from rankloom.serving.scheduling.config import SchedulerConfig
from rankloom.serving.scheduling.scheduler import Scheduler
from rankloom.serving.scheduling.work import Ask, CandidateWork, Refusal, UserWork, Work

EXACT = SchedulerConfig(
    guess_user_ms=2.0,
    guess_event_us=0.0,
    guess_batch_ms=1.0,
    guess_candidate_us=10.0,
    answer_ms=0.0,
    margin=0.0,
    min_margin=0.0,
    max_micro_batch_ms=None,
    max_cutting_cost=1.0,
    max_slack_share=0.0,
    batching=False,
    booking=False,
)


def scheduler(**changes: Any) -> Scheduler:
    return Scheduler(SchedulerConfig(**{**EXACT.model_dump(), **changes}))


def ask(
    key: int,
    deadline_ms: float,
    num_candidates: int = 100,
    *,
    arrived_ms: float = 0.0,
    user_key: Hashable = None,
    group: Hashable = "g",
    is_divisible: bool = True,
) -> Ask:
    return Ask(
        key=key,
        arrived_s=arrived_ms / 1e3,
        deadline_s=deadline_ms / 1e3,
        num_candidates=num_candidates,
        num_events=0,
        user_key=user_key or key,
        group=group,
        is_divisible=is_divisible,
    )


def milliseconds(work: Work) -> float:
    """Give what work takes."""
    if isinstance(work, UserWork):
        return 2.0
    return 1.0 + 0.01 * sum(one.stop - one.start for one in work.slices)


class Thread:
    """Serves asks with exact costs; `log` has what was done, `done` when asks ended, in ms."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.now_ms = 0.0
        self.log: list[Any] = []
        self.done: dict[int, float] = {}
        self.dropped: list[int] = []
        self.refused: dict[int, Refusal] = {}

    def run(self, asks: Iterable[tuple[Ask, bool]] = ()) -> Thread:
        """Submit asks, each with whether its state is there, as they arrive; end when idle."""
        coming = sorted(asks, key=lambda one: one[0].arrived_s)
        while True:
            self._submit(coming)
            work, dropped = self.scheduler.next(self.now_ms / 1e3)
            self.dropped += dropped
            if work is not None:
                self._compute(work, coming)
            elif coming:
                self.now_ms = 1e3 * coming[0][0].arrived_s
            else:
                return self

    def _submit(self, coming: list[tuple[Ask, bool]]) -> None:
        while coming and 1e3 * coming[0][0].arrived_s <= self.now_ms + 1e-9:
            one, has_state = coming.pop(0)
            refusal = self.scheduler.submit(one, one.arrived_s, has_state=has_state)
            if refusal is not None:
                self.refused[one.key] = refusal

    def _compute(self, work: Work, coming: list[tuple[Ask, bool]]) -> None:
        shown = work.user_key if isinstance(work, UserWork) else [tuple(s) for s in work.slices]
        self.log.append(shown)
        ends_ms = self.now_ms + milliseconds(work)
        while coming and 1e3 * coming[0][0].arrived_s < ends_ms:
            self.now_ms = 1e3 * coming[0][0].arrived_s
            self._submit(coming)
        self.now_ms = ends_ms
        for key in self.scheduler.finished(work, ends_ms / 1e3, milliseconds(work) / 1e3):
            self.done[key] = ends_ms


def keys(work: Work | None) -> list[int]:
    """Name the asks of a batch."""
    assert isinstance(work, CandidateWork)
    return [one.key for one in work.slices]
