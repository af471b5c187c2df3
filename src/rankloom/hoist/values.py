"""What stands for a tensor of the plain graph while it is rewritten.

The plain graph computes everything at B rows. A rewritten value is computed at its own rate: a
user's at R rows, a constant without rows. It may also be left in pieces, so that what the pieces
have of lower rates is not lost:

- `Whole`: one node of the new graph;
- `Parts`: a concatenation that was not carried out;
- `Sum`: a sum that was not carried out.

`shape` is always that of the plain graph. A `Whole` may be narrow: of size 1 where its shape says
more, because what is equal along a dimension is held once and broadcast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

from torch import fx

from rankloom.schema import Rate

Size = Any
"""int, or torch.SymInt."""
Shape = tuple[Size, ...]


@dataclass(frozen=True)
class Rows:
    """Where a tensor has its rows."""

    dim: int
    """The dimension that counts them."""
    block: int = 1
    """Entries of that dimension for each row, side by side."""


@dataclass(frozen=True)
class Whole:
    """One node of the new graph."""

    node: fx.Node
    rate: Rate
    rows: Rows | None
    """None where the plain tensor has no rows either."""
    shape: Shape

    def is_narrow(self, dim: int) -> bool:
        """Tell whether it is held once along a dimension where the plain tensor has more."""
        return is_one(self.sizes[dim]) and not is_one(self.shape[dim])

    @property
    def sizes(self) -> Shape:
        """The sizes of the node itself."""
        return tuple(self.node.meta["val"].shape)

    @property
    def narrow_dims(self) -> tuple[int, ...]:
        """Dimensions in which it is narrow."""
        return tuple(dim for dim in range(len(self.shape)) if self.is_narrow(dim))


@dataclass(frozen=True)
class Sum:
    """A sum that was not carried out, because its terms differ in rate or are narrow."""

    terms: tuple[Whole, ...]
    rows: Rows | None
    shape: Shape

    @property
    def rate(self) -> Rate:
        """The highest of its terms."""
        return max(term.rate for term in self.terms)


@dataclass(frozen=True)
class Parts:
    """A concatenation that was not carried out, because its parts differ in rate."""

    dim: int
    parts: tuple[Whole | Sum, ...]
    rows: Rows | None
    shape: Shape

    @property
    def rate(self) -> Rate:
        """The highest of its parts."""
        return max(part.rate for part in self.parts)

    @property
    def bounds(self) -> tuple[int, ...]:
        """Where parts begin and end along `dim`: 0, ..., size."""
        return bounds_of(self.parts, self.dim)

    def pieces(self) -> list[tuple[Whole | Sum, int, int]]:
        """Give each part with where it begins and ends."""
        return [(p, a, b) for p, (a, b) in zip(self.parts, pairwise(self.bounds), strict=True)]


@dataclass(frozen=True)
class Merged:
    """A reshape that was not carried out, because it merges rows with a dimension before them.

    In (L, B, D) seen as (L B, D), a request's rows do not lie side by side. What only looks at the
    last dimension is computed on the former, until the merged dimension is divided again.
    """

    value: Whole | Sum | Parts
    """Before the reshape."""
    shape: Shape
    """After it; the last dimension is the same."""


Value = Whole | Sum | Parts
VALUES = (Whole, Sum, Parts)


UNKNOWN: Any = object()
"""Stands for an output whose rows are not known; it must not be used."""


@dataclass(frozen=True)
class Several:
    """What an operation with several outputs gives."""

    values: tuple[Any, ...]


def is_one(size: Size) -> bool:
    """Tell whether a size is the number one, without asking a symbol."""
    return isinstance(size, int) and size == 1


def bounds_of(parts: Sequence[Value], dim: int) -> tuple[int, ...]:
    """Give the borders between parts that stand side by side along `dim`."""
    return tuple(accumulate((int(part.shape[dim]) for part in parts), initial=0))


def is_at_rows(rate: Rate) -> bool:
    """Tell whether values of a rate have B rows rather than R."""
    return rate >= Rate.CANDIDATE


def with_shape(whole: Whole, shape: Shape, rows: Rows | None) -> Whole:
    """Give the same node as the stand-in for another plain tensor."""
    return replace(whole, shape=shape, rows=rows)
