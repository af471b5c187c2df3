"""Cutting values along a dimension, and along each other's borders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rankloom.hoist.call import aten
from rankloom.hoist.rewriter import Rewriter
from rankloom.hoist.values import Parts, Shape, Sum, Value, Whole, is_one


def cut(r: Rewriter, value: Value, dim: int, start: int, stop: int) -> Value:
    """Give the entries from `start` to `stop`, excluded, along a dimension without rows."""
    if start == 0 and stop == value.shape[dim]:
        return value
    shape = resized(value.shape, dim, stop - start)
    if isinstance(value, Sum):
        terms = tuple(_cut_whole(r, term, dim, start, stop) for term in value.terms)
        return Sum(terms, value.rows, shape)
    if isinstance(value, Whole):
        return _cut_whole(r, value, dim, start, stop)
    if dim != value.dim:
        parts = tuple(cut(r, part, dim, start, stop) for part in value.parts)
        return Parts(value.dim, parts, value.rows, shape)  # type: ignore[arg-type]
    kept = [
        cut(r, part, dim, max(start, first) - first, min(stop, end) - first)
        for part, first, end in value.pieces()
        if max(start, first) < min(stop, end)
    ]
    return kept[0] if len(kept) == 1 else Parts(dim, tuple(kept), value.rows, shape)  # type: ignore[arg-type]


def _cut_whole(r: Rewriter, whole: Whole, dim: int, start: int, stop: int) -> Whole:
    shape = resized(whole.shape, dim, stop - start)
    if whole.is_narrow(dim) or stop - start == whole.shape[dim]:
        return replace(whole, shape=shape)
    return r.emit(aten.slice.Tensor, whole, dim, start, stop, shape=shape, rows=whole.rows)


def resized(shape: Shape, dim: int, size: Any) -> Shape:
    """Give a shape with another size in one dimension."""
    return (*shape[:dim], size, *shape[dim + 1 :])


def common_borders(values: Sequence[Parts]) -> list[int]:
    """Give all borders of several concatenations of one size."""
    return sorted({border for value in values for border in value.bounds})


def is_spread_along(value: Value, dim: int) -> bool:
    """Tell whether a value has more than one entry along a dimension, so that it must be cut."""
    return not is_one(value.shape[dim])
