"""Dropout as a module, with cheap random draws."""

from __future__ import annotations

from torch import Tensor, nn

from rankloom.ops import cheap_dropout


class Dropout(nn.Module):
    """Zero elements with probability `p`, rounded to 1/256, while training; identity otherwise."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of (...)."""
        return cheap_dropout(x, self.p) if self.training else x

    def extra_repr(self) -> str:
        """Show the probability."""
        return f"p={self.p}"
