"""Biases of attention scores: learned numbers looked up by distance and by time between events.

No bias of all pairs is ever made: a tile of rows and events looks up its own.

Paper: rab of HSTU (arXiv:2402.17152): a learned number for the difference of positions
plus one for the bucketed difference of times.
Differs from its open code: a bucket is a doubling of 1 + seconds rather than a factor of e^0.301;
tables may be per head; the time between two events is that between themselves, where the code takes
the row's from the event after it.

Shapes: B histories, L events, H heads (or 1: shared), P positions, C time buckets.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_EXPONENT_BITS = 23
_EXPONENT_OF_ONE = 127


class Bias(NamedTuple):
    """What is added to the scores; either table, or both.

    Example:
        >>> Bias(positions=torch.zeros(4, 512)).times is None
        True
    """

    positions: Tensor | None = None
    """(H or 1, P). Entry p - j for an event p that looks at event j; the last one for all further
    ones."""
    times: Tensor | None = None
    """(H or 1, C). Entry `time_buckets` of the seconds between them; the last one for all more."""
    seconds: Tensor | None = None
    """(B, L). Time of each event in seconds, from any moment that is one for a history; to `read`:
    seconds from each event to the moment of reading. Needed with `times`."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is added."""
        return self.positions is None and self.times is None


def time_buckets(seconds: Tensor, num_buckets: int) -> Tensor:
    """Give floor(log2(1 + seconds)), at most num_buckets - 1: bucket c begins at 2^c - 1 seconds.

    Args:
        seconds: (...). Negative ones count as 0.
        num_buckets: C.

    Returns:
        (...) int32.
    """
    # The exponent of a float32, which is exact and costs no logarithm.
    bits = (seconds.clamp(min=0) + 1).to(torch.float32).view(torch.int32)
    return ((bits >> _EXPONENT_BITS) - _EXPONENT_OF_ONE).clamp_(max=num_buckets - 1)


def distance_buckets(distances: Tensor, num_positions: int) -> Tensor:
    """Bring distances p - j into [0, P).

    Args:
        distances: (...) int64.
        num_positions: P.
    """
    return distances.clamp(0, num_positions - 1)


def add_looked_up(scores: Tensor, table: Tensor, index: Tensor) -> None:
    """Add entries of a table to scores.

    Args:
        scores: (b, H, g, m, n). Changed.
        table: (H or 1, P).
        index: (b or 1, g or 1, m, n). The entry of each score.
    """
    flat = index.flatten()
    for number, entries in enumerate(table):
        looked_up = entries.index_select(0, flat).view(index.shape)
        if len(table) == 1:
            scores += looked_up[:, None]
        else:
            scores[:, number] += looked_up


def add_gradient(gradient: Tensor, grad_scores: Tensor, index: Tensor) -> None:
    """Add to a table's gradient what a tile of scores gives.

    Args:
        gradient: (H or 1, P). Changed.
        grad_scores: (b, H, g, m, n).
        index: (b or 1, g or 1, m, n).
    """
    if len(gradient) == 1:
        grad_scores = grad_scores.sum(dim=1, keepdim=True)
    flat = index.flatten()
    for number, entries in enumerate(gradient):
        given = grad_scores[:, number].sum_to_size(index.shape).flatten()
        # Into zeros first: many small terms would be lost in a large sum.
        entries += torch.zeros_like(entries).index_add_(0, flat, given)
