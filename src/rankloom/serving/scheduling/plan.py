"""When waiting asks would be done: the one place that says how they are put into batches."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from operator import attrgetter
from typing import NamedTuple

from rankloom.serving.scheduling.config import SchedulerConfig
from rankloom.serving.scheduling.costs import Costs
from rankloom.serving.scheduling.work import Ask

SHORTEST_S = 1e-9
LOOK_AHEAD = 32
"""Entries behind the first batch among which more are sought for it."""


class Figures(NamedTuple):
    """What planning reads of an entry, for each one on each submit: hence in one tuple."""

    deadline_s: float
    """When its computation must be done."""
    group: Hashable
    """Batches are of one group."""
    user_s: float
    """Predicted time of the user work that must be done for it and for none before it."""
    pieces_s: float
    """Predicted time of all pieces, without the overheads of their batches."""
    tail_s: float
    """The last piece's share of that."""
    num_pieces: int
    """Batches that it takes, if it joins none."""
    can_join: bool
    """Whether it may join a batch: it is one piece, and that saves enough."""


class Entry:
    """An ask that waits, with what is left of it.

    Its candidates from `start` on are cut into pieces of `size`. All but the last, the tail, are
    computed alone.
    """

    __slots__ = ("ask", "deadline_s", "figures", "is_probe", "rank", "size", "start", "user")

    def __init__(self, ask: Ask, *, deadline_s: float, user: User | None) -> None:
        self.ask = ask
        self.deadline_s = deadline_s
        self.user = user
        self.start = 0
        self.rank: tuple[float, ...] = ()
        self.is_probe = False

    def cut(self, costs: Costs, config: SchedulerConfig, *, user_s: float = 0.0) -> None:
        """Cut what is left into pieces, and note what planning needs to know of it."""
        left = self.ask.num_candidates - self.start
        overhead_s, each_s = costs.overhead_s, costs.candidate_s(self.ask.num_events)
        pieces = math.ceil(left * each_s / costs.room_s) if self.ask.is_divisible else 1
        pieces = min(max(pieces, 1), left)
        self.size = math.ceil(left / pieces)
        tail_s = (left - (pieces - 1) * self.size) * each_s
        saved_s = overhead_s - costs.request_s
        is_worth_it = saved_s > config.min_batching_gain * (user_s + overhead_s + tail_s)
        self.figures = Figures(
            deadline_s=self.deadline_s,
            group=self.ask.group,
            user_s=user_s,
            pieces_s=left * each_s,
            tail_s=tail_s,
            num_pieces=pieces,
            can_join=config.batching and pieces == 1 and is_worth_it,
        )

    def as_candidates(self, costs: Costs) -> float:
        """Give its work, in candidates of an ask that waits for no user work."""
        each_s = max(costs.candidate_s(self.ask.num_events), SHORTEST_S)
        return self.ask.num_candidates + self.figures.user_s / each_s

    def left_s(self, overhead_s: float) -> float:
        """Predict all that is left of it, if nothing else is done."""
        user_s = self.user.mean_s if self.user and not self.user.is_running else 0.0
        return user_s + self.figures.pieces_s + self.figures.num_pieces * overhead_s


class User:
    """A user state that asks wait for."""

    __slots__ = ("is_running", "mean_s", "num_events", "waiting")

    def __init__(self, num_events: int, mean_s: float) -> None:
        self.num_events = num_events
        self.mean_s = mean_s
        self.is_running = False
        self.waiting: dict[int, Entry] = {}

    def entries(self) -> list[Entry]:
        """Give the entries that wait for it, in the order of their ranks."""
        return sorted(self.waiting.values(), key=attrgetter("rank"))

    def charge(self, costs: Costs, config: SchedulerConfig) -> None:
        """Let the first entry that waits for it bear its cost, unless it is computed already."""
        user_s = 0.0 if self.is_running else self.mean_s
        for entry in self.entries():
            entry.cut(costs, config, user_s=user_s)
            user_s = 0.0


