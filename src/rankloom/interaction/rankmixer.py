"""RankMixer, dense: parameter-free token mixing and a feed-forward network per token.

Paper: Zhu et al., "RankMixer: Scaling Up Ranking Models", CIKM 2025, arXiv:2507.15551.
Layer: S = LN(Mix(X) + X); X' = LN(PFFN(S) + S), PFFN_t(s) = GELU(s W1_t + b1_t) W2_t + b2_t.
Differs from the paper: dense only; tokens come from the tokenization slot; dropout by option.
Cost: M * (T * (2 * D * F + F + D) + 4 * D) parameters; 2 * M * T * D * F multiply-adds per row.
Shapes: B rows, T tokens, D width of a token (a multiple of T), F hidden width, M blocks.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field, PositiveInt
from torch import Generator, Tensor, nn

from rankloom.config import Config
from rankloom.errors import ConfigError
from rankloom.layers.divisors import nearest_divisors, nearest_multiples
from rankloom.layers.dropout import Dropout
from rankloom.layers.feed_forward import PerTokenFFN
from rankloom.layers.norm import LayerNorm
from rankloom.layers.protocols import Candidates, Layout, Takes, Tokens
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


class RankMixerState(NamedTuple):
    """The tokens."""

    x: Tensor
    """(B, T, D)."""


class RankMixerBlock(nn.Module):
    """Mix, add, norm; feed forward, add, norm."""

    def __init__(
        self, num_tokens: int, dim: int, hidden_dim: int, *, dropout: float, generator: Generator
    ) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.mix_norm = LayerNorm(dim)
        self.feed_forward = PerTokenFFN(num_tokens, dim, hidden_dim, generator=generator)
        self.dropout = Dropout(dropout)
        self.out_norm = LayerNorm(dim)

    def forward(self, state: RankMixerState) -> RankMixerState:
        """Give the next state."""
        s_BTD = self.mix_norm(mix(state.x, self.num_tokens) + state.x)
        v_BTD = self.dropout(self.feed_forward(s_BTD))
        return RankMixerState(self.out_norm(v_BTD + s_BTD))


class RankMixer(nn.Module):
    """Blocks of token mixing, read by the mean over tokens.

    Example:
        >>> RankMixerConfig(num_layers=3).expansion
        3

    Raises:
        ConfigError: The number of tokens does not divide their width.
    """

    Config: ClassVar[type[Config]] = RankMixerConfig
    takes: ClassVar[Takes] = "tokens"
    candidates: ClassVar[Candidates] = "independent"

    def __init__(self, config: RankMixerConfig, layout: Layout, *, generator: Generator) -> None:
        super().__init__()
        assert layout.tokens is not None
        num_tokens, dim = layout.tokens.num_tokens, layout.tokens.dim
        if dim % num_tokens:
            widths = " or ".join(map(str, nearest_multiples(num_tokens, dim)))
            counts = ", ".join(map(str, nearest_divisors(dim, num_tokens)))
            raise ConfigError(
                "model.tokenization.token_dim: rankmixer cuts each token into as many slices as "
                f"there are tokens, {num_tokens}. Got token_dim={dim}. Use {widths}, or "
                f"another number of tokens (nearest that divide {dim}: {counts})."
            )
        self.hidden_dim = config.expansion * dim
        self.layers = nn.ModuleList(
            RankMixerBlock(
                num_tokens, dim, self.hidden_dim, dropout=config.dropout, generator=generator
            )
            for _ in range(config.num_layers)
        )
        self.out_dim = dim
        self.auxiliary_after: tuple[int, ...] = ()

    def cost_letters(self) -> dict[str, int]:
        """Give the blocks and the hidden width, which the `Cost:` line names."""
        return {"M": len(self.layers), "F": self.hidden_dim}

    def embed_in(self, tokens: Tokens) -> RankMixerState:
        """Put the tokens side by side."""
        return RankMixerState(tokens.all())

    def features(self, state: RankMixerState) -> Tensor:
        """Give (B, T, D)."""
        return state.x

    def readout(self, state: RankMixerState) -> Tensor:
        """Give (B, D): the mean over tokens."""
        return state.x.mean(dim=1)
