"""What a piece of work will take, learned while serving."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul
from typing import NamedTuple

CLIP = 4.0
"""What takes longer than predicted counts at most so many deviations: a page fault must not move
the coefficients."""
DEVIATION_MEMORY = 50
"""Observations over which the deviation is averaged."""
SMALLEST_DEVIATION = 0.01
"""Of the prediction. At zero, clipping would forbid to learn ever again."""
BIAS_MEMORY = 10
"""Observations over which the mean residual is taken; as long as it is large, the past is forgotten
faster."""
FASTER = 0.3
"""Share of the past that is forgotten at once while every residual is at its clip, on one side."""


class Prediction(NamedTuple):
    """Seconds of a piece of work."""

    mean_s: float
    deviation_s: float


class LatencyModel:
    """Least squares with forgetting: seconds = coefficients . features, coefficients >= 0.

    Solved recursively, in information form: each observation is added to the decayed sums of the
    normal equations, and the coefficients take coordinate steps from where they are. So they never
    become negative (more work never costs less), stay where they were in directions that are not
    observed any more (nothing winds up or falls back), and hold for any number of updates.

    Errors are counted relative to the prediction, as noise grows with the work. A residual is
    clipped from above, at `CLIP` deviations, so a single hiccup hardly counts; nothing is ever much
    faster than it can be. Residuals that keep one sign let the past be forgotten faster, so a
    lasting change is followed within some ten observations.

    Example:
        >>> model = LatencyModel([1e-3, 1e-3], forgetting=0.99)
        >>> for count in (1.0, 2.0, 3.0, 4.0) * 50:
        ...     model.observe((count, 1.0), 0.002 * count + 0.004)
        >>> round(model.predict((10.0, 1.0)).mean_s, 4)
        0.024
    """

    def __init__(
        self,
        coefficients: Sequence[float],
        *,
        forgetting: float,
        floor_s: float = 1e-4,
        deviation: float = 0.5,
    ) -> None:
        """Begin with a guess.

        Args:
            coefficients: Seconds for each feature, before anything is observed. Features should be
                of order one. Where observations cannot tell features apart, the earlier ones
                explain what is seen: a constant stands last.
            forgetting: Weight of an observation relative to the next one, below 1.
            floor_s: Errors are relative to the prediction plus this.
            deviation: Relative, before anything is observed.
        """
        size = len(coefficients)
        self.coefficients = list(coefficients)
        self.floor_s = floor_s
        self.num_observations = 0
        self._forgetting = forgetting
        self._variance = deviation**2
        self._bias = 0.0
        self._products = [[0.0] * size for _ in range(size)]
        self._targets = [0.0] * size

    @property
    def deviation(self) -> float:
        """Give the deviation of an observation, relative to prediction plus floor."""
        return max(math.sqrt(self._variance), SMALLEST_DEVIATION)

    def predict(self, features: Sequence[float]) -> Prediction:
        """Predict from features that are not negative; nor is what is predicted."""
        mean_s = sum(map(mul, self.coefficients, features))
        return Prediction(mean_s, self.deviation * (mean_s + self.floor_s))

    def observe(self, features: Sequence[float], seconds: float) -> None:
        """Learn what work of these features took."""
        mean_s = sum(map(mul, self.coefficients, features))
        if self.num_observations == 0 and mean_s < seconds:
            # As errors are relative to the prediction, the first ones after a guess that is far too
            # low would outweigh all others for long.
            mean_s = self.rescale(features, seconds)
        scale = mean_s + self.floor_s
        limit = CLIP * self.deviation
        residual = min((seconds - mean_s) / scale, limit)
        self.num_observations += 1
        # The guess before the first observation counts as two of them.
        rate = 1.0 / min(self.num_observations + 2, DEVIATION_MEMORY)
        self._variance += rate * (residual * residual - self._variance)
        self._bias += (max(residual / limit, -1.0) - self._bias) / BIAS_MEMORY
        keep = self._forgetting * (1.0 - FASTER * self._bias * self._bias)
        self._add([one / scale for one in features], mean_s / scale + residual, keep)
        self._step()

    def rescale(self, features: Sequence[float], seconds: float) -> float:
        """Take all costs for so much higher or lower that work of these features takes so long.

        Returns:
            What such work takes now, by prediction.
        """
        mean_s: float = sum(map(mul, self.coefficients, features))
        if mean_s <= 0.0:
            return mean_s
        factor = seconds / mean_s
        self.coefficients = [one * factor for one in self.coefficients]
        self._targets = [one * factor for one in self._targets]
        return seconds

    def _add(self, features: list[float], target: float, keep: float) -> None:
        for place, feature in enumerate(features):
            row = self._products[place]
            for column, other in enumerate(features):
                row[column] = keep * row[column] + feature * other
            self._targets[place] = keep * self._targets[place] + feature * target

    def _step(self) -> None:
        """Set each coefficient in turn to the best value not below 0, the others held."""
        coefficients = self.coefficients
        for place, row in enumerate(self._products):
            own = row[place]
            if own > 1e-12:  # else never observed, or so long ago that nothing is left of it
                error = self._targets[place] - sum(map(mul, row, coefficients))
                coefficients[place] = max(coefficients[place] + error / own, 0.0)
