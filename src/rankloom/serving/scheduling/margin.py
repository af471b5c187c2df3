"""How far predictions are raised before an ask is admitted, by feedback."""

from __future__ import annotations

import math

from rankloom.serving.scheduling.config import SchedulerConfig

STEP = 0.25
"""Of the margin, when an admitted ask is late."""
IDLE_STEP = 0.02
"""Of the margin, when the thread idles and an ask is refused that would probably be in time."""
BUSY_MEMORY_S = 1.0
BUSY_FROM = 0.8
"""Share of time computing, from which the thread counts as busy."""


class Margin:
    """Deviations by which predictions are raised.

    While the thread is busy, an ask that is late raises it and one that is in time lowers it, so
    that `late_share` of them are late. While it idles, an ask that is refused for the margin alone
    lowers it.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        self.value = config.margin
        self.busy_share = 0.0
        self._range = config.min_margin, config.max_margin
        self._late_share = config.late_share
        self._seen_until: float | None = None

    @property
    def is_busy(self) -> bool:
        """Say whether the thread has hardly time to spare."""
        return self.busy_share >= BUSY_FROM

    def worked(self, now: float, seconds: float) -> None:
        """Note that the thread computed for so long until now."""
        began = now - seconds if self._seen_until is None else self._seen_until
        keep = math.exp(-max(now - began, 0.0) / BUSY_MEMORY_S)
        busy = min(seconds / max(now - began, 1e-9), 1.0)
        self.busy_share = keep * self.busy_share + (1.0 - keep) * busy
        self._seen_until = now

    def answered(self, *, is_late: bool) -> None:
        """Note an admitted ask that is done, or given up, which counts as late."""
        if is_late:
            self._move(STEP)
        elif self.is_busy:
            self._move(-STEP * self._late_share / (1.0 - self._late_share))

    def refused(self) -> None:
        """Note that the idle thread refused an ask that the mean prediction would have admitted."""
        self._move(-IDLE_STEP)

    def _move(self, step: float) -> None:
        low, high = self._range
        self.value = min(max(self.value + step, low), high)
