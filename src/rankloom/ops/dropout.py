"""Dropout whose random draws cost an eighth: one 64-bit draw decides eight elements."""

# A fake and a setup function have their op's whole signature, used or not.
# ruff: noqa: ARG001

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rankloom.ops.rows import as_rows, empty_rows, memory_order, row_chunks

LEVELS = 256
"""A drawn byte has this many values: drop probabilities are multiples of 1 / LEVELS."""


def dropped_levels(p: float) -> int:
    """Give how many of a byte's 256 values drop an element, for a probability `p` in [0, 1).

    A positive `p` never becomes zero, and one below 1 never drops everything.
    """
    return min(max(round(p * LEVELS), 1 if p > 0 else 0), LEVELS - 1)


def cheap_dropout(x: Tensor, p: float) -> Tensor:
    """Zero each element with probability `p` rounded to 1/256, and scale the others.

    The scale belongs to the rounded probability, so the mean is kept exactly. The draws come from
    torch's default generator of the device: its saved state resumes them bit for bit.

    Args:
        x: (...).
        p: Probability in [0, 1).
    """
    dropped = dropped_levels(p)
    if not dropped:
        return x
    y: Tensor = _dropout(x, dropped)[0]
    return y


@torch.library.custom_op(
    "rankloom::dropout", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,)
)
def _dropout(x: Tensor, dropped: int) -> tuple[Tensor, Tensor]:
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device)
    draws = words.random_(-(2**63), None).view(torch.uint8)[: x.numel()]
    return _drop(x, x, draws, dropped), draws


@_dropout.register_fake
def _(x: Tensor, dropped: int) -> tuple[Tensor, Tensor]:
    return empty_rows(x), x.new_empty((x.numel(),), dtype=torch.uint8)


@torch.library.custom_op("rankloom::dropout_backward", mutates_args=())
def _dropout_backward(gradient: Tensor, like: Tensor, draws: Tensor, dropped: int) -> Tensor:
    return _drop(gradient, like, draws, dropped)


@_dropout_backward.register_fake
def _(gradient: Tensor, like: Tensor, draws: Tensor, dropped: int) -> Tensor:
    return empty_rows(like)


def _drop(x: Tensor, like: Tensor, draws: Tensor, dropped: int) -> Tensor:
    """Drop elements of `x` by draws that stand in the memory order of `like`."""
    y = empty_rows(like)
    order = memory_order(like)
    rows, out = as_rows(x, order), as_rows(y, order)
    keep_if = draws.view(rows.shape)
    for piece in row_chunks(rows):
        torch.mul(rows[piece], keep_if[piece] >= dropped, out=out[piece])
        out[piece].mul_(LEVELS / (LEVELS - dropped))
    return y


def _setup(ctx: Any, inputs: tuple[Tensor, int], output: tuple[Tensor, Tensor]) -> None:
    # x is saved for its shape and memory order only.
    ctx.save_for_backward(inputs[0], output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.dropped = inputs[1]


def _differentiate(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor, None]:
    x, draws = ctx.saved_tensors
    return _dropout_backward(gradient, x, draws, ctx.dropped), None


_dropout.register_autograd(_differentiate, setup_context=_setup)
