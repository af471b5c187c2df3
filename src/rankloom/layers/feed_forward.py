"""Two feed-forward networks with weights per token."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Generator, Tensor, nn

from rankloom.layers.linear import PerTokenLinear
from rankloom.ops import swiglu


class PerTokenFFN(nn.Module):
    """GELU(x W1_t + b1_t) W2_t + b2_t for each token t."""

    def __init__(self, num_tokens: int, dim: int, hidden_dim: int, *, generator: Generator) -> None:
        super().__init__()
        self.up = PerTokenLinear(num_tokens, dim, hidden_dim, generator=generator)
        self.down = PerTokenLinear(num_tokens, hidden_dim, dim, generator=generator)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Apply token t's network to token t; (B, T, D) to (B, T, D)."""
        y: Tensor = self.down(F.gelu(self.up(x_BTD)))
        return y


class PerTokenSwiGLU(nn.Module):
    """(SiLU(x Wg_t + bg_t) * (x Wu_t + bu_t)) Wd_t + bd_t for each token t.

    Wg and Wu stand side by side in one parameter: one matmul reads the input once.
    """

    def __init__(
        self,
        num_tokens: int,
        dim: int,
        hidden_dim: int,
        *,
        out_dim: int | None = None,
        down_std: float | None = None,
        generator: Generator,
    ) -> None:
        """Make the weights.

        Args:
            num_tokens: T.
            dim: Width of a token.
            hidden_dim: Width of the gates, and of the gated values.
            out_dim: Width of the output, if not that of a token.
            down_std: Standard deviation of Wd, small to start near zero; None for Xavier.
            generator: Source of the initial weights.
        """
        super().__init__()
        self.gate_up = PerTokenLinear(num_tokens, dim, 2 * hidden_dim, parts=2, generator=generator)
        self.down = PerTokenLinear(
            num_tokens, hidden_dim, out_dim or dim, std=down_std, generator=generator
        )

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Apply token t's network to token t; (B, T, D) to (B, T, out_dim)."""
        y: Tensor = self.down(swiglu(self.gate_up(x_BTD)))
        return y
