"""One vector per feature, as it is: the input of factorization machines and their kin.

Paper: none; a field is a feature's embedding.
Layer: X = [f_1, f_2, ...], rows in the order of the features.
Differs from the paper: nothing.
Cost: 0 parameters; 0 multiply-adds per row.
Shapes: B rows, F features, D width that all of them share.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn

from rankloom.config import Config
from rankloom.errors import SchemaError
from rankloom.layers.protocols import Inputs, Layout, Takes, TokenLayout


class FieldsConfig(Config):
    """Hyper-parameters of `Fields`: none."""

    kind: Literal["fields"] = "fields"
    """Name of the tokenization."""


class Fields(nn.Module):
    """Stacks the features, which must have one width.

    Example:
        >>> FieldsConfig().kind
        'fields'

    Raises:
        SchemaError: The widths differ; the message names the odd ones.
    """

    Config: ClassVar[type[Config]] = FieldsConfig
    gives: ClassVar[Takes] = "fields"

    def __init__(self, config: FieldsConfig, layout: Layout, *, generator: Generator) -> None:
        super().__init__()
        del config, generator  # Nothing is configured and nothing is drawn.
        widths = {name: feature.width for name, feature in layout.features.items()}
        dim = Counter(widths.values()).most_common(1)[0][0]
        odd = ", ".join(f"{name}={width}" for name, width in sorted(widths.items()) if width != dim)
        if odd:
            raise SchemaError(
                f"model.tokenization: fields need one width for all features. Got {odd}; the "
                f"others have {dim}. Set the same embedding_dim, or use kind per_feature."
            )
        self.names = tuple(widths)
        self.tokens = TokenLayout(gives="fields", num_candidate=len(widths), dim=dim)

    def forward(self, inputs: Inputs) -> Tensor:
        """Give (B, F, D)."""
        return torch.stack([inputs.features[name] for name in self.names], dim=1)
