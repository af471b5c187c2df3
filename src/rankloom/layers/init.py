"""Initial values with explicit fans, from an explicit generator.

torch's own initialisers read the fans off the shape, which is wrong for weights of shape
(T, in, out): they would multiply T or out into them.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor


@torch.no_grad()
def xavier_uniform_(weight: Tensor, *, fan_in: int, fan_out: int, generator: Generator) -> Tensor:
    """Fill with U(-a, a), a = sqrt(6 / (fan_in + fan_out)), in place.

    Args:
        weight: (...). Every slice of it has the given fans.
        fan_in: Inputs of one output of a slice.
        fan_out: Outputs that one input of a slice reaches.
        generator: Source of the draws.
    """
    bound = math.sqrt(6.0 / (fan_in + fan_out))
    return weight.uniform_(-bound, bound, generator=generator)


@torch.no_grad()
def normal_(weight: Tensor, *, std: float, generator: Generator) -> Tensor:
    """Fill with N(0, std^2), in place."""
    return weight.normal_(0.0, std, generator=generator)
