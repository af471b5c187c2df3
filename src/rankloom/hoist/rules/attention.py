"""Scaled dot-product attention: a request's candidates query its keys and values together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rankloom.hoist.call import Call, aten, ours
from rankloom.hoist.capture import refusal
from rankloom.hoist.rewriter import Rewriter
from rankloom.hoist.values import Value, Whole, is_at_rows, is_one
from rankloom.schema import Rate


def attention(r: Rewriter, call: Call) -> Value:
    """Attend at the rate of the queries, with keys and values held once for each request.

    Queries (B, H, n, d) over keys (R, H, L, d) become (R, H, N n, d) queries.
    """
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
    slots = Whole(r.crossing("slots"), Rate.CANDIDATE, None, ())
    place = Whole(r.crossing("slot_of_row"), Rate.CANDIDATE, None, ())

    def step(target: Any, *values: Any, **more: Any) -> Whole:
        return r.emit(target, *values, shape=(), rows=None, **more)

    query, key, value = r.widen(query), r.widen(key), r.widen(value)
    per_row = shape[2]
    placed = step(ours.to_slots.default, query, slots)  # (R, N, H, n, d)
    placed = step(
        aten.flatten.using_ints, step(aten.permute.default, placed, [0, 2, 1, 3, 4]), 2, 3
    )
    result = step(call.node.target, placed, key, value, mask, **options)
    apart = step(aten.unflatten.int, result, 2, [-1, per_row])
    back = step(ours.from_slots.default, step(aten.permute.default, apart, [0, 2, 1, 3, 4]), place)
    return replace(back, shape=shape, rows=rows)


ATTENTION = aten.scaled_dot_product_attention.default
