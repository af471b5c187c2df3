"""Operations that only change how elements are arranged: reshape, permute, concatenate, cut.

A concatenation stays one as long as its parts stay side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import sympy

from rankloom.hoist.call import Call, aten
from rankloom.hoist.capture import refusal
from rankloom.hoist.rewriter import Rewriter
from rankloom.hoist.rules.slicing import cut, resized
from rankloom.hoist.values import (
    Merged,
    Parts,
    Rows,
    Several,
    Shape,
    Sum,
    Value,
    Whole,
    is_one,
)
from rankloom.schema import Rate


def concatenate(r: Rewriter, call: Call) -> Value:
    """Put values side by side; what differs in rate stays in parts."""
    dim = call.dim(1)
    return side_by_side(r, call, list(call.args[0]), dim)


def stack(r: Rewriter, call: Call) -> Value:
    """Put values side by side along a new dimension."""
    shape = call.shape
    dim = call.dim(1)
    rows = call.rows
    single = resized(shape, dim, 1)
    values = [
        _each(
            value,
            lambda whole: r.emit(aten.unsqueeze.default, whole, dim, shape=single, rows=rows),
            (single, rows),
        )
        for value in (_undivided(r, one) for one in call.args[0])
    ]
    return side_by_side(r, call, values, dim)


def side_by_side(r: Rewriter, call: Call, values: Sequence[Value], dim: int) -> Value:
    """Concatenate along a dimension that does not count rows."""
    shape, rows = call.shape, call.rows
    if rows is not None and rows.dim == dim:
        raise refusal(call.node, "concatenates rows")
    pieces: list[Whole | Sum] = []
    for value in values:
        if isinstance(value, Parts) and value.dim == dim:
            pieces += value.parts
        elif len(value.shape) == len(shape) and value.shape[dim] != 0:
            pieces.append(_undivided(r, value))
    if len(pieces) == 1:
        return pieces[0]
    if len({piece.rate for piece in pieces}) == 1 and all(isinstance(p, Whole) for p in pieces):
        wholes = [piece for piece in pieces if isinstance(piece, Whole)]
        return r.cat(wholes, dim, shape, rows)
    if r.options.layout == "neat":
        pieces = _runs(r, pieces, dim, shape)
    return Parts(dim, tuple(pieces), rows, shape)


def _runs(r: Rewriter, pieces: Sequence[Whole | Sum], dim: int, shape: Shape) -> list[Whole | Sum]:
    """Put neighbours of one rate side by side: a thousand features become a few parts."""

    def kind(piece: Whole | Sum) -> Any:
        # What is held once along a dimension stays so, and a sum a sum.
        is_plain = isinstance(piece, Whole) and not piece.narrow_dims
        return (piece.rate, piece.rows) if is_plain else id(piece)

    merged: list[Whole | Sum] = []
    for _, group in groupby(pieces, kind):
        run = list(group)
        wholes = [piece for piece in run if isinstance(piece, Whole)]
        if len(wholes) > 1:
            own = resized(shape, dim, sum(piece.shape[dim] for piece in wholes))
            merged.append(r.cat(wholes, dim, own, wholes[0].rows))
        else:
            merged += run
    return merged


def permute(r: Rewriter, call: Call) -> Value:
    """Put dimensions into another order."""
    value = call.args[0]
    order = _order(call, len(value.shape))
    rows = call.rows
    shape = tuple(value.shape[dim] for dim in order)

    def one(part: Whole) -> Whole:
        own = tuple(part.shape[dim] for dim in order)
        return r.emit(aten.permute.default, part, list(order), shape=own, rows=rows)

    if isinstance(value, Parts):
        parts = tuple(
            _each(part, one, (tuple(part.shape[dim] for dim in order), rows))
            for part in value.parts
        )
        return Parts(order.index(value.dim), parts, rows, shape)
    return _each(value, one, (shape, rows))


def _order(call: Call, ndim: int) -> list[int]:
    """Give the dimensions in the order of the result."""
    args, order = call.args, list(range(ndim))
    if call.node.target is aten.permute.default:
        return [dim % ndim for dim in args[1]]
    if call.node.target is aten.movedim.int:
        order.insert(args[2] % ndim, order.pop(args[1] % ndim))
        return order
    first, second = args[1:3] if len(args) > 2 else (0, ndim - 1)  # aten.t has no dimensions
    order[first], order[second] = order[second], order[first]
    return order


def reshape(r: Rewriter, call: Call) -> Value | Merged:
    """Regroup dimensions: view, reshape, flatten, unflatten, squeeze, unsqueeze."""
    given = call.args[0]
    value = given.value if isinstance(given, Merged) else given
    shape, rows = call.shape, call.rows
    if not _rows_stay_first(value, shape, rows):
        return _merge_later(r, call, value)
    return _reshaped(r, value, shape, rows)


def _reshaped(r: Rewriter, value: Value, shape: Shape, rows: Rows | None) -> Value:
    if isinstance(value, Parts):
        return _reshape_parts(r, value, shape, rows)
    if isinstance(value, Sum) and not any(term.narrow_dims for term in value.terms):
        terms = tuple(reshape_whole(r, term, shape, rows) for term in value.terms)
        return Sum(terms, rows, shape)
    return reshape_whole(r, r.whole(value), shape, rows)


def _merge_later(r: Rewriter, call: Call, value: Value) -> Merged:
    """Carry out a reshape but for the dimensions that would scatter rows."""
    assert value.rows is not None
    start, stop, new_start, new_stop = _group_of(value.shape, call.shape, value.rows.dim)
    if stop == len(value.shape):
        raise refusal(call.node, "merges rows with a dimension before them")
    shape = (*call.shape[:new_start], *value.shape[start:stop], *call.shape[new_stop:])
    rows = replace(value.rows, dim=new_start + value.rows.dim - start)
    return Merged(_reshaped(r, value, shape, rows), call.shape)


def reshape_whole(r: Rewriter, whole: Whole, shape: Shape, rows: Rows | None) -> Whole:
    """Give a value another shape; a new dimension of one keeps it narrow where it is."""
    if whole.shape == shape:
        return replace(whole, rows=rows)
    narrow = whole.narrow_dims
    if narrow:
        kept = _regrouped(r, whole, shape, rows)
        if kept is not None:
            return kept
        whole = r.widen(whole)
    sizes = [_view_size(r, size, rows, dim, whole) for dim, size in enumerate(shape)]
    return r.emit(aten.reshape.default, whole, sizes, shape=shape, rows=rows)


def _regrouped(r: Rewriter, whole: Whole, shape: Shape, rows: Rows | None) -> Whole | None:
    """Add or take away dimensions of one, which leaves narrow dimensions alone."""
    ours = [size for size in whole.shape if not is_one(size)]
    if ours != [size for size in shape if not is_one(size)]:
        return None
    held = [size for size, plain in zip(whole.sizes, whole.shape, strict=True) if not is_one(plain)]
    sizes: list[Any] = []
    for dim, size in enumerate(shape):
        if is_one(size):
            sizes.append(1)
        elif rows is not None and dim == rows.dim and not is_one(held[0]):
            held.pop(0)
            sizes.append(-1)
        else:
            sizes.append(1 if is_one(held.pop(0)) else r.size(size, whole))
    return r.emit(aten.reshape.default, whole, sizes, shape=shape, rows=rows)


def _view_size(r: Rewriter, size: Any, rows: Rows | None, dim: int, whole: Whole) -> Any:
    if rows is not None and dim == rows.dim:
        return 1 if whole.rate == Rate.CONSTANT else -1
    return r.size(size, whole)


def _reshape_parts(r: Rewriter, value: Parts, shape: Shape, rows: Rows | None) -> Value:
    """Reshape part by part, where parts stay side by side."""
    start, stop, new_start, new_stop = _group_of(value.shape, shape, value.dim)
    is_outermost = all(is_one(size) for size in value.shape[start : value.dim])
    has_rows = value.rows is not None and start <= value.rows.dim < stop
    dim = next((d for d in range(new_start, new_stop) if not is_one(shape[d])), None)
    if not is_outermost or has_rows or dim is None:
        return reshape_whole(r, r.whole(value), shape, rows)
    inner, new_inner = (
        _product(value.shape[value.dim + 1 : stop]),
        _product(shape[dim + 1 : new_stop]),
    )
    parts = []
    for part, first, end in value.pieces():
        count = (end - first) * inner
        if count % new_inner:
            return reshape_whole(r, r.whole(value), shape, rows)
        own = resized(shape, dim, count // new_inner)
        whole = r.whole(part) if isinstance(part, Sum) else part
        parts.append(reshape_whole(r, whole, own, rows))
    return Parts(dim, tuple(parts), rows, shape)


def _group_of(old: Shape, new: Shape, dim: int) -> tuple[int, int, int, int]:
    """Find the smallest runs of dimensions, around `dim`, that hold the same elements.

    Returns:
        Where the run begins and ends in `old`, and in `new`.
    """
    at = new_at = 0
    while True:
        start, new_start = at, new_at
        size, new_size = old[at], new[new_at]
        at, new_at = at + 1, new_at + 1
        while not _is_same(size, new_size):
            if _is_smaller(size, new_size):
                size, at = size * old[at], at + 1
            else:
                new_size, new_at = new_size * new[new_at], new_at + 1
        # Dimensions of one at the end belong to the last run.
        if at == len(old) or (all(is_one(one) for one in old[at:]) and new_at == len(new)):
            at, new_at = len(old), len(new)
        if start <= dim < at:
            return start, at, new_start, new_at


def _is_same(a: Any, b: Any) -> bool:
    return _expression(a) == _expression(b)


def _is_smaller(a: Any, b: Any) -> bool:
    """Compare sizes of which one divides the other."""
    ratio = sympy.cancel(_expression(a) / _expression(b))
    return bool(ratio < 1) if ratio.is_number else not sympy.fraction(ratio)[0].free_symbols


def _expression(size: Any) -> Any:
    return sympy.Integer(size) if isinstance(size, int) else size.node.expr


def _product(sizes: Sequence[Any]) -> Any:
    result = 1
    for size in sizes:
        result = result * size
    return result


def _rows_stay_first(value: Value, shape: Shape, rows: Rows | None) -> bool:
    """Tell whether rows are merged with dimensions after them only, so that each stays whole."""
    if value.rows is None or rows is None:
        return True
    start, _, new_start, _ = _group_of(value.shape, shape, value.rows.dim)
    before = all(is_one(size) for size in value.shape[start : value.rows.dim])
    after = all(is_one(size) for size in shape[new_start : rows.dim])
    return before and after


def expand(r: Rewriter, call: Call) -> Value:
    """Hold once what is repeated."""
    shape, rows = call.shape, call.rows
    whole = r.whole(call.args[0])
    for _ in range(len(shape) - len(whole.shape)):
        whole = r.emit(aten.unsqueeze.default, whole, 0, shape=(1, *whole.shape), rows=whole.rows)
    return replace(whole, shape=shape, rows=rows)


def select(r: Rewriter, call: Call) -> Value:
    """Take one entry of a dimension."""
    value, dim, index = call.args
    shape, rows = call.shape, call.rows
    dim %= len(value.shape)
    if value.rows is not None and dim == value.rows.dim:
        raise refusal(call.node, "selects a row")
    size = value.shape[dim]
    index = index + size if index < 0 else index
    value = cut(r, value, dim, index, index + 1) if isinstance(size, int) else _undivided(r, value)
    place = 0 if isinstance(size, int) else index

    def one(part: Whole) -> Whole:
        own = (*part.shape[:dim], *part.shape[dim + 1 :])
        at = 0 if part.is_narrow(dim) else place
        return r.emit(aten.select.int, part, dim, at, shape=own, rows=rows)

    if isinstance(value, Parts):
        new_dim = value.dim - (dim < value.dim)
        parts = tuple(
            _each(part, one, ((*part.shape[:dim], *part.shape[dim + 1 :]), rows))
            for part in value.parts
        )
        return Parts(new_dim, parts, rows, shape)
    return _each(value, one, (shape, rows))


def slice_(r: Rewriter, call: Call) -> Value:
    """Take a range of a dimension."""
    value = call.args[0]
    given = (*call.args[1:], *(0, None, None, 1)[len(call.args) - 1 :])
    dim, start, stop, step = given
    size, shape = value.shape[dim], call.shape
    if shape == value.shape and step == 1:
        return value
    if value.rows is not None and dim == value.rows.dim:
        raise refusal(call.node, "takes some of the rows")
    if step == 1 and isinstance(size, int):
        first = min(max((start or 0) + (size if (start or 0) < 0 else 0), 0), size)
        return cut(r, value, dim, first, first + shape[dim])
    whole = r.widen(r.whole(value), dims=(dim,))
    begin, end = (r.size(one, whole) if one is not None else None for one in (start, stop))
    return r.emit(aten.slice.Tensor, whole, dim, begin, end, step, shape=shape, rows=whole.rows)


def split(r: Rewriter, call: Call) -> Several:
    """Cut a dimension into consecutive pieces."""
    value = call.args[0]
    dim = call.dim(2)
    if value.rows is not None and dim == value.rows.dim:
        raise refusal(call.node, "splits rows")
    pieces, start = [], 0
    for fake in call.node.meta["val"]:
        stop = start + fake.shape[dim]
        pieces.append(cut(r, value, dim, start, stop))
        start = stop
    return Several(tuple(pieces))


def unbind(r: Rewriter, call: Call) -> Several:
    """Take every entry of a dimension."""
    value = call.args[0]
    dim = call.dim(1)
    if value.rows is not None and dim == value.rows.dim:
        raise refusal(call.node, "separates rows")
    rows = value.rows
    if rows is not None and rows.dim > dim:
        rows = replace(rows, dim=rows.dim - 1)
    results = []
    for place, fake in enumerate(call.node.meta["val"]):
        piece = r.whole(cut(r, value, dim, place, place + 1))
        results.append(r.emit(aten.select.int, piece, dim, 0, shape=tuple(fake.shape), rows=rows))
    return Several(tuple(results))


def spread(_: Rewriter, call: Call) -> Value:
    """Let a request's value through: its rows are made where they are needed."""
    value: Value = call.args[0]
    if call.args[1] != "request_index":
        raise refusal(call.node, "expands by another index than request_index")
    return value


def create(r: Rewriter, call: Call) -> Whole:
    """Make a constant once, not for each row."""
    shape, rows = call.shape, call.rows
    sizes = [1 if rows and dim == rows.dim else r.size(size) for dim, size in enumerate(shape)]
    value = call.node.meta["val"]
    fill = _fill_of(call)
    return r.emit(
        aten.full.default,
        sizes,
        fill,
        shape=shape,
        rows=rows,
        dtype=value.dtype,
        device=value.device,
    )


def _fill_of(call: Call) -> Any:
    name = str(call.node.target)
    if "zeros" in name:
        return 0
    return 1 if "ones" in name else call.args[-1]


def _undivided(r: Rewriter, value: Value) -> Whole | Sum:
    return r.whole(value) if isinstance(value, Parts) else value


def _each(value: Any, change: Any, becomes: tuple[Shape, Rows | None]) -> Any:
    """Change a whole value, or every term of a sum."""
    if isinstance(value, Sum):
        shape, rows = becomes
        return Sum(tuple(change(term) for term in value.terms), rows, shape)
    return change(value)
