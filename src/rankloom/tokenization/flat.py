"""All features side by side.

Paper: none; it is how CTR models before tokens read their features.
Layer: x = f_1 | f_2 | ... in the order of the features.
Differs from the paper: nothing.
Cost: 0 parameters; 0 multiply-adds per row.
Shapes: B rows, D sum of the features' widths.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn

from rankloom.config import Config
from rankloom.layers.protocols import Inputs, Layout, Takes, TokenLayout


class FlatConfig(Config):
    """Hyper-parameters of `Flat`: none."""

    kind: Literal["flat"] = "flat"
    """Name of the tokenization."""


class Flat(nn.Module):
    """Concatenates every feature.

    Example:
        >>> FlatConfig().kind
        'flat'
    """

    Config: ClassVar[type[Config]] = FlatConfig
    gives: ClassVar[Takes] = "flat"

    def __init__(self, config: FlatConfig, layout: Layout, *, generator: Generator) -> None:
        super().__init__()
        del config, generator  # Nothing is configured and nothing is drawn.
        self.names = tuple(layout.features)
        width = sum(feature.width for feature in layout.features.values())
        self.tokens = TokenLayout(gives="flat", dim=width)

    def forward(self, inputs: Inputs) -> Tensor:
        """Give (B, D)."""
        return torch.cat([inputs.features[name] for name in self.names], dim=1)
