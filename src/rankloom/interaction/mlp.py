"""The deep network of CTR models (DNN): an MLP over the concatenated features.

Paper: Cheng et al., "Wide & Deep Learning for Recommender Systems", DLRS 2016, arXiv:1606.07792.
Layer: a_{l+1} = f(W_l a_l + b_l), the deep component of section 3.2.
Differs from the paper: no wide component; a norm and dropout by option.
Cost: products + (1 + norms) * widths parameters; products multiply-adds per row.
Shapes: B rows, D width of the concatenated features.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field, PositiveInt
from torch import Generator, Tensor, nn

from rankloom.config import Config
from rankloom.layers.mlp import MLP, Activation, NormKind
from rankloom.layers.protocols import Candidates, Layout, Takes


class DeepNetworkConfig(Config):
    """Hyper-parameters of `DeepNetwork` (arXiv:1606.07792)."""

    kind: Literal["mlp"] = "mlp"
    """Name of the architecture."""
    hidden_dims: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (400, 400, 400)
    """Widths of the hidden layers."""
    activation: Activation = "relu"
    """Activation after each hidden layer."""
    norm: NormKind = "none"
    """Norm before each activation; `batch` helps small CTR data but mixes rows while training."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping an element after each hidden layer, rounded to 1/256."""


class DeepNetworkState(NamedTuple):
    """What a hidden layer gave."""

    x: Tensor
    """(B, width of the layer)."""


class _Layer(nn.Module):
    """One hidden layer as a step of the state."""

    def __init__(self, hidden: nn.Module) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, state: DeepNetworkState) -> DeepNetworkState:
        return DeepNetworkState(self.hidden(state.x))


class DeepNetwork(nn.Module):
    """Hidden layers over one flat vector.

    Example:
        >>> DeepNetworkConfig(hidden_dims=(64, 32)).hidden_dims
        (64, 32)
    """

    Config: ClassVar[type[Config]] = DeepNetworkConfig
    takes: ClassVar[Takes] = "flat"
    candidates: ClassVar[Candidates] = "independent"

    def __init__(self, config: DeepNetworkConfig, layout: Layout, *, generator: Generator) -> None:
        super().__init__()
        assert layout.tokens is not None
        mlp = MLP(
            layout.tokens.dim,
            config.hidden_dims,
            activation=config.activation,
            norm=config.norm,
            dropout=config.dropout,
            generator=generator,
        )
        self.config = config
        self.layers = nn.ModuleList(_Layer(hidden) for hidden in mlp.layers)
        self.in_dim = layout.tokens.dim
        self.out_dim = mlp.out_dim
        self.auxiliary_after: tuple[int, ...] = ()

    def cost_letters(self) -> dict[str, int]:
        """Give the sums over layers that the `Cost:` line names."""
        widths = (self.in_dim, *self.config.hidden_dims)
        return {
            "products": sum(a * b for a, b in pairwise(widths)),
            "widths": sum(self.config.hidden_dims),
            "norms": 0 if self.config.norm == "none" else 2,
        }

    def embed_in(self, tokens: Tensor) -> DeepNetworkState:
        """Take (B, D) as the state."""
        return DeepNetworkState(tokens)

    def features(self, state: DeepNetworkState) -> Tensor:
        """Give (B, 1, width)."""
        return state.x[:, None]

    def readout(self, state: DeepNetworkState) -> Tensor:
        """Give (B, width); after the last layer (B, out_dim)."""
        return state.x
