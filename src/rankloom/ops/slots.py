"""From rows to the places of their requests, and back."""

# A fake and a setup function have their op's whole signature, used or not.
# ruff: noqa: ARG001

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rankloom.ops.expand import sum_rows


def to_slots(x: Tensor, slots: Tensor) -> Tensor:
    """Put each request's rows side by side; padding places hold zeros.

    Args:
        x: (B, ...).
        slots: (R, N) int64. Row of each place, B for padding.

    Returns:
        (R, N, ...).
    """
    placed: Tensor = _to_slots(x, slots)
    return placed


def from_slots(x: Tensor, slot_of_row: Tensor) -> Tensor:
    """Undo `to_slots`.

    Args:
        x: (R, N, ...).
        slot_of_row: (B,) int64. Place of each row in the flattened (R * N) places.

    Returns:
        (B, ...).
    """
    rows: Tensor = _from_slots(x, slot_of_row)
    return rows


@torch.library.custom_op("rankloom::to_slots", mutates_args=())
def _to_slots(x: Tensor, slots: Tensor) -> Tensor:
    padded = torch.cat((x, x.new_zeros((1, *x.shape[1:]))))
    return padded.index_select(0, slots.flatten()).unflatten(0, slots.shape)


@_to_slots.register_fake
def _(x: Tensor, slots: Tensor) -> Tensor:
    return x.new_empty((*slots.shape, *x.shape[1:]))


@torch.library.custom_op("rankloom::to_slots_backward", mutates_args=())
def _to_slots_backward(gradient: Tensor, slots: Tensor, num_rows: int) -> Tensor:
    return sum_rows(gradient.flatten(0, 1), slots.flatten(), num_rows + 1)[:-1].clone()


@_to_slots_backward.register_fake
def _(gradient: Tensor, slots: Tensor, num_rows: int) -> Tensor:
    return gradient.new_empty((num_rows, *gradient.shape[2:]))


def _setup_to_slots(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.num_rows = inputs[0].shape[0]


def _differentiate_to_slots(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    return _to_slots_backward(gradient, ctx.saved_tensors[0], ctx.num_rows), None


_to_slots.register_autograd(_differentiate_to_slots, setup_context=_setup_to_slots)


@torch.library.custom_op("rankloom::from_slots", mutates_args=())
def _from_slots(x: Tensor, slot_of_row: Tensor) -> Tensor:
    return x.flatten(0, 1).index_select(0, slot_of_row)


@_from_slots.register_fake
def _(x: Tensor, slot_of_row: Tensor) -> Tensor:
    return x.new_empty((slot_of_row.shape[0], *x.shape[2:]))


@torch.library.custom_op("rankloom::from_slots_backward", mutates_args=())
def _from_slots_backward(
    gradient: Tensor, slot_of_row: Tensor, num_requests: int, num_candidates: int
) -> Tensor:
    flat = sum_rows(gradient, slot_of_row, num_requests * num_candidates)
    return flat.unflatten(0, (num_requests, num_candidates))


@_from_slots_backward.register_fake
def _(gradient: Tensor, slot_of_row: Tensor, num_requests: int, num_candidates: int) -> Tensor:
    return gradient.new_empty((num_requests, num_candidates, *gradient.shape[1:]))


def _setup_from_slots(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.shape = inputs[0].shape[:2]


def _differentiate_from_slots(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    return _from_slots_backward(gradient, ctx.saved_tensors[0], *ctx.shape), None


_from_slots.register_autograd(_differentiate_from_slots, setup_context=_setup_from_slots)
