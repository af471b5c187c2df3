"""Random histories for the tests of attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rankloom.ops import Bias, Mask, Weighting

WEIGHTINGS = [
    Weighting(kind="softmax", scale=0.5),
    Weighting(kind="silu", scale=0.5, divisor=7.0),
]
MASKS = [
    Mask(),
    Mask(causal=False),
    Mask(window=1),
    Mask(window=5),
    Mask(window=5, prefix=3),
    Mask(window=9, full_rows=6),
    Mask(window=40, prefix=4, full_rows=3),
    Mask(window=4, prefix=45),
]
NUM_HISTORIES, NUM_HEADS, WIDTH = 3, 2, 4


def draw(
    length: int, rows: int, *, value_dim: int = WIDTH, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Give queries, keys, values and lengths: a full history, half a one, and an empty one."""
    generator = torch.Generator().manual_seed(seed)

    def one(count: int, width: int) -> Tensor:
        shape = (NUM_HISTORIES, NUM_HEADS, count, width)
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    lengths = torch.tensor([length, length // 2, 0])
    return one(rows, WIDTH), one(length, WIDTH), one(length, value_dim), lengths


def draw_bias(length: int, *, num_tables: int, seed: int = 1) -> Bias:
    """Give tables with some entries fewer than there are distances, and times with equal ones."""
    generator = torch.Generator().manual_seed(seed)

    def table(size: int) -> Tensor:
        drawn = torch.randn(num_tables, size, generator=generator, dtype=torch.float64)
        return drawn.requires_grad_()

    steps = torch.randint(0, 5, (NUM_HISTORIES, length), generator=generator)
    return Bias(table(length // 2), table(5), steps.cumsum(1))


def gradients(out: Tensor, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    """Differentiate a sum with fixed weights."""
    generator = torch.Generator().manual_seed(2)
    weights: Any = torch.randn(out.shape, generator=generator, dtype=out.dtype)
    return torch.autograd.grad(out, leaves, weights)
