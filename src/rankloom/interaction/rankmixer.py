"""RankMixer, dense: parameter-free token mixing and a feed-forward network per token.

Paper: Zhu et al., "RankMixer: Scaling Up Ranking Models", CIKM 2025, arXiv:2507.15551.
Layer: S = LN(Mix(X) + X); X' = LN(PFFN(S) + S), PFFN_t(s) = GELU(s W1_t + b1_t) W2_t + b2_t.
Differs from the paper: dense only; tokens are the tokenization's; options: dropout and UG-Sep.
Cost: M * T * (2 * D * F + F + D) + N parameters; 2 * M * T * D * F + A multiply-adds per row.
Shapes: B rows, T tokens of width D, F hidden width, M blocks; N = 4 M D, A = 0 unless separated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, PositiveInt
from torch import Generator, Tensor, nn

from rankloom.config import Config
from rankloom.errors import ConfigError, join_problems
from rankloom.layers.divisors import nearest_divisors, nearest_multiples
from rankloom.layers.dropout import Dropout
from rankloom.layers.feed_forward import PerTokenFFN
from rankloom.layers.norm import LayerNorm
from rankloom.layers.protocols import Candidates, Layout, Takes, Tokens
from rankloom.layers.separation import (
    SeparationConfig,
    Slots,
    SplitTokens,
    Streams,
    add_to_first_columns,
    added_cost,
    make_compensation,
    mix_apart,
    stream_problems,
    streams_of,
)
from rankloom.ops import mix


class RankMixerConfig(Config):
    """Hyper-parameters of `RankMixer` (arXiv:2507.15551)."""

    kind: Literal["rankmixer"] = "rankmixer"
    """Name of the architecture."""
    num_layers: PositiveInt = 2
    """Blocks."""
    expansion: PositiveInt = 3
    """Hidden width of the feed-forward networks over the token width; 3 fits the paper's sizes."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping an element of a feed-forward output, rounded to 1/256."""
    separation: SeparationConfig | None = None
    """Keeps user tokens apart from the candidate (UG-Sep, arXiv:2602.10455), so that they are
    computed once for all of a request's candidates; `{}` takes the defaults."""


class RankMixerState(NamedTuple):
    """The tokens."""

    x: Tensor
    """(B, T, D)."""


class SeparatedRankMixerState(NamedTuple):
    """The tokens of both streams."""

    user: Tensor
    """(B, T_U, D)."""
    candidate: Tensor
    """(B, T_G, D)."""

    @property
    def x(self) -> Tensor:
        """(B, T, D)."""
        return torch.cat((self.user, self.candidate), dim=1)


class _Tokens(nn.Module):
    """Some tokens' part of a block once they are mixed."""

    def __init__(
        self, num_tokens: int, dim: int, hidden_dim: int, *, dropout: float, generator: Generator
    ) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.mix_norm = LayerNorm(dim)
        self.feed_forward = PerTokenFFN(num_tokens, dim, hidden_dim, generator=generator)
        self.dropout = Dropout(dropout)
        self.out_norm = LayerNorm(dim)

    def feed(self, sum_BTD: Tensor) -> Tensor:
        """Norm; feed forward, add, norm."""
        s_BTD = self.mix_norm(sum_BTD)
        v_BTD = self.dropout(self.feed_forward(s_BTD))
        y_BTD: Tensor = self.out_norm(v_BTD + s_BTD)
        return y_BTD


class RankMixerBlock(_Tokens):
    """Mix, add, norm; feed forward, add, norm."""

    def forward(self, state: RankMixerState) -> RankMixerState:
        """Give the next state."""
        return RankMixerState(self.feed(mix(state.x, self.num_tokens) + state.x))


class SeparatedRankMixerBlock(nn.Module):
    """A block of two streams; the candidate stream reads the user stream, never the reverse."""

    def __init__(
        self, slots: Slots, hidden_dim: int, *, dropout: float, generator: Generator
    ) -> None:
        super().__init__()
        self.slots = slots
        self.user, self.candidate = (
            _Tokens(num_tokens, slots.streams.dim, hidden_dim, dropout=dropout, generator=generator)
            for num_tokens in (slots.num_user, slots.num_candidate)
        )
        self.compensation = make_compensation(slots, generator=generator)

    def forward(self, state: SeparatedRankMixerState) -> SeparatedRankMixerState:
        """Give the next state."""
        user_BTD, candidate_BTD = state
        rows = mix_apart(user_BTD, candidate_BTD, self.slots)
        return SeparatedRankMixerState(
            # The residual fills the columns that are zero: the sum is dense, and so are the norms.
            self.user.feed(add_to_first_columns(user_BTD, rows.user)),
            self.candidate.feed(self.compensation(rows) + candidate_BTD),
        )


