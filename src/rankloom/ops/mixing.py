"""Token mixing and its exact inverse: a permutation of scalars, without parameters."""

from __future__ import annotations

from torch import Tensor


def mix(x_BTD: Tensor, num_heads: int) -> Tensor:
    """Cut each token into slices and give slot h the h-th slice of every token.

    The memory of the result is ordered (H, B, T * D / H): what a batched matmul with weights per
    slot reads best.

    Args:
        x_BTD: (B, T, D).
        num_heads: H, a divisor of D.

    Returns:
        (B, H, T * D / H). With H = T, mixing twice gives `x_BTD` back.
    """
    slices = x_BTD.unflatten(2, (num_heads, x_BTD.shape[2] // num_heads))
    return slices.permute(2, 0, 1, 3).flatten(2).transpose(0, 1)


def revert(x_BHW: Tensor, num_tokens: int) -> Tensor:
    """Undo `mix` exactly.

    Args:
        x_BHW: (B, H, T * D / H). What `mix` gave.
        num_tokens: T.

    Returns:
        (B, T, D).
    """
    return mix(x_BHW, num_tokens)
