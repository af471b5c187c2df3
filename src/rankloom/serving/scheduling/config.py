"""The `scheduling` section of a server's config."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from pydantic_core import PydanticCustomError

from rankloom.config import Config

Share = Annotated[float, Field(ge=0, lt=1)]


class SchedulerConfig(Config):
    """Which request is computed next, and which is refused."""

    admission: Literal["feasible", "none"] = "feasible"
    """`feasible` refuses a request at once when it would be late, or make an admitted one late."""
    booking: bool = True
    """Under overload, requests with far deadlines would take all the time there is. So the longest
    wait with which a request is admitted is shortened until near deadlines find room too; a long
    request may wait less, for it takes the place of several short ones. With `admission:
    feasible`."""
    order: Literal["edf", "fifo"] = "edf"
    """Earliest deadline first, or first come, first served."""
    drop: Literal["hopeless", "expired", "never"] = "hopeless"
    """Which admitted requests are given up before they are computed: those that cannot be in time
    even if nothing else is done any more, those whose deadline has passed, or none."""
    batching: bool = True
    """Candidates of several requests may share one batch."""
    min_batching_gain: Share = 0.1
    """A request joins a batch only if that saves this share of its own cost: it makes the others
    wait for it. On a CPU few requests are so small, on a GPU most are."""
    max_micro_batch_ms: PositiveFloat | None = 8.0
    """Longest batch of candidates, by prediction: about what an urgent request waits for one that
    has begun. None: requests are not cut. User work and set-wise requests are never cut."""
    max_slack_share: Share = 0.75
    """Batches may be longer than `max_micro_batch_ms` where nobody needs short ones: up to this
    share of the time that the most urgent of recent requests could have waited."""
    max_cutting_cost: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Batches are not cut so small that what a batch costs without candidates exceeds this share of
    its candidates' own cost, however long they are then."""
    answer_ms: NonNegativeFloat = 0.5
    """Kept free before each deadline for the answer's way back."""
    refusal_hold: Share = 0.5
    """A front end that has been refused a request refuses by itself what asks for no less in no
    more time, for this share of the predicted time until there is room, and 100 ms at most. It
    saves decoding what is going to be refused. 0: every request is tried."""
    max_waiting: PositiveInt = 256
    """Requests waiting; more are refused."""
    max_waiting_candidates: PositiveInt = 200_000
    """Candidates of all waiting requests; more are refused."""
    forgetting: Annotated[float, Field(gt=0.5, lt=1)] = 0.995
    """Weight of an observed latency relative to the next one: about 1 / (1 - this) count."""
    guess_user_ms: NonNegativeFloat = 1.0
    """User work without a history, before any is observed."""
    guess_event_us: NonNegativeFloat = 5.0
    """An event's share of user work, before any is observed."""
    guess_batch_ms: NonNegativeFloat = 1.0
    """A batch of no candidates, before any is observed."""
    guess_candidate_us: NonNegativeFloat = 10.0
    """A candidate's share of a batch, before any is observed."""
    margin: NonNegativeFloat = 2.0
    """Deviations that a prediction is raised by for admission when time is scarce, at the start."""
    min_margin: NonNegativeFloat = 0.5
    """The margin falls no further; as long as there is time to spare, this is what counts of it."""
    max_margin: NonNegativeFloat = 6.0
    """The margin rises no further, however many admitted requests are late."""
    late_share: Annotated[float, Field(gt=0, lt=1)] = 0.005
    """Of admitted requests, late or given up, that the margin aims at."""

    @model_validator(mode="after")
    def _margins_are_ordered(self) -> Self:
        if not self.min_margin <= self.margin <= self.max_margin:
            raise PydanticCustomError(
                "problem",
                "{message}",
                {
                    "message": "margin: must lie between min_margin and max_margin. Got "
                    f"{self.margin}, not in [{self.min_margin}, {self.max_margin}]."
                },
            )
        return self
