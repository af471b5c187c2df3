"""Reading a history: candidates' queries over its keys and values, and each one's own event.

A candidate stands behind the last event. It sees the whole history and itself, and no other
candidate, because it is never put beside one: M-FALCON of HSTU (arXiv:2402.17152, section 3.4) and
the cached read of LONGER (arXiv:2505.04421) as a second call, with no mask over a concatenation.

Shapes: B histories, H heads, N candidates, L events, d width of queries and keys, dv width of
values.
"""

# A fake and a setup function have their op's whole signature, used or not.
# ruff: noqa: ARG001

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rankloom.errors import ConfigError
from rankloom.ops.attention.bias import Bias
from rankloom.ops.attention.blocked import Gradients, merge
from rankloom.ops.attention.flash import can_flash, flash
from rankloom.ops.attention.mask import Weighting
from rankloom.ops.attention.outputs import (
    check_bias,
    delta_of,
    fake_gradients,
    fake_result,
    finished,
    real_lengths,
    typed,
    weighting_of,
    without_autocast,
)
from rankloom.ops.attention.paths import Problem, run_backward, run_forward


def read(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    weighting: Weighting,
    lengths: Tensor | None = None,
    own: tuple[Tensor, Tensor] | None = None,
    bias: Bias | None = None,
) -> Tensor:
    """Let candidates attend to a history, each alone.

    Written at rows: B rows of one or more queries. Hoisted, a request's keys and values are held
    once and its candidates query them together.

    Args:
        query: (B, H, N, d).
        key: (B, H, L, d). Events first, then padding.
        value: (B, H, L, dv).
        weighting: Of scores.
        lengths: (B,) int64. Real events of each history; None: all L.
        own: (B, H, N, d) and (B, H, N, dv). Each candidate's own key and value, which it sees too,
            at a distance of zero.
        bias: Added to the scores. The candidate's distance to the newest event is 1; `seconds` are
            those from each event to the moment of reading.

    Returns:
        (B, H, N, dv) in the dtype of `query`. Zero where there is nothing to see.

    Raises:
        ConfigError: A table of times comes without times.
    """
    bias = bias or Bias()
    check_bias(bias, where="read.bias")
    if own is not None and own[0].dim() != query.dim():
        raise ConfigError(
            f"read.own: a key for each query is needed. Got {own[0].dim()} dimensions. Give (B, H, "
            "N, d)."
        )
    out: Tensor = _read(
        query,
        key,
        value,
        lengths,
        *(own or (None, None)),
        None if bias.times is None else bias.seconds,
        bias.positions,
        bias.times,
        weighting.kind,
        weighting.scale,
        weighting.divisor,
    )[0]
    return out


@torch.library.custom_op("rankloom::read", mutates_args=())
def _read(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Tensor | None,
    own_key: Tensor | None,
    own_value: Tensor | None,
    seconds: Tensor | None,
    positions: Tensor | None,
    times: Tensor | None,
    kind: str,
    scale: float,
    divisor: float,
) -> tuple[Tensor, Tensor]:
    weighting, bias = weighting_of(kind, scale, divisor), Bias(positions, times)
    real = real_lengths(lengths, key)
    with without_autocast(query):
        if bias.is_empty and can_flash(query, key, value, weighting):
            out, log_sum = _flash(query, key, value, real, weighting)
        else:
            problem = Problem(None, weighting, real, seconds, bias)
            out, log_sum = run_forward(query, key, value, problem)
        if own_key is not None and own_value is not None:
            score = _own_score(query, own_key, bias, scale)
            own = own_value.to(score.dtype)
            if kind == "softmax":
                out, log_sum = merge(out.to(score.dtype), log_sum.to(score.dtype), own, score)
            else:
                out = out.addcmul(F.silu(score)[..., None], own, value=1 / divisor)
        none = torch.zeros((1, 1), dtype=torch.bool, device=query.device)
        return finished(out, log_sum, query.dtype, none)


@_read.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Tensor | None,
    own_key: Tensor | None,
    own_value: Tensor | None,
    seconds: Tensor | None,
    positions: Tensor | None,
    times: Tensor | None,
    kind: str,
    scale: float,
    divisor: float,
) -> tuple[Tensor, Tensor]:
    return fake_result(query, value, kind)


