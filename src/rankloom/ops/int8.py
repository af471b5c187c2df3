"""Symmetric int8: a weight as whole numbers of a scale."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 127


def quantize(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Round to int8, with one scale for all values along a dimension.

    Args:
        x: Of a float type.
        dim: Along which values share a scale: a weight's input, a table's width.

    Returns:
        values: int8, of the shape of `x`; -127 to 127.
        scale: float32, of size 1 along `dim`; 1 where all values are 0. `values * scale` is off by
            half a scale at most.
    """
    scale = x.abs().amax(dim=dim, keepdim=True).float() / LARGEST
    scale = torch.where(scale > 0, scale, 1.0)
    return (x / scale).round().clamp(-LARGEST, LARGEST).to(torch.int8), scale


@torch.library.custom_op("rankloom::dequantize", mutates_args=())
def dequantize(values: Tensor, scale: Tensor) -> Tensor:
    """Give `values * scale` in the scale's type: a weight that a file holds in int8."""
    return values * scale


@dequantize.register_fake
def _(values: Tensor, scale: Tensor) -> Tensor:
    return torch.empty(values.shape, dtype=scale.dtype, device=values.device)
