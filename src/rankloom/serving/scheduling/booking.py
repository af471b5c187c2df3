"""How much of the thread's time may be promised ahead, by feedback."""

from __future__ import annotations

import math

STEP = 0.05
"""By which share one refusal moves the limit."""
IDLE_STEP = 0.3
OWN_WEIGHT = 6.0
"""What a second of an ask's own work counts beside a second of waiting: others must wait for it."""
SHORTEST_S = 1e-3


class Booking:
    """The longest wait with which an ask is admitted, however far its deadline is.

    Under overload, asks with far deadlines would fill all the time up to them; one with a near
    deadline would then find no place, for it may not make admitted ones late. So each ask that is
    refused for crowding shortens the wait, and each that is refused for its wait lengthens it: both
    kinds are refused about as often. Without crowding there is no limit. A long ask takes the place
    of several short ones: the more work it is, the less it may wait.
    """

    def __init__(self) -> None:
        self.limit_s = math.inf

    def excess_s(self, wait_s: float, own_s: float) -> float:
        """Give by how much an ask would wait too long; not positive if it may be admitted."""
        return wait_s + OWN_WEIGHT * own_s - self.limit_s

    def crowded(self, booked_s: float) -> None:
        """Note that an ask found no place among others that book the thread for so long."""
        self.limit_s = max(min(self.limit_s, booked_s) * (1.0 - STEP), SHORTEST_S)

    def refused(self) -> None:
        """Note that an ask was refused for its wait."""
        self.limit_s *= 1.0 + STEP

    def idle(self) -> None:
        """Note that nothing waits."""
        self.limit_s *= 1.0 + IDLE_STEP