def _flash(
    query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, weighting: Weighting
) -> tuple[Tensor, Tensor]:
    """Read with padding hidden by a number that no score comes near."""
    behind = torch.arange(key.shape[2], device=key.device) >= lengths[:, None]
    added = None
    if behind.any():
        lowest = torch.finfo(query.dtype).min / 2
        added = torch.zeros_like(behind, dtype=query.dtype).masked_fill_(behind, lowest)
        added = added[:, None, None]
    out, log_sum = flash(query, key, value, weighting, is_causal=False, added=added)
    is_empty = (lengths == 0)[:, None, None]
    return (
        out.masked_fill(is_empty[..., None], 0.0),
        log_sum.masked_fill(is_empty, -torch.inf),
    )


def _own_score(query: Tensor, own_key: Tensor, bias: Bias, scale: float) -> Tensor:
    """Give (B, H, N): a candidate's score for itself, at a distance and time of zero."""
    wide = torch.promote_types(query.dtype, torch.float32)
    score = (query.to(wide) * own_key.to(wide)).sum(dim=3).mul_(scale)
    for table in (bias.positions, bias.times):
        if table is not None:
            score += table[:, :1].to(wide)
    return score


@torch.library.custom_op("rankloom::read_backward", mutates_args=())
def _read_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    log_sum: Tensor,
    lengths: Tensor | None,
    own_key: Tensor | None,
    own_value: Tensor | None,
    seconds: Tensor | None,
    positions: Tensor | None,
    times: Tensor | None,
    kind: str,
    scale: float,
    divisor: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    weighting, bias = weighting_of(kind, scale, divisor), Bias(positions, times)
    with without_autocast(query):
        delta = delta_of(gradient, out)
        given = run_backward(
            gradient,
            query,
            key,
            value,
            log_sum=log_sum,
            delta=delta,
            problem=Problem(None, weighting, real_lengths(lengths, key), seconds, bias),
        )
        own = (query.new_empty(0), query.new_empty(0))
        if own_key is not None and own_value is not None:
            score = _own_score(query, own_key, bias, scale)
            own = _own_backward(
                gradient, query, (own_key, own_value), score, log_sum, delta, weighting, given
            )
        return (*typed(given, query, key, value, positions, times), *own)


def _own_backward(
    gradient: Tensor,
    query: Tensor,
    own: tuple[Tensor, Tensor],
    score: Tensor,
    log_sum: Tensor,
    delta: Tensor,
    weighting: Weighting,
    given: Gradients,
) -> tuple[Tensor, Tensor]:
    """Give the gradients of own key and value; add to those of queries and tables."""
    wide = score.dtype
    own_key, own_value = (one.to(wide) for one in own)
    gradient = gradient.to(wide)
    grad_weight = (gradient * own_value).sum(dim=3)
    if weighting.kind == "softmax":
        weight = (score - log_sum).exp_()
        grad_score = (grad_weight - delta).mul_(weight)
    else:
        weight = F.silu(score) / weighting.divisor
        grad_score = torch.ops.aten.silu_backward(grad_weight / weighting.divisor, score)
    for table in (given.positions, given.times):
        if table is not None:
            table[:, :1] += grad_score.sum(dim=(0, 2))[:, None].sum_to_size((len(table), 1))
    scaled = (grad_score * weighting.scale)[..., None]
    given.query.addcmul_(scaled, own_key)
    return (
        (scaled * query.to(wide)).to(own[0].dtype).contiguous(),
        (weight[..., None] * gradient).to(own[1].dtype).contiguous(),
    )


@_read_backward.register_fake
def _(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    log_sum: Tensor,
    lengths: Tensor | None,
    own_key: Tensor | None,
    own_value: Tensor | None,
    seconds: Tensor | None,
    positions: Tensor | None,
    times: Tensor | None,
    kind: str,
    scale: float,
    divisor: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    own = [query.new_empty(0) if x is None else x.new_empty(x.shape) for x in (own_key, own_value)]
    return (*fake_gradients(query, key, value, positions, times), own[0], own[1])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, *optional = inputs[:9]
    ctx.save_for_backward(query, key, value, *output, *optional)
    ctx.mark_non_differentiable(output[1])
    ctx.options = inputs[9:]


def _differentiate(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    given = _read_backward(gradient, *ctx.saved_tensors, *ctx.options)
    query, key, value, positions, times, own_key, own_value = given
    ordered = (query, key, value, None, own_key, own_value, None, positions, times)
    kept = [one if ctx.needs_input_grad[n] else None for n, one in enumerate(ordered)]
    return (*kept, *[None] * len(ctx.options))


_read.register_autograd(_differentiate, setup_context=_setup)
