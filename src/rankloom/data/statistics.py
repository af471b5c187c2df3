"""What the training log says of a dense feature; its encoding in the embedder needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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


def statistics_to_dict(statistics: Statistics) -> dict[str, Any]:
    """Give the plain values that `statistics_from_dict` reads."""
    if isinstance(statistics, Moments):
        return {"mean": statistics.mean, "deviation": statistics.deviation}
    return {"boundaries": list(statistics.boundaries)}


def statistics_from_dict(values: Mapping[str, Any]) -> Statistics:
    """Read what `statistics_to_dict` gave."""
    if "boundaries" in values:
        return Quantiles(tuple(values["boundaries"]))
    return Moments(values["mean"], values["deviation"])
