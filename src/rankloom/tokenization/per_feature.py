"""One token per feature.

Paper: none; FT-Transformer and AutoInt tokenize so, the projection lets widths differ.
Layer: x_f = f W_f + b_f for feature f.
Differs from the paper: nothing.
Cost: D * inputs + T * D parameters; D * inputs multiply-adds per row.
Shapes: B rows, T tokens (one a feature) of width D, inputs the sum of the features' widths.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Generator, Tensor, nn

from rankloom.config import Config
from rankloom.layers.linear import PerTokenLinear
from rankloom.layers.protocols import Inputs, Layout, Takes, TokenLayout, Tokens
from rankloom.schema import Rate
from rankloom.tokenization.by_rate import TOKEN_RATES, assemble, token_rate


class PerFeatureConfig(Config):
    """Hyper-parameters of `PerFeature`."""

    kind: Literal["per_feature"] = "per_feature"
    """Name of the tokenization."""
    token_dim: PositiveInt = 64
    """Width of a token."""


class _SameWidth(nn.Module):
    """Features of one rate and one width, projected by one batched matmul."""

    def __init__(
        self, names: tuple[str, ...], width: int, dim: int, *, generator: Generator
    ) -> None:
        super().__init__()
        self.names = names
        self.project = PerTokenLinear(len(names), width, dim, generator=generator)

    def forward(self, inputs: Inputs) -> Tensor:
        # Stacked on the first dimension, which is how the batched matmul reads them.
        x_TBI = torch.stack([inputs.features[name] for name in self.names])
        y: Tensor = self.project(x_TBI.transpose(0, 1))
        return y


class PerFeature(nn.Module):
    """Projects each feature to a token; features of one rate and width share a matmul.

    Tokens stand by rate, within a rate by width, and then in the order of the features.

    Example:
        >>> PerFeatureConfig(token_dim=32).token_dim
        32
    """

    Config: ClassVar[type[Config]] = PerFeatureConfig
    gives: ClassVar[Takes] = "tokens"

    def __init__(self, config: PerFeatureConfig, layout: Layout, *, generator: Generator) -> None:
        super().__init__()
        batches: dict[tuple[Rate, int], list[str]] = {}
        for name, feature in layout.features.items():
            batches.setdefault((token_rate(feature.rate), feature.width), []).append(name)
        self.projections = nn.ModuleList(
            _SameWidth(tuple(names), width, config.token_dim, generator=generator)
            for (_, width), names in sorted(batches.items())
        )
        self.rates = tuple(rate for rate, _ in sorted(batches))
        self.inputs = sum(feature.width for feature in layout.features.values())
        counts = [
            sum(len(names) for (rate, _), names in batches.items() if rate == wanted)
            for wanted in TOKEN_RATES
        ]
        self.tokens = TokenLayout(
            gives="tokens",
            num_user=counts[0],
            num_request=counts[1],
            num_candidate=counts[2],
            dim=config.token_dim,
        )

    def cost_letters(self) -> dict[str, int]:
        """Give the sum of the features' widths."""
        return {"inputs": self.inputs}

    def forward(self, inputs: Inputs) -> Tokens:
        """Give the tokens by rate."""
        make = {rate: partial(self._of_rate, inputs, rate) for rate in self.rates}
        return assemble(inputs, make, self.tokens.dim)

    def _of_rate(self, inputs: Inputs, rate: Rate) -> Tensor:
        parts = [
            project(inputs)
            for project, own in zip(self.projections, self.rates, strict=True)
            if own == rate
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
