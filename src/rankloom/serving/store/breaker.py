"""A circuit breaker: whether to ask something at all that did not answer before."""

from __future__ import annotations


class Breaker:
    """Counts failures in a row, and says how long to wait before a probe.

    Args:
        failures: So many in a row open it.
        every_s: Wait before the first probe; each further one waits twice as long.
        at_most_s: Longest wait.
    """

    def __init__(self, failures: int, *, every_s: float, at_most_s: float) -> None:
        self._failures, self._every_s = failures, every_s
        self._at_most_s = max(every_s, at_most_s)
        self._num_failures = 0
        self.is_open = False
        """Whether only a probe may ask."""
        self.wait_s = every_s
        """Until the next probe."""

    def failed(self) -> bool:
        """Count a failure; say whether it opened."""
        self._num_failures += 1
        if self.is_open or self._num_failures < self._failures:
            return False
        self.is_open = True
        return True

    def probe_failed(self) -> None:
        """Wait longer for the next probe."""
        self.wait_s = min(2 * self.wait_s, self._at_most_s)

    def answered(self) -> None:
        """Close it."""
        self.is_open = False
        self._num_failures = 0
        self.wait_s = self._every_s
