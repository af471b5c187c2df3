"""Linear layers with explicit initialisation: one for all rows, or one per token."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from rankloom.layers.init import normal_, xavier_uniform_


def linear(in_dim: int, out_dim: int, *, bias: bool = True, generator: Generator) -> nn.Linear:
    """Make a linear layer with Xavier-uniform weights and a zero bias.

    Args:
        in_dim: Width of the input.
        out_dim: Width of the output.
        bias: Whether to add a bias.
        generator: Source of the initial weights.
    """
    device = torch.get_default_device()
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, in_dim, out_dim, bias=bias, device=device)
    xavier_uniform_(layer.weight, fan_in=in_dim, fan_out=out_dim, generator=generator)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class PerTokenLinear(nn.Module):
    """One linear layer per token, evaluated as one batched matmul.

    Example:
        >>> layer = PerTokenLinear(4, 8, 16, generator=torch.Generator().manual_seed(0))
        >>> layer(torch.zeros(2, 4, 8)).shape
        torch.Size([2, 4, 16])
    """

    def __init__(
        self,
        num_tokens: int,
        in_dim: int,
        out_dim: int,
        *,
        parts: int = 1,
        std: float | None = None,
        generator: Generator,
    ) -> None:
        """Make the weights.

        Args:
            num_tokens: T.
            in_dim: Width of a token.
            out_dim: Width of its output.
            parts: Outputs that are this many layers side by side, each initialised by its own fans.
            std: Standard deviation of normal weights; None for Xavier-uniform ones.
            generator: Source of the initial weights.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_tokens, in_dim, out_dim))
        self.bias = nn.Parameter(torch.zeros(num_tokens, out_dim))
        if std is None:
            fan_out = out_dim // parts
            xavier_uniform_(self.weight, fan_in=in_dim, fan_out=fan_out, generator=generator)
        else:
            normal_(self.weight, std=std, generator=generator)

    def forward(self, x_BTI: Tensor) -> Tensor:
        """Apply token t's weights to token t.

        Args:
            x_BTI: (B, T, in), in any memory order; (T, B, in) is read fastest.

        Returns:
            (B, T, out), in memory ordered (T, B, out).
        """
        x_TBI = x_BTI.transpose(0, 1)
        return torch.baddbmm(self.bias[:, None], x_TBI, self.weight).transpose(0, 1)
