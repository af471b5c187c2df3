"""What was refused a moment ago, so that nobody decodes a request to have it refused again."""

from __future__ import annotations

from typing import NamedTuple

SAME_BUDGET = 1.05
"""Budgets are what reading a request has left of its deadline: they differ by chance."""


class Hold(NamedTuple):
    """Requests that need not be tried: of so many candidates or more, with no more time."""

    num_candidates: float
    """At least so many."""
    budget_s: float
    """From the request's arrival to its deadline, at most."""
    until_s: float
    """On the clock of `time.monotonic`."""

    def holds_for(self, num_candidates: float, budget_s: float) -> bool:
        """Whether it speaks of such a request."""
        return num_candidates >= self.num_candidates and budget_s <= self.budget_s * SAME_BUDGET


class RecentRefusals:
    """The holds that are not over.

    A request of few candidates and much time is never covered by what was said of a larger or more
    urgent one. That its user's state must be computed counts as more candidates in what is said,
    and not in what is asked: nobody knows that of a request before it is decoded.

    Example:
        >>> refusals = RecentRefusals()
        >>> refusals.note(Hold(num_candidates=300, budget_s=0.05, until_s=7.0))
        >>> refusals.cover(500, 0.02, now=6.9), refusals.cover(200, 0.02, now=6.9)
        (True, False)
    """

    def __init__(self) -> None:
        self._holds: list[Hold] = []
        self._num_spared = 0

    def note(self, hold: Hold) -> None:
        """Remember a hold; those that it includes are forgotten."""
        self._holds = [
            one
            for one in self._holds
            if one.until_s > hold.until_s or not hold.holds_for(one.num_candidates, one.budget_s)
        ]
        self._holds.append(hold)

    def cover(self, num_candidates: int, budget_s: float, now: float) -> bool:
        """Whether a request need not be tried."""
        self._holds = [one for one in self._holds if one.until_s > now]
        is_covered = any(one.holds_for(num_candidates, budget_s) for one in self._holds)
        if is_covered:
            self._num_spared += num_candidates
        return is_covered

    def take_spared(self) -> int:
        """Give the candidates of all requests that were covered since the last call."""
        spared, self._num_spared = self._num_spared, 0
        return spared

    def clear(self) -> None:
        """Forget all: another process computes, or another artifact is served."""
        self._holds.clear()
