"""Attention of a history's events to each other.

Shapes: B histories, H heads, M rows, L events, d width of queries and keys, dv width of values.
"""

# A fake and a setup function have their op's whole signature, used or not.
# ruff: noqa: ARG001

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rankloom.errors import ConfigError
from rankloom.ops.attention.bias import Bias
from rankloom.ops.attention.blocked import Gradients
from rankloom.ops.attention.flash import can_flash, flash, flash_backward
from rankloom.ops.attention.mask import Mask, Weighting
from rankloom.ops.attention.outputs import (
    check_bias,
    delta_of,
    fake_gradients,
    fake_result,
    finished,
    padding_rows,
    real_lengths,
    typed,
    weighting_of,
    without_autocast,
)
from rankloom.ops.attention.paths import Problem, run_backward, run_forward


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Mask,
    weighting: Weighting,
    lengths: Tensor | None = None,
    bias: Bias | None = None,
) -> Tensor:
    """Let the newest M events of each history attend to the history.

    Histories are padded behind: events first, oldest first. Query row t is the t-th of a history's
    last M events, or of all where it has fewer, with padding behind; M = L is the whole history.
    Work and memory follow the mask: (K1 + K2) L for a window and a prefix, F L for full rows, M L
    for the last M rows of a causal mask; nothing of M x L is held, forward or backward.

    Args:
        query: (B, H, M, d).
        key: (B, H, L, d).
        value: (B, H, L, dv).
        mask: What an event sees.
        weighting: Of scores.
        lengths: (B,) int64. Real events of each history; None: all L.
        bias: Added to the scores.

    Returns:
        (B, H, M, dv) in the dtype of `query`. Zero at padding.

    Raises:
        ConfigError: The bias is not whole, or the mask looks ahead, where distances have no entry.
    """
    bias = bias or Bias()
    check_bias(bias, where="attend.bias")
    if not mask.causal and not bias.is_empty:
        raise ConfigError(
            "attend.bias: has no entry for events to come. Got Mask(causal=False). Use a causal "
            "mask or no bias."
        )
    options = (mask.causal, mask.window, mask.prefix, mask.full_rows)
    seconds = None if bias.times is None else bias.seconds
    out: Tensor = _attend(
        query,
        key,
        value,
        lengths,
        seconds,
        bias.positions,
        bias.times,
        *options,
        weighting.kind,
        weighting.scale,
        weighting.divisor,
    )[0]
    return out


@torch.library.custom_op("rankloom::attend", mutates_args=())
def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Tensor | None,
    seconds: Tensor | None,
    positions: Tensor | None,
    times: Tensor | None,
    causal: bool,
    window: int | None,
    prefix: int,
    full_rows: int,
    kind: str,
    scale: float,
    divisor: float,
) -> tuple[Tensor, Tensor]:
    mask = Mask(causal=causal, window=window, prefix=prefix, full_rows=full_rows)
    weighting, bias = weighting_of(kind, scale, divisor), Bias(positions, times)
    real, num_rows = real_lengths(lengths, key), query.shape[2]
    with without_autocast(query):
        if _is_plain(query, key, value, bias, mask, weighting):
            out, log_sum = flash(query, key, value, weighting, is_causal=True)
        else:
            problem = Problem(mask, weighting, real, seconds, bias)
            out, log_sum = run_forward(query, key, value, problem)
        return finished(out, log_sum, query.dtype, padding_rows(real, num_rows))


@_attend.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Tensor | None,
    seconds: Tensor | None,
    positions: Tensor | None,
    times: Tensor | None,
    causal: bool,
    window: int | None,
    prefix: int,
    full_rows: int,
    kind: str,
    scale: float,
    divisor: float,
) -> tuple[Tensor, Tensor]:
    return fake_result(query, value, kind)


@torch.library.custom_op("rankloom::attend_backward", mutates_args=())
def _attend_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    log_sum: Tensor,
    lengths: Tensor | None,
    seconds: Tensor | None,
    positions: Tensor | None,
    times: Tensor | None,
    causal: bool,
    window: int | None,
    prefix: int,
    full_rows: int,
    kind: str,
    scale: float,
    divisor: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    mask = Mask(causal=causal, window=window, prefix=prefix, full_rows=full_rows)
    weighting, bias = weighting_of(kind, scale, divisor), Bias(positions, times)
    real, num_rows = real_lengths(lengths, key), query.shape[2]
    with without_autocast(query):
        gradient = gradient.masked_fill(padding_rows(real, num_rows)[:, None, :, None], 0.0)
        if _is_plain(query, key, value, bias, mask, weighting):
            products = flash_backward(
                gradient, query, key, value, out=out, log_sum=log_sum, weighting=weighting
            )
            given = Gradients(*products, None, None)
        else:
            given = run_backward(
                gradient,
                query,
                key,
                value,
                log_sum=log_sum,
                delta=delta_of(gradient, out),
                problem=Problem(mask, weighting, real, seconds, bias),
            )
        return typed(given, query, key, value, positions, times)


@_attend_backward.register_fake
def _(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    log_sum: Tensor,
    lengths: Tensor | None,
    seconds: Tensor | None,
    positions: Tensor | None,
    times: Tensor | None,
    causal: bool,
    window: int | None,
    prefix: int,
    full_rows: int,
    kind: str,
    scale: float,
    divisor: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return fake_gradients(query, key, value, positions, times)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, *optional = inputs[:7]
    ctx.save_for_backward(query, key, value, *output, *optional)
    ctx.mark_non_differentiable(output[1])
    ctx.options = inputs[7:]


def _differentiate(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    given = _attend_backward(gradient, *ctx.saved_tensors, *ctx.options)
    query, key, value, *tables = given
    kept = [one if ctx.needs_input_grad[5 + n] else None for n, one in enumerate(tables)]
    return (query, key, value, None, None, *kept, *[None] * len(ctx.options))


_attend.register_autograd(_differentiate, setup_context=_setup)


def _is_plain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Bias,
    mask: Mask,
    weighting: Weighting,
) -> bool:
    """Whether it is causal softmax over whole histories and nothing else."""
    num_rows, num_events = query.shape[2], key.shape[2]
    is_whole = num_rows == num_events and mask.within(num_rows, num_events) == Mask()
    return is_whole and bias.is_empty and can_flash(query, key, value, weighting)