class RankMixer(nn.Module):
    """Blocks of token mixing, read by the mean over tokens.

    Example:
        >>> RankMixerConfig(num_layers=3).expansion
        3

    Raises:
        ConfigError: The number of tokens does not divide their width, or the tokens cannot be
            kept apart as `separation` asks.
    """

    Config: ClassVar[type[Config]] = RankMixerConfig
    takes: ClassVar[Takes] = "tokens"
    candidates: ClassVar[Candidates] = "independent"

    def __init__(self, config: RankMixerConfig, layout: Layout, *, generator: Generator) -> None:
        super().__init__()
        assert layout.tokens is not None
        tokens, separation = layout.tokens, config.separation
        streams = None if separation is None else streams_of(separation, tokens)
        self.num_tokens, self.dim = (streams or tokens).num_tokens, tokens.dim
        _check(streams, num_tokens=self.num_tokens, dim=self.dim)
        self.hidden_dim = config.expansion * self.dim
        self.slots = None if streams is None else Slots(streams, self.num_tokens)
        self.enter: Callable[[Tokens], RankMixerState | SeparatedRankMixerState] = _enter_together
        make_block: Callable[..., nn.Module] = partial(RankMixerBlock, self.num_tokens, self.dim)
        if self.slots is not None:
            self.enter = _EnterApart(self.slots.streams, generator=generator)
            make_block = partial(SeparatedRankMixerBlock, self.slots)
        self.layers = nn.ModuleList(
            make_block(self.hidden_dim, dropout=config.dropout, generator=generator)
            for _ in range(config.num_layers)
        )
        self.out_dim = self.dim
        self.auxiliary_after: tuple[int, ...] = ()

    def cost_letters(self) -> dict[str, int]:
        """Give tokens, blocks, the hidden width, and the sums that the header names."""
        num_layers, num_streams = len(self.layers), 1 if self.slots is None else 2
        parameters, work = (0, 0) if self.slots is None else added_cost(self.slots, num_layers)
        return {
            "T": self.num_tokens,
            "M": num_layers,
            "F": self.hidden_dim,
            "N": num_streams * num_layers * 4 * self.dim + parameters,
            "A": work,
        }

    def embed_in(self, tokens: Tokens) -> RankMixerState | SeparatedRankMixerState:
        """Put the tokens side by side, or into two streams."""
        return self.enter(tokens)

    def features(self, state: RankMixerState | SeparatedRankMixerState) -> Tensor:
        """Give (B, T, D), user tokens first."""
        return state.x

    def readout(self, state: RankMixerState | SeparatedRankMixerState) -> Tensor:
        """Give (B, D): the mean over tokens."""
        return state.x.mean(dim=1)


def _enter_together(tokens: Tokens) -> RankMixerState:
    return RankMixerState(tokens.all())


class _EnterApart(SplitTokens):
    def forward(self, tokens: Tokens) -> SeparatedRankMixerState:
        return SeparatedRankMixerState(*self.split(tokens))


def _check(streams: Streams | None, *, num_tokens: int, dim: int) -> None:
    """Refuse options that do not fit the tokens, all at once."""
    problems = [] if streams is None else stream_problems(streams)
    if dim % num_tokens:
        widths = " or ".join(map(str, nearest_multiples(num_tokens, dim)))
        counts = ", ".join(map(str, nearest_divisors(dim, num_tokens)))
        problems.append(
            "model.tokenization.token_dim: rankmixer cuts each token into as many slices as "
            f"there are tokens, {num_tokens}. Got token_dim={dim}. Use {widths}, or "
            f"another number of tokens (nearest that divide {dim}: {counts})."
        )
    if problems:
        raise ConfigError(join_problems(problems, where=""))
