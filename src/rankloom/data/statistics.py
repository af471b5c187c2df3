"""What the training log says of a dense feature; its encoding in the embedder needs it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Moments:
    """Of a dense feature that is standardized."""

    mean: float
    """Of the values the model sees: missing ones count as the default."""
    deviation: float
    """Population deviation; 1 where all values are equal, so that dividing by it is safe."""


@dataclass(frozen=True)
class Quantiles:
    """Of a dense feature with quantile buckets."""

    boundaries: tuple[float, ...]
    """(num_buckets - 1,) non-decreasing, exact in float32. Equal ones leave a bucket empty."""


Statistics = Moments | Quantiles
