"""A plain partner for tokenizations that give fields, for the contract only."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from torch import Generator, Tensor, nn

from rankloom.config import Config
from rankloom.layers.mlp import MLP
from rankloom.layers.protocols import Candidates, Layout, Takes


class FieldsProbeConfig(Config):
    """Hyper-parameters of `FieldsProbe`: none."""


class FieldsState(NamedTuple):
    """The fields."""

    x: Tensor
    """(B, F, d)."""


class FieldsProbe(nn.Module):
    """An MLP on all fields side by side."""

    Config: ClassVar[type[Config]] = FieldsProbeConfig
    takes: ClassVar[Takes] = "fields"
    candidates: ClassVar[Candidates] = "independent"

    def __init__(self, config: FieldsProbeConfig, layout: Layout, *, generator: Generator) -> None:
        super().__init__()
        del config
        assert layout.tokens is not None
        width = layout.tokens.num_tokens * layout.tokens.dim
        self.mlp = MLP(width, (24, 16), generator=generator)
        self.layers = nn.ModuleList()
        self.out_dim = self.mlp.out_dim
        self.auxiliary_after: tuple[int, ...] = ()

    def embed_in(self, tokens: Tensor) -> FieldsState:
        """Take (B, F, d) as the state."""
        return FieldsState(tokens)

    def features(self, state: FieldsState) -> Tensor:
        """Give (B, F, d)."""
        return state.x

    def readout(self, state: FieldsState) -> Tensor:
        """Give (B, 16)."""
        hidden: Tensor = self.mlp(state.x.flatten(1))
        return hidden
