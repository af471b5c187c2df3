"""The newest events of histories.

Shapes: B histories, L events, M rows.
"""

# A fake and a setup function have their op's whole signature, used or not.
# ruff: noqa: ARG001

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def last_rows(x: Tensor, lengths: Tensor, num_rows: int) -> Tensor:
    """Give each history's newest events, oldest of them first; padding behind is zero.

    What `attend` takes for queries of the newest M events; min(lengths, M) of them are real.

    Args:
        x: (B, L, ...). Events first, then padding.
        lengths: (B,) int64. Real events of each history.
        num_rows: M; may be larger than L.

    Returns:
        (B, M, ...).
    """
    rows: Tensor = _last_rows(x, lengths, num_rows)
    return rows


def _index(lengths: Tensor, num_events: int, num_rows: int) -> tuple[Tensor, Tensor]:
    """Give the place (B, M) of each row, and whether it is padding."""
    lengths = lengths.clamp(0, num_events)
    row = torch.arange(num_rows, device=lengths.device)
    place = (lengths - num_rows).clamp(min=0)[:, None] + row
    return place.clamp(max=max(0, num_events - 1)), row >= lengths[:, None]


def _flat(x: Tensor) -> Tensor:
    return x.reshape(*x.shape[:2], -1)


@torch.library.custom_op("rankloom::last_rows", mutates_args=())
def _last_rows(x: Tensor, lengths: Tensor, num_rows: int) -> Tensor:
    place, padding = _index(lengths, x.shape[1], num_rows)
    flat = _flat(x)
    rows = flat.gather(1, place[:, :, None].expand(-1, -1, flat.shape[2]))
    return rows.masked_fill_(padding[:, :, None], 0).view(len(x), num_rows, *x.shape[2:])


@_last_rows.register_fake
def _(x: Tensor, lengths: Tensor, num_rows: int) -> Tensor:
    return x.new_empty((x.shape[0], num_rows, *x.shape[2:]))


@torch.library.custom_op("rankloom::last_rows_backward", mutates_args=())
def _last_rows_backward(gradient: Tensor, lengths: Tensor, num_events: int) -> Tensor:
    place, padding = _index(lengths, num_events, gradient.shape[1])
    flat = _flat(gradient).masked_fill(padding[:, :, None], 0)
    given = flat.new_zeros(len(flat), num_events, flat.shape[2])
    given.scatter_add_(1, place[:, :, None].expand_as(flat), flat)
    return given.view(len(flat), num_events, *gradient.shape[2:])


@_last_rows_backward.register_fake
def _(gradient: Tensor, lengths: Tensor, num_events: int) -> Tensor:
    return gradient.new_empty((gradient.shape[0], num_events, *gradient.shape[2:]))


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.num_events = inputs[0].shape[1]


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    return _last_rows_backward(gradient, ctx.saved_tensors[0], ctx.num_events), None, None


_last_rows.register_autograd(_differentiate, setup_context=_setup)