class Pace(NamedTuple):
    """How fast work is expected to go, from when on."""

    start_s: float
    """When the thread will be free."""
    overhead_s: float
    """Of a batch."""
    request_s: float
    """Of a request beside the first of its batch."""
    batch_factor: float
    """What predicted times of candidates are raised by."""
    user_factor: float
    """What predicted times of user work are raised by."""
    max_batch_s: float
    """Longest candidate part of a batch of several requests, as predicted."""


class Plan(NamedTuple):
    """What would happen if nobody else came."""

    done_s: list[float]
    """When each entry is done. Those of one batch end together, but no later than the tightest
    deadline among them; here they end one after the other."""
    first: int
    """So many entries form the first batch, with the user work that they wait for."""


def plan(
    entries: Sequence[Entry], pace: Pace, *, only_first: bool = False, check_from: int | None = None
) -> Plan:
    """Walk through the entries in order and put neighbours into batches.

    An entry joins the batch of the one before it when it is of the same group and worth it
    (`Entry.can_join`), the batch does not become too long, and it ends, the user work of all its
    entries included, within the tightest deadline in it. So joining never makes anything late, and
    whoever stands behind gains.

    Args:
        entries: In the order in which they are to be done.
        pace: Of the work.
        only_first: Stop when the first batch is known; `done_s` then covers no more than that.
        check_from: Stop after the first entry at this place or behind it that would be late; it is
            the last that `done_s` covers.
    """
    clock, overhead_s, request_s, batch_factor, user_factor, max_batch_s = pace
    checked = len(entries) if check_from is None else check_from
    done_s: list[float] = []
    first = 0
    batch_group: object = None
    batch_s, batch_deadline_s = 0.0, -math.inf
    for entry in entries:
        deadline_s, group, user_s, pieces_s, tail_s, num_pieces, can_join = entry.figures
        clock += user_s * user_factor
        if (
            can_join
            and batch_group == group
            and (joined_s := clock + request_s + tail_s * batch_factor) <= batch_deadline_s
            and joined_s <= deadline_s
            and batch_s + tail_s <= max_batch_s
        ):
            clock = joined_s
            batch_s += tail_s
            if deadline_s < batch_deadline_s:
                batch_deadline_s = deadline_s
        else:
            if not first and done_s:
                first = len(done_s)
                if only_first:
                    break
            clock += pieces_s * batch_factor + num_pieces * overhead_s
            batch_group, batch_s, batch_deadline_s = group, tail_s, deadline_s
        done_s.append(clock)
        if clock > deadline_s and len(done_s) > checked:
            break
    return Plan(done_s, first or len(done_s))


def first_batch(entries: Sequence[Entry], pace: Pace) -> list[Entry]:
    """Give the entries of the first batch.

    To those that `plan` puts there come later ones of the same group whose user state is there,
    as long as nothing that they overtake becomes late.
    """
    done_s, first = plan(entries, pace, only_first=True)
    batch = list(entries[:first])
    group = batch[0].ask.group
    entries = entries[: first + LOOK_AHEAD]
    more = [at for at in range(first, len(entries)) if _may_overtake(entries[at], group)]
    if not more:
        return batch
    done_s = plan(entries, pace).done_s
    end_s, deadline_s = done_s[first - 1], min(entry.deadline_s for entry in batch)
    batch_s = sum(entry.figures.tail_s for entry in batch)
    overtaken, slack_s = first, math.inf
    for at in more:
        entry = entries[at]
        tail_s = entry.figures.tail_s
        more_s = pace.request_s + tail_s * pace.batch_factor
        for place in range(overtaken, at):
            slack_s = min(slack_s, entries[place].deadline_s - done_s[place])
        overtaken = at
        if (
            more_s <= slack_s
            and end_s + more_s <= min(deadline_s, entry.deadline_s)
            and batch_s + tail_s <= pace.max_batch_s
        ):
            batch.append(entry)
            end_s += more_s
            batch_s += tail_s
            slack_s -= more_s
            overtaken = at + 1
    return batch


def _may_overtake(entry: Entry, group: Hashable) -> bool:
    figures = entry.figures
    return figures.can_join and entry.user is None and figures.group == group
