"""Logistic regression.

Paper: Richardson et al., "Predicting Clicks", WWW 2007, doi:10.1145/1242572.1242643.
Layer: none; the logit is w x + b over the concatenated features, and w, b are the head's.
Differs from the paper: features are embedded, so each id has a weight per embedding column.
Cost: 0 parameters; 0 multiply-adds per row.
Shapes: B rows, D width of the concatenated features.
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

from torch import Generator, Tensor, nn

from rankloom.config import Config
from rankloom.layers.protocols import Candidates, Layout, Takes


class LinearConfig(Config):
    """Hyper-parameters of `Linear`: none."""

    kind: Literal["linear"] = "linear"
    """Name of the architecture."""


class LinearState(NamedTuple):
    """The input itself."""

    x: Tensor
    """(B, D)."""


class Linear(nn.Module):
    """Hands the features to the head unchanged; with a head of one layer a linear model.

    Example:
        >>> LinearConfig().kind
        'linear'
    """

    Config: ClassVar[type[Config]] = LinearConfig
    takes: ClassVar[Takes] = "flat"
    candidates: ClassVar[Candidates] = "independent"
    beats_linear: ClassVar[bool] = False

    def __init__(self, config: LinearConfig, layout: Layout, *, generator: Generator) -> None:
        super().__init__()
        del config, generator  # Nothing is configured and nothing is drawn.
        assert layout.tokens is not None
        self.layers = nn.ModuleList()
        self.out_dim = layout.tokens.dim
        self.auxiliary_after: tuple[int, ...] = ()

    def embed_in(self, tokens: Tensor) -> LinearState:
        """Take (B, D) as the state."""
        return LinearState(tokens)

    def features(self, state: LinearState) -> Tensor:
        """Give (B, 1, D)."""
        return state.x[:, None]

    def readout(self, state: LinearState) -> Tensor:
        """Give (B, D)."""
        return state.x
