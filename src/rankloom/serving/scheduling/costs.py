"""What user work and batches of candidates cost, as far as seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rankloom.serving.scheduling.config import SchedulerConfig
from rankloom.serving.scheduling.latency_model import LatencyModel, Prediction
from rankloom.serving.scheduling.work import Timing

SLACK_MEMORY = 50
"""Requests after which an urgent one is nearly forgotten."""


class Costs:
    """The two latency models, and the rates that planning reads off them.

    User work: events, their square, a constant. A batch of candidates: candidates, the events they
    read, requests beside the first, a constant.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        self.user = LatencyModel(
            [config.guess_event_us / 1e3, 0.0, config.guess_user_ms / 1e3],
            forgetting=config.forgetting,
        )
        self._max_batch_s = (config.max_micro_batch_ms or math.inf) / 1e3
        self._max_cutting_cost = config.max_cutting_cost
        self._max_slack_share = config.max_slack_share
        self._slack_s: float | None = None
        self.batch = LatencyModel(
            [config.guess_candidate_us / 1e3, 0.0, 0.0, config.guess_batch_ms / 1e3],
            forgetting=config.forgetting,
        )

    @property
    def overhead_s(self) -> float:
        """Give what a batch costs whatever is in it."""
        return self.batch.coefficients[3]

    @property
    def request_s(self) -> float:
        """Give what a request costs in another one's batch, beside its candidates."""
        return self.batch.coefficients[2]

    @property
    def room_s(self) -> float:
        """Give the longest candidate part of a batch, so long that cutting costs little."""
        overhead_s = self.overhead_s
        longest_s = max(self._max_batch_s, self._max_slack_share * (self._slack_s or 0.0))
        return max(longest_s - overhead_s, overhead_s / self._max_cutting_cost)

    def note_slack(self, slack_s: float) -> None:
        """Note how long a new request could wait; of one that cannot be in time it says nothing."""
        if slack_s <= 0.0:
            return
        least_s = self._slack_s
        if least_s is None or slack_s < least_s:
            self._slack_s = slack_s
        else:
            self._slack_s = least_s + (slack_s - least_s) / SLACK_MEMORY

    def begin_with(self, timings: Sequence[Timing]) -> None:
        """Learn from work that was done before the first ask came.

        Of several sizes: else requests of one size, cut into pieces of one size, would never tell
        what a batch costs from what its candidates do.
        """
        for one in timings:
            if one.num_candidates:
                reads = one.num_candidates * one.num_events
                self.observe_batch(one.num_candidates, reads, 1, one.seconds)
            else:
                self.observe_user(one.num_events, one.seconds)

    def candidate_s(self, events: int) -> float:
        """Give what one candidate costs that reads a history of so many events."""
        alone, read = self.batch.coefficients[:2]
        return (alone + read * events / 1e3) / 1e3

    def predict_user(self, events: int) -> Prediction:
        """Predict the user work of a history of so many events."""
        return self.user.predict(_user_features(events))

    def predict_batch(self, candidates: int, reads: int, requests: int) -> Prediction:
        """Predict a batch.

        Args:
            candidates: Of all its requests.
            reads: Sum over candidates of the events of their users.
            requests: At least 1.
        """
        return self.batch.predict(_batch_features(candidates, reads, requests))

    def observe_user(self, events: int, seconds: float, *, is_probe: bool = False) -> None:
        """Learn what user work took."""
        _observe(self.user, _user_features(events), seconds, is_probe)

    def observe_batch(
        self, candidates: int, reads: int, requests: int, seconds: float, *, is_probe: bool = False
    ) -> None:
        """Learn what a batch took."""
        _observe(self.batch, _batch_features(candidates, reads, requests), seconds, is_probe)


def _observe(
    model: LatencyModel, features: tuple[float, ...], seconds: float, is_probe: bool
) -> None:
    # A probe is made when costs seem too high for anything to be admitted: few others will come.
    if is_probe and seconds < model.predict(features).mean_s:
        model.rescale(features, seconds)
    model.observe(features, seconds)


def _user_features(events: int) -> tuple[float, ...]:
    thousands = events / 1e3
    return (thousands, thousands * thousands, 1.0)


def _batch_features(candidates: int, reads: int, requests: int) -> tuple[float, ...]:
    return (candidates / 1e3, reads / 1e6, requests - 1.0, 1.0)
