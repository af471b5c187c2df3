"""A thread that serves a drawn stream of requests in virtual time, for `serving_simulation`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rankloom.serving.refusals import Hold, RecentRefusals
from rankloom.serving.scheduling.config import SchedulerConfig
from rankloom.serving.scheduling.plan import Entry
from rankloom.serving.scheduling.scheduler import Scheduler
from rankloom.serving.scheduling.work import Ask, CandidateWork, UserWork, Work

CLASSES_MS = {20: 0.3, 50: 0.4, 200: 0.3}
"""Deadline -> share of the requests."""
HIT_RATE = 0.6
NOISE = 0.1
"""Deviation of the logarithm of what work takes."""
HICCUP_RATE, HICCUP_FACTOR = 0.001, 10.0


@dataclass(frozen=True)
class Machine:
    """What work takes, in seconds; the scheduler is not told."""

    user: tuple[float, float, float]
    """A state, a thousand events, their square."""
    batch: tuple[float, float, float, float]
    """A batch, a thousand candidates, a million events read, a request beside the first."""

    def user_s(self, events: int) -> float:
        """Give what a state takes without noise."""
        fixed, event, square = self.user
        return fixed + event * events / 1e3 + square * (events / 1e3) ** 2

    def batch_s(self, candidates: int, reads: int, requests: int) -> float:
        """Give what a batch takes without noise."""
        fixed, candidate, read, request = self.batch
        return fixed + candidate * candidates / 1e3 + read * reads / 1e6 + request * (requests - 1)


MACHINES = {
    "cpu": Machine((0.3e-3, 3e-3, 1.5e-3), (0.5e-3, 4e-3, 1.5e-3, 0.1e-3)),
    "device": Machine((1e-3, 1e-3, 0.5e-3), (2e-3, 0.4e-3, 0.2e-3, 0.1e-3)),
}


@dataclass(frozen=True)
class Arrival:
    """A request, before anything is decided about it."""

    ask: Ask
    has_state: bool
    class_ms: int


@dataclass
class Fate:
    """What became of a request."""

    end: str = ""
    """`in time`, `late`, `dropped` or `refused`."""
    latency_s: float = 0.0
    kept: float = 1.0
    """Share of its candidates that was scored."""
    was_held: bool = False
    """Refused untried, because of what was refused before."""


def draw_arrivals(machine: Machine, *, load: float, count: int, seed: int) -> list[Arrival]:
    """Draw a Poisson stream at `load` times what the machine does one request after the other."""
    rng = np.random.default_rng([seed, 0])
    drawn = []
    for key in range(count):
        candidates = round(math.exp(rng.uniform(math.log(30), math.log(3000))))
        events = int(rng.choice([0, 50, 200, 1000]))
        class_ms = int(rng.choice(list(CLASSES_MS), p=list(CLASSES_MS.values())))
        drawn.append((key, candidates, events, class_ms, bool(rng.random() < HIT_RATE)))
    mean_s = sum(
        machine.batch_s(candidates, candidates * events, 1)
        + (0.0 if has_state else machine.user_s(events))
        for _, candidates, events, _, has_state in drawn
    ) / count  # fmt: skip
    rate = load / (mean_s * (1.0 + HICCUP_RATE * HICCUP_FACTOR))
    now, arrivals = 0.0, []
    for key, candidates, events, class_ms, has_state in drawn:
        now += rng.exponential(1.0 / rate)
        ask = Ask(
            key=key,
            arrived_s=now,
            deadline_s=now + class_ms / 1e3,
            num_candidates=candidates,
            num_events=events,
            user_key=(int(rng.integers(1000)), events),
            group=events,
        )
        arrivals.append(Arrival(ask, has_state, class_ms))
    return arrivals


def simulate(
    scheduler: Scheduler,
    arrivals: Sequence[Arrival],
    machine: Machine,
    *,
    rungs: Sequence[float] = (1.0,),
    noise: float = NOISE,
    seed: int = 0,
) -> tuple[list[Fate], dict[str, float]]:
    """Let a scheduler serve a stream until all of it has ended.

    Args:
        scheduler: A fresh one.
        arrivals: By time; keys are places in it.
        machine: What work takes.
        rungs: Shares of its candidates with which a request is tried, one after the other.
        noise: Deviation of the logarithm of what work takes.
        seed: Of the noise.

    Returns:
        fates: Of the arrivals, in their order.
        work: What the thread did.
    """
    rng = np.random.default_rng([seed, 1])
    fates = [Fate() for _ in arrivals]
    events_of = {one.ask.user_key: one.ask.num_events for one in arrivals}
    refusals = RecentRefusals()
    busy_s, batches, requests, now = 0.0, 0, 0, 0.0
    work: Work | None = None
    seconds, ends_s, place = 0.0, math.inf, 0
    while place < len(arrivals) or work is not None:
        if place < len(arrivals) and arrivals[place].ask.arrived_s < ends_s:
            arrival = arrivals[place]
            now, place = arrival.ask.arrived_s, place + 1
            _submit(scheduler, arrival, fates[arrival.ask.key], rungs, refusals)
        else:
            assert work is not None
            now, ends_s = ends_s, math.inf
            for key in scheduler.finished(work, now, seconds):
                ask = arrivals[key].ask
                is_late = now > ask.deadline_s
                fates[key].end = "late" if is_late else "in time"
                fates[key].latency_s = now - ask.arrived_s
            work = None
        if work is None:
            work, dropped = scheduler.next(now)
            for key in dropped:
                fates[key].end = "dropped"
            if work is not None:
                seconds = _true_seconds(work, machine, arrivals, events_of)
                seconds *= HICCUP_FACTOR if rng.random() < HICCUP_RATE else 1.0
                seconds *= math.exp(rng.normal(0.0, noise))
                ends_s = now + seconds
                busy_s += seconds
                if isinstance(work, CandidateWork):
                    batches += 1
                    requests += len(work.slices)
    return fates, {"busy_share": busy_s / now, "requests_per_batch": requests / max(batches, 1)}


def _submit(
    scheduler: Scheduler,
    arrival: Arrival,
    fate: Fate,
    rungs: Sequence[float],
    refusals: RecentRefusals,
) -> None:
    ask = arrival.ask
    now, budget_s = ask.arrived_s, arrival.class_ms / 1e3
    fate.end = "refused"
    fate.was_held = refusals.cover(ask.num_candidates, budget_s, now)
    if fate.was_held:
        return
    scheduler.was_spared(refusals.take_spared(), now)
    for share in rungs:
        smaller = replace(ask, num_candidates=max(round(share * ask.num_candidates), 1))
        refusal = scheduler.submit(smaller, now, has_state=arrival.has_state)
        if refusal is None:
            fate.end, fate.kept = "", share
            return
        if refusal.holds_s:
            refusals.note(Hold(refusal.as_candidates, budget_s, now + refusal.holds_s))


def _true_seconds(
    work: Work, machine: Machine, arrivals: Sequence[Arrival], events_of: Mapping[Any, int]
) -> float:
    if isinstance(work, UserWork):
        return machine.user_s(events_of[work.user_key])
    counts = [one.stop - one.start for one in work.slices]
    events = [arrivals[one.key].ask.num_events for one in work.slices]
    reads = sum(count * length for count, length in zip(counts, events, strict=True))
    return machine.batch_s(sum(counts), reads, len(counts))


class CreditScheduler(Scheduler):
    """SCORPIO's credit batching, on slack rates.

    In each tick an ask earns min over asks of slack rate / its own slack rate, where the slack rate
    is time to the deadline per time of work left. Asks with a credit of 1 share the batch, the most
    urgent first, as long as it ends within the tightest deadline in it.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        super().__init__(config)
        self.credits: dict[int, float] = {}

    def choose(self, now: float) -> list[Entry]:
        """Choose by credit."""
        overhead_s = self.costs.overhead_s
        rates = {
            entry.ask.key: max(entry.deadline_s - now, 1e-4) / max(entry.left_s(overhead_s), 1e-6)
            for entry in self.waiting
        }
        tightest = min(rates.values())
        self.credits = {
            key: self.credits.get(key, 0.0) + tightest / rate for key, rate in rates.items()
        }
        chosen: list[Entry] = []
        end_s, limit_s = now + overhead_s, math.inf
        for entry in self.waiting:
            if self.credits[entry.ask.key] < 1.0 - 1e-9:
                continue
            if entry.user is not None and not chosen:
                return [entry]
            piece_s = entry.size * self.costs.candidate_s(entry.ask.num_events)
            is_alike = not chosen or entry.ask.group == chosen[0].ask.group
            is_in_time = end_s + piece_s <= min(limit_s, entry.deadline_s)
            if entry.user is None and (not chosen or (is_alike and is_in_time)):
                chosen.append(entry)
                end_s += piece_s
                limit_s = min(limit_s, entry.deadline_s)
        for entry in chosen:
            self.credits[entry.ask.key] -= 1.0
        return chosen
