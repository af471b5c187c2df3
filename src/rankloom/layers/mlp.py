"""Multi-layer perceptron with optional norms and dropout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

from torch import Generator, Tensor, nn

from rankloom.layers.dropout import Dropout
from rankloom.layers.linear import linear
from rankloom.layers.norm import LayerNorm

Activation = Literal["relu", "gelu", "silu", "tanh"]
"""Names of activations a run file may use."""

NormKind = Literal["none", "layer", "batch"]
"""Names of norms between a hidden layer and its activation; `batch` looks across rows."""

ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
NORMS: dict[NormKind, Callable[[int], nn.Module] | None] = {
    "none": None,
    "layer": LayerNorm,
    "batch": nn.BatchNorm1d,
}


class HiddenLayer(nn.Sequential):
    """Linear, norm, activation, dropout; parts that are switched off are left out."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        activation: Activation = "relu",
        norm: NormKind = "none",
        dropout: float = 0.0,
        generator: Generator,
    ) -> None:
        make_norm = NORMS[norm]
        super().__init__(
            linear(in_dim, out_dim, generator=generator),
            *([make_norm(out_dim)] if make_norm else []),
            ACTIVATIONS[activation](),
            *([Dropout(dropout)] if dropout else []),
        )


class MLP(nn.Module):
    """Hidden layers in a row; the identity when there is none.

    Example:
        >>> from torch import Generator
        >>> mlp = MLP(8, (16, 4), generator=Generator().manual_seed(0))
        >>> mlp.out_dim
        4
    """

    def __init__(
        self,
        in_dim: int,
        hidden_dims: Sequence[int],
        *,
        activation: Activation = "relu",
        norm: NormKind = "none",
        dropout: float = 0.0,
        generator: Generator,
    ) -> None:
        super().__init__()
        widths = (in_dim, *hidden_dims)
        self.layers = nn.ModuleList(
            HiddenLayer(
                width_in,
                width_out,
                activation=activation,
                norm=norm,
                dropout=dropout,
                generator=generator,
            )
            for width_in, width_out in pairwise(widths)
        )
        self.out_dim = widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers to (B, in_dim); gives (B, out_dim)."""
        for layer in self.layers:
            x = layer(x)
        return x
