"""Dense features: standardized, logarithmic, or the bucket they fall in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rankloom.data.statistics import Moments, Quantiles, Statistics
from rankloom.errors import SchemaError
from rankloom.schema import DenseFeature, LinearEncoding, LogEncoding


class LinearEncoder(nn.Module):
    """(x - mean) / deviation."""

    mean: Tensor
    scale: Tensor

    def __init__(self, moments: Moments) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(moments.mean))
        self.register_buffer("scale", torch.tensor(1.0 / moments.deviation))

    def forward(self, values: Tensor) -> Tensor:
        """Give (B, 1) from (B,)."""
        return ((values - self.mean) * self.scale).unsqueeze(1)


class LogEncoder(nn.Module):
    """sign(x) * log(1 + |x|)."""

    def forward(self, values: Tensor) -> Tensor:
        """Give (B, 1) from (B,)."""
        return (values.sign() * values.abs().log1p()).unsqueeze(1)


class QuantileEncoder(nn.Module):
    """The row of a table: 0 for missing, then one per bucket."""

    boundaries: Tensor

    def __init__(self, quantiles: Quantiles) -> None:
        super().__init__()
        boundaries = torch.tensor(quantiles.boundaries, dtype=torch.float32)
        self.register_buffer("boundaries", boundaries)

    @property
    def num_embeddings(self) -> int:
        """Rows its table needs."""
        return len(self.boundaries) + 2

    def forward(self, values: Tensor) -> Tensor:
        """Give (B,) int64 rows from (B,) numbers, NaN for missing."""
        rows = torch.bucketize(values, self.boundaries, right=True) + 1
        return rows.masked_fill(values.isnan(), 0)


def numeric_encoder(
    name: str, feature: DenseFeature, statistics: Statistics | None
) -> LinearEncoder | LogEncoder | QuantileEncoder:
    """Build the encoder that a dense feature asks for.

    Raises:
        SchemaError: It needs statistics of the training log and there are none.
    """
    encode = feature.encode
    if isinstance(encode, LogEncoding):
        return LogEncoder()
    if isinstance(encode, LinearEncoding) and not encode.standardize:
        return LinearEncoder(Moments(0.0, 1.0))
    if isinstance(encode, LinearEncoding) and isinstance(statistics, Moments):
        return LinearEncoder(statistics)
    if isinstance(statistics, Quantiles):
        return QuantileEncoder(statistics)
    raise SchemaError(
        f"schema.{name}.encode: needs statistics of the training log. Got none. Fit the transforms "
        "on the training log first."
    )
