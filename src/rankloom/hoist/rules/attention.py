"""Attention: a history's own at its rate; a request's candidates query its events together.

Queries (B, H, n, d) of candidates over keys (R, H, L, d) of a request become (R, H, N n, d) queries
in one call: keys and values are held once for each request.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rankloom.hoist.call import Call, aten, ours
from rankloom.hoist.capture import refusal
from rankloom.hoist.rewriter import Rewriter
from rankloom.hoist.values import (
    UNKNOWN,
    VALUES,
    Rows,
    Several,
    Value,
    Whole,
    is_at_rows,
    is_one,
)
from rankloom.schema import Rate

ATTENTION = aten.scaled_dot_product_attention.default
NUM_ATTEND_TENSORS = 7
"""First arguments of `rankloom::attend`: query, key, value, lengths, seconds and two tables."""
NUM_READ_TENSORS = 9
"""Of `rankloom::read`: query, key, value, lengths, own key and value, seconds and two tables."""


def attention(r: Rewriter, call: Call) -> Value:
    """Attend at the rate of the queries, with keys and values held once for each request."""
    query, key, value = (r.whole(one) for one in call.args[:3])
    mask = call.args[3] if len(call.args) > 3 else call.kwargs.get("attn_mask")
    options = {name: one for name, one in call.kwargs.items() if name != "attn_mask"}
    if len(call.args) > 4:
        options["dropout_p"] = call.args[4]
    if len(call.args) > 5:
        options["is_causal"] = call.args[5]
    shape, rows = call.shape, call.rows
    if any(one.rows is not None and one.rows.dim >= len(one.shape) - 2 for one in (query, key)):
        raise refusal(call.node, "attends over rows")
    mask = None if mask is None else r.whole(mask)
    held = [one for one in (key, value, mask) if one is not None]
    is_shared = (
        is_at_rows(query.rate)
        and not any(is_at_rows(one.rate) for one in held)
        and key.rows is not None
        and len(query.shape) == 4
        and not options.get("is_causal")
        and (mask is None or is_one(mask.shape[-2]) or mask.is_narrow(len(mask.shape) - 2))
    )
    if not is_shared:
        query, key, value = (r.widen(one) for one in r.join([query, key, value]))
        if mask is not None:
            mask = r.join([query, mask])[1]
        return r.emit(call.node.target, query, key, value, mask, shape=shape, rows=rows, **options)
    key, value = r.widen(key), r.widen(value)
    placed = _at_requests(r, r.widen(query))
    result = r.emit(call.node.target, placed, key, value, mask, shape=shape, rows=rows, **options)
    return _at_candidates(r, result, per_row=shape[2])


def attend(r: Rewriter, call: Call) -> Several:
    """Attend within histories at their own rate."""
    tensors = _operands(r, call, NUM_ATTEND_TENSORS)
    return _two_results(r, call, _joined(r, tensors), call.args[NUM_ATTEND_TENSORS:])


def read_history(r: Rewriter, call: Call) -> Several:
    """Read a history at the rate of the queries, the history being held once for each request."""
    tensors = _operands(r, call, NUM_READ_TENSORS)
    options = call.args[NUM_READ_TENSORS:]
    query, key, value, lengths, own_key, own_value, seconds, *tables = tensors
    held = [one for one in (key, value, lengths, seconds) if one is not None]
    is_shared = (
        is_at_rows(query.rate)
        and not any(is_at_rows(one.rate) for one in held)
        and any(one.rate > Rate.CONSTANT for one in (key, value))
    )
    if not is_shared:
        return _two_results(r, call, _joined(r, tensors), options)
    own = [None if one is None else _at_requests(r, r.spread(one)) for one in (own_key, own_value)]
    made = r.emit(
        call.node.target,
        _at_requests(r, query),
        key,
        value,
        lengths,
        *own,
        seconds,
        *tables,
        *options,
        shape=(),
        rows=None,
    )
    shape = tuple(call.node.meta["val"][0].shape)
    return Several((_at_candidates(r, _first(r, call, made), per_row=shape[2]), UNKNOWN))


def last_rows(r: Rewriter, call: Call) -> Whole:
    """Take the newest events at the rate of the history."""
    x, lengths = _row_tensors(r, call, 2)
    x, lengths = r.join([x, lengths])
    return r.emit(call.node.target, x, lengths, *call.args[2:], shape=call.shape, rows=call.rows)


def _operands(r: Rewriter, call: Call, count: int) -> list[Any]:
    """Give what an attention op reads, the two tables of its bias last.

    Raises:
        HoistError: Rows stand elsewhere than first, or a table differs from row to row.
    """
    wholes = _row_tensors(r, call, count)
    if any(table is not None and table.rows is not None for table in wholes[-2:]):
        raise refusal(call.node, "looks up in a table that differs from row to row")
    return wholes


def _row_tensors(r: Rewriter, call: Call, count: int) -> list[Any]:
    """Give the first arguments with rows in their first dimension, as many as the others have.

    Raises:
        HoistError: Rows stand elsewhere.
    """
    wholes = [
        r.widen(r.whole(one)) if isinstance(one, VALUES) else one for one in call.args[:count]
    ]
    given = [one for one in wholes if one is not None]
    if any(one.rows not in {None, Rows(0)} for one in given):
        raise refusal(call.node, "attends over rows")
    near = next((one for one in given if one.rows and not one.is_narrow(0)), None)
    if near is None:
        return wholes
    # What is the same for all rows is repeated for as many as its neighbours have.
    return [
        r.fill_rows(one, near) if one is not None and one.rate == Rate.CONSTANT else one
        for one in wholes
    ]


def _joined(r: Rewriter, wholes: Sequence[Whole | None]) -> list[Whole | None]:
    """Bring values to one number of rows."""
    joined = iter(r.join([one for one in wholes if one is not None]))
    return [None if one is None else next(joined) for one in wholes]


def _two_results(
    r: Rewriter, call: Call, tensors: Sequence[Any], options: Sequence[Any]
) -> Several:
    """Emit an attention op; nothing reads its second result but the backward pass."""
    made = r.emit(call.node.target, *tensors, *options, shape=(), rows=None)
    return Several((_first(r, call, made), UNKNOWN))


def _first(r: Rewriter, call: Call, made: Whole) -> Whole:
    fake = call.node.meta["val"][0]
    node = r.add(operator.getitem, (made.node, 0), {}, made.rate)
    return Whole(node, made.rate, call.rows_of(fake), tuple(fake.shape))


def _at_requests(r: Rewriter, queries: Whole) -> Whole:
    """Put candidates (B, H, n, d) side by side for each request: (R, H, N n, d)."""
    slots = Whole(r.crossing("slots"), Rate.CANDIDATE, None, ())
    placed = _step(r, ours.to_slots.default, queries, slots)  # (R, N, H, n, d)
    placed = _step(r, aten.permute.default, placed, [0, 2, 1, 3, 4])
    return _step(r, aten.flatten.using_ints, placed, 2, 3)


def _at_candidates(r: Rewriter, result: Whole, *, per_row: Any) -> Whole:
    """Undo `_at_requests`, for what stands for the same plain tensor as `result`."""
    place = Whole(r.crossing("slot_of_row"), Rate.CANDIDATE, None, ())
    apart = _step(r, aten.unflatten.int, result, 2, [-1, per_row])
    apart = _step(r, aten.permute.default, apart, [0, 2, 1, 3, 4])
    back = _step(r, ours.from_slots.default, apart, place)
    return replace(back, shape=result.shape, rows=result.rows)


def _step(r: Rewriter, target: Any, *values: Any) -> Whole:
    return r.emit(target, *values, shape=(), rows=None)
