"""How far predictions are raised before an ask is admitted, by feedback."""

from __future__ import annotations

import math

from rankloom.serving.scheduling.config import SchedulerConfig

STEP = 0.25
"""Of the margin, when an admitted ask is late and there is no time to spare."""
IDLE_STEP = 0.02
"""Of the margin, when the thread idles and an ask is refused that would probably be in time."""
BUSY_MEMORY_S = 1.0
BUSY_FROM = 0.8
"""Share of time computing, from which the thread counts as busy."""
SPARE_UP_TO, SCARCE_FROM = 0.6, 0.9
"""Share of time that all asks want, those that are refused among them: up to the first there is
time to spare, from the second on there is none."""


class Margin:
    """Deviations by which predictions are raised.

    While the thread is busy, an ask that is late raises it and one that is in time lowers it, so
    that `late_share` of them are late. While it idles, an ask that is refused for the margin alone
    lowers it. As long as there is time to spare not all of it counts: what is late takes nobody's
    time then, and what is refused might have been in time.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        self.value = config.margin
        self.busy_share = 0.0
        self._range = config.min_margin, config.max_margin
        self._late_share = config.late_share
        self._seen_until: float | None = None
        self._wanted_s = 0.0
        self._asked_until = 0.0

    @property
    def is_busy(self) -> bool:
        """Say whether the thread has hardly time to spare."""
        return self.busy_share >= BUSY_FROM

    @property
    def in_use(self) -> float:
        """Give what counts at the moment: from the least, with time to spare, to all of it."""
        low, _ = self._range
        scarcity = (self._wanted_share - SPARE_UP_TO) / (SCARCE_FROM - SPARE_UP_TO)
        return low + min(max(scarcity, 0.0), 1.0) * (self.value - low)

    @property
    def _wanted_share(self) -> float:
        return self._wanted_s / BUSY_MEMORY_S

    def asked(self, now: float, seconds: float) -> None:
        """Note that an ask came whose work will take so long, whether it is admitted or not."""
        keep = math.exp(-max(now - self._asked_until, 0.0) / BUSY_MEMORY_S)
        self._wanted_s = keep * self._wanted_s + seconds
        self._asked_until = now

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
            if self._wanted_share > SPARE_UP_TO:
                self._move(STEP)
        elif self.is_busy:
            self._move(-STEP * self._late_share / (1.0 - self._late_share))

    def refused(self) -> None:
        """Note that the idle thread refused an ask that the mean prediction would have admitted."""
        self._move(-IDLE_STEP)

    def _move(self, step: float) -> None:
        low, high = self._range
        self.value = min(max(self.value + step, low), high)
