"""The scheduler of one compute thread."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from operator import attrgetter

from rankloom.serving.scheduling.admission import Admission
from rankloom.serving.scheduling.config import SchedulerConfig
from rankloom.serving.scheduling.costs import Costs
from rankloom.serving.scheduling.latency_model import Prediction
from rankloom.serving.scheduling.plan import Entry, Pace, User, first_batch, plan
from rankloom.serving.scheduling.work import (
    Ask,
    CandidateWork,
    Decision,
    Load,
    Refusal,
    Slice,
    UserWork,
    Work,
)

_rank = attrgetter("rank")
PROBE_AFTER_S = 1.0
"""When only such asks came for so long as cannot be in time by prediction, one is tried."""
LONGEST_HOLD_S = 0.1
"""What a refusal says of later asks is true no longer: those that wait may be withdrawn."""
ROUNDING_S = 1e-6
"""Nobody is given up for so little: sums of times that are equal differ in their last digits."""


@dataclass(slots=True)
class _InFlight:
    """What the thread computes now."""

    work: Work
    began_s: float
    predicted: Prediction
    candidates: int = 0
    reads: int = 0
    num_events: int = 0
    is_probe: bool = False
    finishing: dict[int, Entry] = field(default_factory=dict)
    """Asks that are complete with it and wait for nothing else."""


class Scheduler:
    """Decides what one compute thread does next, and refuses what cannot be in time.

    Least deadline first. An ask is admitted if, by the plan of all that waits, neither it nor an
    admitted one would be late; predictions are learned from what work took and raised by a margin
    that follows from how many were late. The thread never idles while anything waits: what might
    come is not known, and when it comes soon enough to share a batch, others wait already.

    Not safe for several threads. Every call takes the time, in seconds of one monotonic clock. Work
    is computed one at a time:

        refusal = scheduler.submit(ask, now, has_state=False)
        work, dropped = scheduler.next(now)
        ...  # compute
        complete = scheduler.finished(work, now, seconds)

    Example:
        >>> scheduler = Scheduler(SchedulerConfig())
        >>> ask = Ask(key=1, arrived_s=0.0, deadline_s=0.05, num_candidates=300, num_events=0,
        ...           user_key="ann", group="g")
        >>> scheduler.submit(ask, 0.0, has_state=True)
        >>> scheduler.next(0.0).work
        CandidateWork(slices=(Slice(key=1, start=0, stop=300),))
    """

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self.costs = Costs(config)
        self._admission = Admission(config)
        self.waiting: list[Entry] = []
        self._entries: dict[int, Entry] = {}
        self._users: dict[object, User] = {}
        self._waiting_candidates = 0
        self._num_ranked = 0
        self._in_flight: _InFlight | None = None
        self._idle_refusals_since: float | None = None

    def submit(self, ask: Ask, now: float, *, has_state: bool) -> Refusal | None:
        """Admit an ask, or say why not.

        Args:
            ask: With a key that no other has that waits or is computed.
            now: The time.
            has_state: Whether its user's state is there already.

        Raises:
            ValueError: The key is in use, or there are no candidates.
        """
        if ask.key in self._entries or ask.num_candidates < 1:
            raise ValueError(f"ask {ask.key}: its key is in use, or it has no candidates.")
        user = None
        if not has_state and (user := self._users.get(ask.user_key)) is None:
            mean_s = self.costs.predict_user(ask.num_events).mean_s
            user = self._users[ask.user_key] = User(ask.num_events, mean_s)
        entry = Entry(ask, deadline_s=ask.deadline_s - self.config.answer_ms / 1e3, user=user)
        self._cut(entry)
        entry.rank = self._rank_of(entry)
        insort(self.waiting, entry, key=_rank)
        self._entries[ask.key] = entry
        self._waiting_candidates += ask.num_candidates
        if user is not None:
            user.waiting[ask.key] = entry
            user.charge(self.costs, self.config)
        own_s = entry.left_s(self.costs.overhead_s)
        self.costs.note_slack(entry.deadline_s - now - own_s)
        self._admission.margin.asked(now, own_s)
        refusal = self._objection(entry, now)
        if refusal is None or self._is_probe(entry, refusal, now):
            return None
        self._forget(entry, None)
        hold_s = self.config.refusal_hold * (refusal.retry_after_s or 0.0)
        return refusal._replace(
            as_candidates=entry.as_candidates(self.costs), holds_s=min(hold_s, LONGEST_HOLD_S)
        )

    def was_spared(self, num_candidates: int, now: float) -> None:
        """Note asks that were not submitted because of refusals that hold; they were wanted, too.

        Args:
            num_candidates: Of all of them.
            now: The time.
        """
        self._admission.margin.asked(now, num_candidates * self.costs.candidate_s(0))

    def next(self, now: float) -> Decision:
        """Choose the next work, and give up what it is too late for.

        Raises:
            RuntimeError: The work before has neither finished nor failed.
        """
        if self._in_flight is not None:
            raise RuntimeError("the work before has neither finished nor failed.")
        dropped = self._drop(now)
        if not self.waiting:
            self._admission.booking.idle()
            return Decision(None, dropped)
        return Decision(self._begin(self.choose(now), now), dropped)

    def finished(self, work: Work, now: float, seconds: float) -> tuple[int, ...]:
        """Learn from work that is done, and give the asks that are complete with it.

        Args:
            work: As `next` gave it.
            now: The time.
            seconds: That it took.
        """
        flight = self._land(work)
        self._admission.margin.worked(now, seconds)
        if isinstance(work, UserWork):
            self.costs.observe_user(flight.num_events, seconds, is_probe=flight.is_probe)
            self._state_is_there(work)
            return ()
        self.costs.observe_batch(
            flight.candidates, flight.reads, len(work.slices), seconds, is_probe=flight.is_probe
        )
        for key, entry in flight.finishing.items():
            del self._entries[key]
            is_late = now > entry.deadline_s and not entry.is_probe
            self._admission.margin.answered(is_late=is_late)
        return tuple(flight.finishing)

    def failed(self, work: Work) -> tuple[int, ...]:
        """Forget all asks that needed work that could not be done, and give them."""
        flight = self._land(work)
        if isinstance(work, UserWork):
            keys = tuple(self._users[work.user_key].waiting)
        else:
            keys = tuple(one.key for one in work.slices if one.key in self._entries)
        for key in keys:
            self._forget(self._entries[key], flight)
        if isinstance(work, UserWork):
            del self._users[work.user_key]
        return keys

    def cancel(self, key: int) -> bool:
        """Forget an ask whose client has gone; what is being computed is not interrupted.

        Returns:
            Whether it was known.
        """
        entry = self._entries.get(key)
        if entry is None:
            return False
        self._forget(entry, self._in_flight)
        return True

    def load(self, now: float) -> Load:
        """Say how much waits and how busy the thread is."""
        pace = self._pace(now, margin=0.0)
        done_s = plan(self.waiting, pace).done_s
        return Load(
            waiting=len(self.waiting),
            waiting_candidates=self._waiting_candidates,
            ahead_s=max(done_s[-1] if done_s else pace.start_s, now) - now,
            busy_share=self._admission.margin.busy_share,
            margin=self._admission.margin.value,
        )

    def _objection(self, entry: Entry, now: float) -> Refusal | None:
        """Say why an entry that was put among the waiting ones cannot stay."""
        config, waiting = self.config, self.waiting
        is_full = (
            len(waiting) > config.max_waiting
            or self._waiting_candidates > config.max_waiting_candidates
        )
        if config.admission == "none" and not is_full:
            return None
        place = bisect_left(waiting, entry.rank, key=_rank)
        expected = self._pace(now, margin=0.0)
        if is_full:
            done_s = plan(waiting, expected).done_s
            return Refusal("full", done_s[place], max(done_s[-1] - now, 0.0))
        return self._admission.objection(
            waiting, place, raised=self._raised_pace(now), expected=expected, now=now
        )

    def _is_probe(self, entry: Entry, refusal: Refusal, now: float) -> bool:
        """Let an ask in that was to be refused, if refusing would go on for ever.

        Costs are learned from work alone: were they once far too high, such as after a slow start,
        everything would be refused and nothing learned.
        """
        if refusal.reason != "late" or self._in_flight is not None or len(self.waiting) > 1:
            return False
        if self._idle_refusals_since is None:
            self._idle_refusals_since = now
        entry.is_probe = now - self._idle_refusals_since >= PROBE_AFTER_S
        return entry.is_probe

    def _raised_pace(self, now: float) -> Pace:
        return self._pace(now, margin=self._admission.margin.in_use)

    def _pace(self, now: float, *, margin: float) -> Pace:
        """Say how fast work is expected to go, raised by so many deviations."""
        start_s, flight, costs = now, self._in_flight, self.costs
        if flight is not None:
            # What is overdue is expected to need as long again as it is overdue.
            start_s += abs(flight.began_s + flight.predicted.mean_s - now)
            start_s += margin * flight.predicted.deviation_s
        batch = margin * costs.batch.deviation
        return Pace(
            start_s=start_s,
            overhead_s=costs.overhead_s * (1.0 + batch) + batch * costs.batch.floor_s,
            request_s=costs.request_s * (1.0 + batch),
            batch_factor=1.0 + batch,
            user_factor=1.0 + margin * costs.user.deviation,
            max_batch_s=costs.room_s,
        )

    def _drop(self, now: float) -> tuple[int, ...]:
        rule, dropped = self.config.drop, []
        while self.waiting and rule != "never":
            entry = self.waiting[0]
            looks_ahead = rule == "hopeless" and not entry.is_probe
            left_s = entry.left_s(self.costs.overhead_s) if looks_ahead else 0.0
            if now + left_s <= entry.deadline_s + ROUNDING_S:
                break
            self._forget(entry, None)
            self._admission.margin.answered(is_late=True)
            dropped.append(entry.ask.key)
        return tuple(dropped)

    def choose(self, now: float) -> list[Entry]:
        """Choose the entries that the next batch is for; there is at least one that waits."""
        front = self.waiting[0]
        if front.user is not None or front.figures.num_pieces > 1:
            return [front]
        return first_batch(self.waiting, self._raised_pace(now))

    def _begin(self, chosen: list[Entry], now: float) -> Work:
        """Start the user work that the chosen entries need first, else their batch."""
        self._idle_refusals_since = None
        for entry in chosen:
            if entry.user is not None:
                user = entry.user
                user.is_running = True
                user.charge(self.costs, self.config)
                keys = tuple(one.ask.key for one in user.entries())
                predicted = self.costs.predict_user(user.num_events)
                user_work = UserWork(entry.ask.user_key, keys)
                self._in_flight = _InFlight(
                    user_work,
                    now,
                    predicted,
                    num_events=user.num_events,
                    is_probe=entry.is_probe,
                )
                return user_work
        finishing: dict[int, Entry] = {}
        slices = []
        candidates = reads = 0
        for entry in chosen:
            ask, start = entry.ask, entry.start
            entry.start += entry.size
            slices.append(Slice(ask.key, start, entry.start))
            candidates += entry.size
            reads += entry.size * ask.num_events
            if entry.start == ask.num_candidates:
                self._stop_waiting(entry)
                finishing[ask.key] = entry
            else:
                self._cut(entry)
        self._waiting_candidates -= candidates
        predicted = self.costs.predict_batch(candidates, reads, len(chosen))
        work = CandidateWork(tuple(slices))
        self._in_flight = _InFlight(
            work,
            now,
            predicted,
            candidates,
            reads,
            is_probe=chosen[0].is_probe,
            finishing=finishing,
        )
        return work

    def _land(self, work: Work) -> _InFlight:
        flight = self._in_flight
        if flight is None or flight.work is not work:
            raise RuntimeError(f"this work is not being computed: {work}")
        self._in_flight = None
        return flight

    def _state_is_there(self, work: UserWork) -> None:
        for entry in self._users.pop(work.user_key).waiting.values():
            entry.user = None
            self._cut(entry)

    def _cut(self, entry: Entry) -> None:
        entry.cut(self.costs, self.config)

    def _forget(self, entry: Entry, flight: _InFlight | None) -> None:
        ask, user = entry.ask, entry.user
        del self._entries[ask.key]
        if flight is None or flight.finishing.pop(ask.key, None) is None:
            self._stop_waiting(entry)
            self._waiting_candidates -= ask.num_candidates - entry.start
        if user is not None:
            del user.waiting[ask.key]
            user.charge(self.costs, self.config)
            if not user.waiting and not user.is_running:
                del self._users[ask.user_key]

    def _stop_waiting(self, entry: Entry) -> None:
        del self.waiting[bisect_left(self.waiting, entry.rank, key=_rank)]

    def _rank_of(self, entry: Entry) -> tuple[float, ...]:
        self._num_ranked += 1
        if self.config.order == "fifo":
            return (self._num_ranked,)
        return (entry.deadline_s, entry.left_s(self.costs.overhead_s), self._num_ranked)
