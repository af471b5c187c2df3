"""Repeat each request's values for its rows: the one place where rates meet."""

# A fake and a setup function have their op's whole signature, used or not.
# ruff: noqa: ARG001

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def expand(x: Tensor, request_index: Tensor) -> Tensor:
    """Give each row the value of its request.

    Args:
        x: (R, ...). One value a request.
        request_index: (B,) int64, in [0, R). The request of each row.

    Returns:
        (B, ...). Row b is `x[request_index[b]]`.
    """
    expanded: Tensor = _expand(x, request_index)
    return expanded


@torch.library.custom_op("rankloom::expand", mutates_args=())
def _expand(x: Tensor, request_index: Tensor) -> Tensor:
    return x.index_select(0, request_index)


@_expand.register_fake
def _(x: Tensor, request_index: Tensor) -> Tensor:
    return x.new_empty((request_index.shape[0], *x.shape[1:]))


@torch.library.custom_op("rankloom::expand_backward", mutates_args=())
def _expand_backward(gradient: Tensor, request_index: Tensor, num_requests: int) -> Tensor:
    return sum_rows(gradient, request_index, num_requests)


@_expand_backward.register_fake
def _(gradient: Tensor, request_index: Tensor, num_requests: int) -> Tensor:
    return gradient.new_empty((num_requests, *gradient.shape[1:]))


def sum_rows(values: Tensor, index: Tensor, num_rows: int) -> Tensor:
    """Sum the values of each index, in at least fp32.

    Args:
        values: (B, ...).
        index: (B,) int64, in [0, num_rows).
        num_rows: Rows of the result.

    Returns:
        (num_rows, ...). Zero where no value points.
    """
    # On GPU, sums of bf16 would be bf16 sums: the 257th one added to 256 ones is lost.
    wide = torch.promote_types(values.dtype, torch.float32)
    sums = values.new_zeros((num_rows, *values.shape[1:]), dtype=wide)
    return sums.index_add_(0, index, values.to(wide)).to(values.dtype)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    x, request_index = inputs
    ctx.save_for_backward(request_index)
    ctx.num_requests = x.shape[0]


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    (request_index,) = ctx.saved_tensors
    return _expand_backward(gradient, request_index, ctx.num_requests), None


_expand.register_autograd(_backward, setup_context=_setup)
