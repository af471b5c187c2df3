"""Which asks are refused: those that would be late, crowd out others, or take too much ahead."""

from __future__ import annotations

from rankloom.serving.scheduling.booking import Booking
from rankloom.serving.scheduling.config import SchedulerConfig
from rankloom.serving.scheduling.margin import Margin
from rankloom.serving.scheduling.plan import Entry, Pace, plan
from rankloom.serving.scheduling.work import Refusal


class Admission:
    """Decides whether an ask may wait, and learns from what becomes of them."""

    def __init__(self, config: SchedulerConfig) -> None:
        self.margin = Margin(config)
        self.booking = Booking()
        self._has_booking = config.booking

    def objection(
        self, waiting: list[Entry], place: int, *, raised: Pace, expected: Pace, now: float
    ) -> Refusal | None:
        """Say why the entry at a place cannot stay, or none if it can.

        Args:
            waiting: All entries in their order, the one in question among them.
            place: Where it stands.
            raised: The pace that counts, the margin included.
            expected: The pace without it.
            now: The time.
        """
        done_s = plan(waiting, raised, check_from=place).done_s
        last = len(done_s) - 1
        if done_s[last] <= waiting[last].deadline_s:
            return self._too_far_ahead(waiting, place, done_s, raised, now)
        crowded = [] if last == place else _crowded_by(waiting, place, raised, expected)
        if last > place and not crowded:
            return None
        if not self.margin.is_busy:
            expected_s = plan(waiting, expected, check_from=place).done_s
            if expected_s[-1] <= waiting[len(expected_s) - 1].deadline_s:
                self.margin.refused()
        finish_s = plan(waiting[: place + 1], expected).done_s[place]
        if crowded:
            self.booking.crowded(done_s[last] - now)
            retry_s = plan(waiting[: crowded[-1] + 1], expected).done_s[-1] - now
            return Refusal("crowding", finish_s, max(retry_s, 0.0))
        entry = waiting[place]
        can_ever = now + _raised_own_s(entry, raised) <= entry.deadline_s
        return Refusal("late", finish_s, done_s[place] - entry.deadline_s if can_ever else None)

    def _too_far_ahead(
        self, waiting: list[Entry], place: int, done_s: list[float], raised: Pace, now: float
    ) -> Refusal | None:
        # The first in order keeps nobody waiting who is here.
        if place == 0 or not self._has_booking:
            return None
        own_s = _raised_own_s(waiting[place], raised)
        excess_s = self.booking.excess_s(done_s[place] - own_s - now, own_s)
        if excess_s <= 0.0:
            return None
        self.booking.refused()
        return Refusal("full", done_s[place], excess_s)


def _crowded_by(waiting: list[Entry], place: int, raised: Pace, expected: Pace) -> list[int]:
    """Give the places of those that would be late because of the entry at `place`.

    What is late anyway, such as after a hiccup, is no reason to refuse anybody.
    """
    with_s = plan(waiting, raised).done_s
    without_s = plan(waiting[:place] + waiting[place + 1 :], expected).done_s
    return [
        at
        for at in range(place + 1, len(waiting))
        if with_s[at] > waiting[at].deadline_s >= without_s[at - 1]
    ]


def _raised_own_s(entry: Entry, raised: Pace) -> float:
    return entry.left_s(raised.overhead_s) * max(raised.batch_factor, raised.user_factor)
