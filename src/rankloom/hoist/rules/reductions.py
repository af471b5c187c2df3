"""Operations along some dimensions: sums, means, norms, softmax, sorting.

They may not run along rows. Parts that stand side by side along another dimension are computed one
by one; a sum or mean over the parts themselves is the sum of their sums.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from rankloom.hoist.call import Call, aten
from rankloom.hoist.capture import refusal
from rankloom.hoist.rewriter import Rewriter
from rankloom.hoist.rules.pointwise import by_parts
from rankloom.hoist.rules.slicing import resized
from rankloom.hoist.rules.sums import add_up
from rankloom.hoist.values import UNKNOWN, VALUES, Parts, Several, Sum, Value, Whole
from rankloom.schema import Rate


def total(r: Rewriter, call: Call) -> Any:
    """Sum or mean over dimensions; over the parts of a concatenation, the sum of theirs."""
    value = call.args[0]
    dims = _dims(call, 1, default=list(range(len(value.shape))))
    is_divided = isinstance(value, Parts) and value.dim in dims and "dtype" not in call.kwargs
    if not is_divided:
        return _along(r, call, dims)
    _check(call, dims)
    shape, rows = call.shape, call.rows
    terms = []
    for part, start, stop in value.pieces():
        whole = r.whole(part)
        whole = r.widen(whole, dims=[dim for dim in whole.narrow_dims if dim in dims])
        done = r.emit(call.node.target, whole, *call.args[1:], shape=shape, rows=rows)
        if call.node.target is aten.mean.dim:
            share = (stop - start) / int(value.shape[value.dim])
            done = r.emit(aten.mul.Tensor, done, share, shape=shape, rows=rows)
        terms.append(done)
    return add_up(r, terms, shape, rows)


def along(place: int) -> Callable[[Rewriter, Call], Any]:
    """Make the rule of an operation along the dimensions that are its argument at `place`."""
    return lambda r, call: _along(r, call, _dims(call, place, default=-1))


def along_last(r: Rewriter, call: Call) -> Any:
    """Compute an operation along the last dimension of its first operand."""
    return _along(r, call, [len(call.args[0].shape) - 1])


def along_all_but_first(r: Rewriter, call: Call) -> Any:
    """Compute an operation that treats the entries of the first dimension alike."""
    return _along(r, call, list(range(1, len(call.args[0].shape))))


def recurrent(r: Rewriter, call: Call) -> Any:
    """Run a recurrent network over sequences; rows are where its batch is."""
    value, *others = call.args
    batch_dim = 0 if call.args[-1] else 1
    if value.rows is not None and value.rows.dim != batch_dim:
        raise refusal(call.node, "runs along rows")
    whole = r.widen(r.whole(value))
    states = others[0] if isinstance(others[0], list | tuple) else [others[0]]
    filled = [r.fill_rows(r.widen(r.whole(one)), whole) for one in states]
    joined = r.join([whole, *filled])
    weights = [r.whole(one) for one in others[1]]
    first = joined[1:] if isinstance(others[0], list | tuple) else joined[1]
    made = r.emit(call.node.target, joined[0], first, weights, *others[2:], shape=(), rows=None)
    outputs = []
    for number, fake in enumerate(_fakes(call)):
        node = r.add(operator.getitem, (made.node, number), {}, made.rate)
        outputs.append(Whole(node, made.rate, call.rows_of(fake), tuple(fake.shape)))
    return Several(tuple(outputs))


def embedding(r: Rewriter, call: Call) -> Whole:
    """Look up rows of a constant table."""
    table, ids = (r.whole(one) for one in call.args[:2])
    if table.rate != Rate.CONSTANT:
        raise refusal(call.node, "looks up in a table that is no constant")
    return r.emit(
        call.node.target, table, r.widen(ids), *call.args[2:], shape=call.shape, rows=call.rows
    )


def layer_norm(r: Rewriter, call: Call) -> Any:
    """Normalise the last dimensions, as many as the norm's shape has."""
    ndim = len(call.args[0].shape)
    return _along(r, call, list(range(ndim - len(call.args[1]), ndim)))


