"""Architectures that each break one promise; the contract must catch every one of them.

Paper: none.
Layer: an MLP with a flaw.
Differs from the paper: nothing.
Cost: D * 16 + 16 parameters; D * 16 multiply-adds per row.
Shapes: B rows, D width of the concatenated features.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Generator, Tensor, nn

from rankloom import Config
from rankloom.layers.linear import linear


class SoundConfig(Config):
    gain: float = 1.0


class SoundState(NamedTuple):
    x: Tensor


class Sound(nn.Module):
    """Keeps every promise; the doubles below differ from it by their flaw alone."""

    Config: ClassVar[type[Config]] = SoundConfig
    takes: ClassVar[str] = "flat"
    candidates: ClassVar[str] = "independent"

    def __init__(self, config, layout, *, generator: Generator) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.hidden = linear(layout.tokens.dim, 16, generator=generator)
        self.out_dim = 16
        self.auxiliary_after = ()

    def embed_in(self, tokens: Tensor) -> SoundState:
        return SoundState(tokens)

    def features(self, state: SoundState) -> Tensor:
        return state.x[:, None]

    def readout(self, state: SoundState) -> Tensor:
        return torch.relu(self.hidden(state.x))


class MixesRows(Sound):
    def readout(self, state):
        hidden = super().readout(state)
        return hidden + hidden.mean(dim=0)


class HasIdleParameter(Sound):
    def __init__(self, config, layout, *, generator):
        super().__init__(config, layout, generator=generator)
        self.idle = nn.Parameter(torch.zeros(3))


class Overflows(Sound):
    def readout(self, state):
        return super().readout(state).exp()


class IgnoresItsGenerator(Sound):
    def __init__(self, config, layout, *, generator):
        super().__init__(config, layout, generator=generator)
        nn.init.normal_(self.hidden.weight)


class IsLinear(Sound):
    def readout(self, state):
        return self.hidden(state.x)


class BranchesOnData(Sound):
    def readout(self, state):
        if state.x.sum() > 0:
            return super().readout(state)
        return -super().readout(state)


class HidesState(Sound):
    def __init__(self, config, layout, *, generator):
        super().__init__(config, layout, generator=generator)
        self.shift = float(torch.rand(1, generator=generator))

    def readout(self, state):
        return super().readout(state) + self.shift


class SeesPadding(nn.Module):
    """A history encoder whose mean divides by the padded length."""

    Config: ClassVar[type[Config]] = SoundConfig
    reads_candidate: ClassVar[bool] = False

    def __init__(self, config, layout, *, generator):
        super().__init__()
        self.num_tokens, self.out_dim = 1, layout.width

    def encode(self, events, mask, times):
        return (events * mask.unsqueeze(2)).mean(dim=1)

    def read(self, state, candidate, inputs):
        return state[:, None]
