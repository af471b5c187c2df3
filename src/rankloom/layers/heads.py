"""Cutting a width into the heads of an attention, and putting them together again."""

from __future__ import annotations

from torch import Tensor


def in_heads(x_BLW: Tensor, num_heads: int) -> Tensor:
    """Cut (B, L, W) into (B, H, L, W / H)."""
    x_BHLd: Tensor = x_BLW.unflatten(2, (num_heads, -1)).transpose(1, 2)
    return x_BHLd


def out_of_heads(x_BHLd: Tensor) -> Tensor:
    """Undo `in_heads`."""
    x_BLW: Tensor = x_BHLd.transpose(1, 2).flatten(2)
    return x_BLW