def batch_norm(r: Rewriter, call: Call) -> Any:
    """Scale and shift each channel by statistics that are constants."""
    value, *constants, is_training = call.args[:6]
    if is_training:
        raise refusal(call.node, "normalises by the batch's own statistics (BatchNorm)")
    rows = value.rows
    if rows is not None and rows.dim == 1:
        raise refusal(call.node, "takes rows for channels")
    weight, bias, mean, variance = (
        None if one is None else _per_channel(r, r.whole(one), len(value.shape))
        for one in constants
    )
    assert mean is not None
    assert variance is not None
    shape = variance.shape

    def step(target: Any, *values: Any) -> Whole:
        return r.emit(target, *values, shape=shape, rows=None)

    scale = step(aten.rsqrt.default, step(aten.add.Tensor, variance, call.args[7]))
    scale = scale if weight is None else step(aten.mul.Tensor, scale, weight)
    shift = step(aten.neg.default, step(aten.mul.Tensor, mean, scale))
    shift = shift if bias is None else step(aten.add.Tensor, shift, bias)
    scaled = by_parts(r, aten.mul.Tensor, ((value, scale), {}), call.shape, call.rows)
    return by_parts(r, aten.add.Tensor, ((scaled, shift), {}), call.shape, call.rows)


def _per_channel(r: Rewriter, whole: Whole, ndim: int) -> Whole:
    """Give (C,) constants as (1, C, 1, ...)."""
    shape = (1, whole.shape[0], *[1] * (ndim - 2))
    return r.emit(aten.reshape.default, whole, list(shape), shape=shape, rows=None)


def _along(r: Rewriter, call: Call, dims: Sequence[int]) -> Any:
    """Compute part by part where parts stand along another dimension."""
    _check(call, dims)
    value, *others = call.args
    if isinstance(value, Parts) and value.dim not in dims and not any(map(_has_rows, others)):
        results = []
        for part, start, stop in value.pieces():
            results.append(_emit(r, call, [part, *others], (value.dim, stop - start)))
        return _side_by_side(call, dims, value, results)
    made = _emit(r, call, call.args, None)
    return Several(tuple(made)) if _gives_many(call) else made[0]


def _side_by_side(
    call: Call, dims: Sequence[int], value: Parts, results: Sequence[Sequence[Any]]
) -> Any:
    """Put the results of parts side by side, output by output."""
    columns: list[Any] = []
    for fake, parts in zip(_fakes(call), zip(*results, strict=True), strict=True):
        if any(part is UNKNOWN for part in parts):
            columns.append(UNKNOWN)
            continue
        dim = value.dim
        if fake.dim() < len(value.shape):
            dim -= sum(other < dim for other in dims)
        columns.append(Parts(dim, tuple(parts), call.rows_of(fake), tuple(fake.shape)))
    return Several(tuple(columns)) if _gives_many(call) else columns[0]


def _emit(r: Rewriter, call: Call, args: Sequence[Any], part: tuple[int, int] | None) -> list[Any]:
    """Emit the operation on whole operands; give each of its outputs.

    Args:
        r: Of the new graph.
        call: In the plain graph.
        args: Its arguments, or a part of them.
        part: The dimension in which the first operand is a part, and the part's size.
    """
    wholes = [r.widen(r.whole(one)) for one in args if isinstance(one, VALUES)]
    joined = iter(r.join(wholes))
    ready = [next(joined) if isinstance(one, VALUES) else one for one in args]
    made = r.emit(call.node.target, *ready, shape=(), rows=None, **call.kwargs)
    outputs: list[Any] = []
    ndim = len(args[0].shape)
    for number, fake in enumerate(_fakes(call)):
        shape = tuple(fake.shape)
        if _gives_many(call) and len(shape) != ndim:
            # A by-product, such as a norm's scales, may have its rows anywhere.
            outputs.append(UNKNOWN)
            continue
        node = made.node
        if _gives_many(call):
            node = r.add(operator.getitem, (made.node, number), {}, made.rate)
        if part is not None:
            dim = part[0] - (ndim - len(shape)) if part[0] >= len(shape) else part[0]
            shape = resized(shape, dim, part[1])
        outputs.append(Whole(node, made.rate, call.rows_of(fake), shape))
    return outputs


def _gives_many(call: Call) -> bool:
    return not isinstance(call.node.meta["val"], Tensor)


def _fakes(call: Call) -> list[Any]:
    value = call.node.meta["val"]
    return [value] if isinstance(value, Tensor) else list(value)


def _dims(call: Call, place: int, *, default: Any) -> list[int]:
    given = call.args[place] if len(call.args) > place else call.kwargs.get("dim", default)
    given = default if given is None or given == [] else given
    ndim = len(call.args[0].shape)
    return [dim % ndim for dim in (given if isinstance(given, list | tuple) else [given])]


def _has_rows(value: Any) -> bool:
    return isinstance(value, Whole | Sum | Parts) and value.rows is not None


def _check(call: Call, dims: Sequence[int]) -> None:
    value: Value = call.args[0]
    if value.rows is not None and value.rows.dim in dims:
        raise refusal(call.node, "runs along rows")
