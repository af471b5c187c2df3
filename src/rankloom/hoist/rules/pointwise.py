"""Operations that make each element of their result from the same element of their operands.

A part of a concatenation is computed by itself, at its own rate.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

from torch.utils._pytree import tree_leaves, tree_map

from rankloom.hoist.call import Call
from rankloom.hoist.rewriter import Rewriter
from rankloom.hoist.rules.slicing import common_borders, cut, resized
from rankloom.hoist.rules.sums import LINEAR
from rankloom.hoist.values import VALUES, Parts, Rows, Shape, Sum, Value, Whole, is_at_rows, is_one


def pointwise(r: Rewriter, call: Call) -> Value:
    """Compute an element-wise operation part by part, where parts have lower rates."""
    keep_sum = LINEAR.get(call.node.target)
    kept = keep_sum(r, call) if keep_sum else None
    if kept is not None:
        return kept
    return by_parts(r, call.node.target, (call.args, call.kwargs), call.shape, call.rows)


def by_parts(
    r: Rewriter, target: Any, call: tuple[Any, Any], shape: Shape, rows: Rows | None
) -> Value:
    """Cut all operands at the borders of those that are concatenations along one dimension."""
    operands = _values(call)
    divided = [
        (one, one.dim + len(shape) - len(one.shape)) for one in operands if isinstance(one, Parts)
    ]
    dims = {dim for _, dim in divided}
    for dim in sorted(dims):
        borders = common_borders([one for one, at in divided if at == dim])
        pieces = [
            _changed(call, partial(_cut_at, r, dim - len(shape), start, stop))
            for start, stop in pairwise(borders)
        ]
        rates = [max(value.rate for value in _values(piece)) for piece in pieces]
        if all(is_at_rows(rate) for rate in rates):
            continue
        results = [
            by_parts(r, target, piece, resized(shape, dim, stop - start), rows)
            for piece, (start, stop) in zip(pieces, pairwise(borders), strict=True)
        ]
        if all(isinstance(one, Whole | Sum) for one in results):
            return Parts(dim, tuple(results), rows, shape)  # type: ignore[arg-type]
    return _carry_out(r, target, call, shape, rows)


def _carry_out(
    r: Rewriter, target: Any, call: tuple[Any, Any], shape: Shape, rows: Rows | None
) -> Whole:
    joined = iter(r.join([r.whole(one) for one in _values(call)]))
    args, kwargs = _changed(call, lambda _: next(joined))
    return r.emit(target, *args, shape=shape, rows=rows, **kwargs)


def _cut_at(r: Rewriter, from_end: int, start: int, stop: int, value: Value) -> Value:
    """Cut an operand along a dimension of the result, to which it is broadcast."""
    dim = from_end + len(value.shape)
    if dim < 0 or is_one(value.shape[dim]):
        return value
    return cut(r, value, dim, start, stop)


def _values(call: Any) -> list[Value]:
    leaves = tree_leaves(call, is_leaf=_is_value)
    return [leaf for leaf in leaves if _is_value(leaf)]


def _changed(call: Any, change: Callable[[Value], Value]) -> Any:
    return tree_map(lambda one: change(one) if _is_value(one) else one, call, is_leaf=_is_value)


def _is_value(leaf: Any) -> bool:
    return isinstance(leaf, VALUES)
