"""All features side by side.

Paper: none; it is how CTR models before tokens read their features.
Layer: x = f_1 | f_2 | ... | 0 in the order of the features.
Differs from the paper: zero columns round the width up, because odd widths slow matmuls down.
Cost: 0 parameters; 0 multiply-adds per row.
Shapes: B rows, D sum of the features' widths, rounded up.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Generator, Tensor, nn

from rankloom.config import Config
from rankloom.layers.protocols import Inputs, Layout, Takes, TokenLayout


class FlatConfig(Config):
    """Hyper-parameters of `Flat`."""

    kind: Literal["flat"] = "flat"
    """Name of the tokenization."""
    multiple: PositiveInt = 16
    """What the width is a multiple of, by columns of zeros: matmuls of odd widths are up to 1.9x
    slower. 1 for none."""


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
        del generator  # Nothing is drawn.
        self.names = tuple(layout.features)
        width = sum(feature.width for feature in layout.features.values())
        self.num_zeros = -width % config.multiple
        self.tokens = TokenLayout(gives="flat", dim=width + self.num_zeros)

    def forward(self, inputs: Inputs) -> Tensor:
        """Give (B, D)."""
        columns = [inputs.features[name] for name in self.names]
        if self.num_zeros:
            columns.append(columns[0].new_zeros(columns[0].shape[0], self.num_zeros))
        return torch.cat(columns, dim=1)
