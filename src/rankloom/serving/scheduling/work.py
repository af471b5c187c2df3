"""What the scheduler is asked and what it answers."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal, NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request's work: the user's state, then scores of its candidates.

    Times are seconds of one monotonic clock.
    """

    key: int
    """Its name; unique among those that wait or are computed."""
    arrived_s: float
    """When it came in."""
    deadline_s: float
    """When its answer must be with the client."""
    num_candidates: int
    """At least 1."""
    num_events: int
    """Events of the user's histories."""
    user_key: Hashable
    """Asks of one user key share one user state."""
    group: Hashable
    """Only asks of one group may share a batch: equal shapes of state, one artifact."""
    is_divisible: bool = True
    """False for set-wise models, whose candidates must be scored together."""


class UserWork(NamedTuple):
    """Compute the state of one user."""

    user_key: Hashable
    keys: tuple[int, ...]
    """The asks that wait for it, the most urgent first."""


class Slice(NamedTuple):
    """Candidates `start:stop` of one ask."""

    key: int
    start: int
    stop: int


class CandidateWork(NamedTuple):
    """Score these candidates in one batch; the states of their users are there."""

    slices: tuple[Slice, ...]


Work = UserWork | CandidateWork


class Timing(NamedTuple):
    """What some work took, for one request alone."""

    num_events: int
    """Of the user's histories."""
    num_candidates: int
    """Scored in one batch; 0 for the user's state."""
    seconds: float


class Refusal(NamedTuple):
    """Why an ask was not admitted."""

    reason: Literal["late", "crowding", "full"]
    """It would be late itself; it would make an admitted one late; there is no room to wait."""
    predicted_finish_s: float
    """When it would have been done, on the clock of its deadline."""
    retry_after_s: float | None
    """When the same ask may be admitted, from now; none when it takes more than its time even if
    nothing else is to be done."""
    as_candidates: float = 0.0
    """Its work, in candidates of an ask whose user's state is there."""
    holds_s: float = 0.0
    """For so long from now, an ask of no less work in no more time need not be tried."""


class Decision(NamedTuple):
    """What to do now."""

    work: Work | None
    """Compute this, then call `finished` or `failed`. None: nothing waits."""
    dropped: tuple[int, ...]
    """Asks that were given up, as they are or would be late. They are forgotten."""


class Load(NamedTuple):
    """How the scheduler stands, for metrics."""

    waiting: int
    """Asks that wait for anything."""
    waiting_candidates: int
    """Their candidates that are not computed yet."""
    ahead_s: float
    """Predicted time until all of it is done."""
    busy_share: float
    """Of the last second or so, in which the thread computed."""
    margin: float
    """Deviations that predictions are raised by for admission."""
