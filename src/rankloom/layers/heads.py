"""Cutting a width into the heads of an attention, and putting them together again."""

from __future__ import annotations

from torch import Tensor

from rankloom.layers.divisors import nearest_divisors


def head_problems(path: str, *, dim: int, num_heads: int) -> list[str]:
    """Say that a number of heads does not divide a width, if it does not.

    Args:
        path: Of the config in the run file.
        dim: W.
        num_heads: H.
    """
    if dim % num_heads == 0:
        return []
    nearest = ", ".join(map(str, nearest_divisors(dim, num_heads)))
    return [
        f"{path}.num_heads: must divide dim={dim}. Got {num_heads}. Nearest that work: {nearest}."
    ]


def in_heads(x_BLW: Tensor, num_heads: int) -> Tensor:
    """Cut (B, L, W) into (B, H, L, W / H)."""
    x_BHLd: Tensor = x_BLW.unflatten(2, (num_heads, -1)).transpose(1, 2)
    return x_BHLd


def out_of_heads(x_BHLd: Tensor) -> Tensor:
    """Undo `in_heads`."""
    x_BLW: Tensor = x_BHLd.transpose(1, 2).flatten(2)
    return x_BLW
