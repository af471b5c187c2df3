"""What a row of a history sees, and how it weighs that: descriptions, never tensors.

Paper: the semi-local attention of ULTRA-HSTU (arXiv:2602.16986) is `window` K1 and `prefix` K2; its
open code has `full_rows` in place of the prefix. The paper's indices leave open whether its K2
events are the oldest or the newest: here they are the oldest, as in a public port (inferred).

Shapes: L events, n real ones in a row, H heads, d width of a query.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from rankloom.errors import ConfigError, join_problems


@dataclass(frozen=True, kw_only=True)
class Mask:
    """Which events each event of a history sees.

    Event p sees event j if j <= p and (p - j < `window` or j < `prefix` or p is one of the last
    `full_rows` real events). Padding stands behind the events, sees nothing and is not seen.

    Example:
        >>> Mask(window=2, prefix=1).num_pairs(100, 100)
        300

    Raises:
        ConfigError: A number is out of range, or the knobs contradict each other.
    """

    causal: bool = True
    """False: every event sees every real one."""
    window: int | None = None
    """K1: how many events one sees, itself and those before it; None: all before it."""
    prefix: int = 0
    """K2: oldest events that every later one sees, outside its window too."""
    full_rows: int = 0
    """F: newest real events that see all before them."""

    def __post_init__(self) -> None:
        """Check the combination."""
        problems = []
        if self.window is not None and self.window < 1:
            problems.append(
                f"Mask.window: an event sees itself at least. Got {self.window}. Use 1 or more, or "
                "None."
            )
        for name in ("prefix", "full_rows"):
            number = getattr(self, name)
            if number < 0:
                problems.append(f"Mask.{name}: counts events. Got {number}. Use 0 or more.")
            elif number and self.window is None:
                problems.append(
                    f"Mask.{name}: widens a window, and there is none. Got {number}. Give a window."
                )
        if self.window is not None and not self.causal:
            problems.append(
                f"Mask.causal: a window reaches back only. Got window={self.window}. Use "
                "causal=True."
            )
        if problems:
            raise ConfigError(join_problems(problems, where="Mask" if problems[1:] else ""))

    def within(self, num_rows: int, num_events: int) -> Mask:
        """Give the plainest mask that is the same for a history's size.

        Args:
            num_rows: Newest events that look.
            num_events: L.
        """
        if self.window is None:
            return self
        sees_all = self.window + self.prefix >= num_events or self.full_rows >= num_rows
        return Mask() if sees_all else self

    def num_pairs(self, num_rows: int, num_events: int) -> int:
        """Count pairs of a row and an event, with no credit for causality, as torch counts.

        Args:
            num_rows: Newest events that look.
            num_events: L.
        """
        mask = self.within(num_rows, num_events)
        if mask.window is None:
            return num_rows * num_events
        banded = (num_rows - mask.full_rows) * (mask.window + mask.prefix)
        return banded + mask.full_rows * num_events


@dataclass(frozen=True, kw_only=True)
class Weighting:
    """How scores s = scale * q k + bias become weights.

    `softmax`: exp(s) over the sum of the row's exp(s). `silu`: s * sigmoid(s) / divisor, as in HSTU
    (arXiv:2402.17152, eq. 2): each weight is its own, so that twice as many like events weigh
    twice as much. The divisor is a number of the architecture and never a history's own length:
    what was computed for one length would not hold for another.

    Example:
        >>> Weighting(kind="silu", scale=0.25, divisor=2048).divisor
        2048

    Raises:
        ConfigError: A number is no positive one, or softmax is given a divisor.
    """

    kind: Literal["softmax", "silu"]
    """The function."""
    scale: float
    """Of the products of queries and keys; 1 / sqrt(d) in most papers."""
    divisor: float = 1.0
    """Of the weights of `silu`; the longest history, in HSTU."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        problems = []
        if self.kind not in {"softmax", "silu"}:
            problems.append(f"Weighting.kind: is unknown. Got {self.kind!r}. Use softmax or silu.")
        for name in ("scale", "divisor"):
            number = getattr(self, name)
            if not (math.isfinite(number) and number > 0):
                problems.append(f"Weighting.{name}: must be positive. Got {number}.")
        if self.kind == "softmax" and self.divisor != 1:
            problems.append(
                f"Weighting.divisor: softmax weights sum to one. Got {self.divisor}. Leave it out."
            )
        if problems:
            raise ConfigError(join_problems(problems, where="Weighting" if problems[1:] else ""))
