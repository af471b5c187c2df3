"""Norms as modules; they compute in at least fp32 (see `rankloom.ops.precision`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rankloom.ops import layer_norm_fp32, rms_norm_fp32


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension, with a learned scale."""

    def __init__(self, dim: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., dim)."""
        return rms_norm_fp32(x, self.weight, eps=self.eps)


class LayerNorm(nn.Module):
    """Layer norm over the last dimension, with a learned scale and shift."""

    def __init__(self, dim: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., dim)."""
        return layer_norm_fp32(x, self.weight, self.bias, eps=self.eps)
