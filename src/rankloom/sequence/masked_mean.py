"""Mean over the events of a history.

Paper: none; the pooling of "Deep Neural Networks for YouTube Recommendations" (RecSys 2016).
Layer: v = sum_l m_l e_l / max(1, sum_l m_l) with mask m.
Differs from the paper: nothing.
Cost: 0 parameters; 0 multiply-adds per row.
Shapes: B rows, L events of width D.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

from torch import Generator, Tensor, nn

from rankloom.config import Config
from rankloom.layers.protocols import Inputs, SequenceLayout


class MaskedMeanConfig(Config):
    """Hyper-parameters of `MaskedMean`: none."""

    kind: Literal["masked_mean"] = "masked_mean"
    """Name of the encoder."""


class MaskedMeanState(NamedTuple):
    """The mean."""

    mean: Tensor
    """(B, D). Zero for an empty history."""


class MaskedMean(nn.Module):
    """Averages the events that are there; an empty history gives zeros.

    Example:
        >>> MaskedMeanConfig().kind
        'masked_mean'
    """

    Config: ClassVar[type[Config]] = MaskedMeanConfig
    reads_candidate: ClassVar[bool] = False

    def __init__(
        self, config: MaskedMeanConfig, layout: SequenceLayout, *, generator: Generator
    ) -> None:
        super().__init__()
        del config, generator  # Nothing is configured and nothing is drawn.
        self.num_tokens = 1
        self.out_dim = layout.width

    def encode(self, events: Tensor, mask: Tensor, times: Mapping[str, Tensor]) -> MaskedMeanState:
        """Average (B, L, D) events under a (B, L) mask."""
        del times
        total_BD = events.masked_fill(~mask[:, :, None], 0.0).sum(dim=1)
        return MaskedMeanState(total_BD / mask.sum(dim=1, keepdim=True).clamp(min=1))

    def read(self, state: MaskedMeanState, candidate: Tensor | None, inputs: Inputs) -> Tensor:
        """Give the mean as one token (B, 1, D)."""
        del candidate, inputs
        return state.mean[:, None]
