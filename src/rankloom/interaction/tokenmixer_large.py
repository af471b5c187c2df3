"""TokenMixer-Large, dense: mix and revert with SwiGLU per token, pre-norm, made for depth.

Paper: Jiang et al., "TokenMixer-Large: Scaling Up Large Ranking Models", 2026, arXiv:2602.06563.
Layer: H = Mix(X); H' = H + A(N(H)); X' = X + B(N(Revert(H'))), A and B SwiGLU per slot and token.
Differs from the paper: dense only; pre-norm as in its text (or `norm: post`); UG-Sep adds U and A.
Cost: M * (3 * P + 2 * S + W + D) + D + U parameters; 3 * M * P + A multiply-adds per row.
Shapes: B rows, T tokens of width D, H slots of W = T D / H; P = H W G + T D F, S = H G + T F + T D.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Generator, Tensor, nn

from rankloom.config import Config
from rankloom.errors import ConfigError, join_problems
from rankloom.interaction.tokenmixer_large_separated import (
    SeparatedLastOfGroup,
    SeparatedStep,
    SeparatedTokenMixerLargeBlock,
    SeparatedTokenMixerLargeState,
    SeparateTokens,
    block_difference,
)
from rankloom.layers.divisors import divisors, nearest_divisors
from rankloom.layers.dropout import Dropout
from rankloom.layers.feed_forward import PerTokenSwiGLU
from rankloom.layers.norm import RMSNorm
from rankloom.layers.protocols import Candidates, Layout, Takes, TokenLayout, Tokens
from rankloom.layers.separation import (
    SeparationConfig,
    Slots,
    Streams,
    added_cost,
    heads_that_fit,
    is_whole,
    stream_problems,
    streams_of,
    user_tokens_that_fit,
)
from rankloom.ops import mix, revert


class TokenMixerLargeConfig(Config):
    """Hyper-parameters of `TokenMixerLarge` (arXiv:2602.06563)."""

    kind: Literal["tokenmixer_large"] = "tokenmixer_large"
    """Name of the architecture."""
    num_layers: PositiveInt = 2
    """Blocks; each holds two feed-forward networks."""
    num_heads: PositiveInt | None = None
    """Slices a token is cut into, a divisor of the token width. By default the number of tokens if
    it divides the width, else the largest divisor below it."""
    expansion: PositiveFloat = 1.0
    """Hidden width of each SwiGLU over its input's width; 1 costs as much as RankMixer at 3."""
    norm: Literal["pre", "post"] = "pre"
    """Where the norms stand; `post` was unstable at scale in the paper."""
    inter_residual_every: PositiveInt | None = 2
    """Blocks of a group whose input is added to its output, never to the last block's; the paper
    takes 2 or 3. Nothing switches it off."""
    auxiliary_weight: NonNegativeFloat = 0.1
    """Weight of the auxiliary loss at each inter-residual; 0 builds no auxiliary towers."""
    down_std: PositiveFloat = 0.01
    """Standard deviation of the initial down projections: each block starts near the identity."""
    readout: Literal["mean", "mean_global"] = "mean"
    """Mean over tokens, or that beside the global token."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping an element of a feed-forward output, rounded to 1/256."""
    separation: SeparationConfig | None = None
    """Keeps user tokens apart from the candidate (UG-Sep, arXiv:2602.10455), so that they are
    computed once for all of a request's candidates; `{}` takes the defaults. The user's share of
    the slices, `num_heads` times user tokens over all tokens, must be whole."""


class TokenMixerLargeState(NamedTuple):
    """The tokens, and what the next inter-residual adds."""

    x: Tensor
    """(B, T, D)."""
    group: Tensor
    """(B, T, D). The tokens that entered the current group of blocks."""


class _Branch(nn.Module):
    """A residual SwiGLU per token, before or after its norm."""

    def __init__(
        self,
        num_tokens: int,
        dim: int,
        hidden_dim: int,
        *,
        config: TokenMixerLargeConfig,
        generator: Generator,
    ) -> None:
        super().__init__()
        self.norm = RMSNorm(dim)
        self.feed_forward = PerTokenSwiGLU(
            num_tokens, dim, hidden_dim, down_std=config.down_std, generator=generator
        )
        self.dropout = Dropout(config.dropout)


class _PreNormBranch(_Branch):
    def forward(self, x_BTD: Tensor, residual_BTD: Tensor) -> Tensor:
        return residual_BTD + self.dropout(self.feed_forward(self.norm(x_BTD)))


class _PostNormBranch(_Branch):
    def forward(self, x_BTD: Tensor, residual_BTD: Tensor) -> Tensor:
        y: Tensor = self.norm(residual_BTD + self.dropout(self.feed_forward(x_BTD)))
        return y


class TokenMixerLargeBlock(nn.Module):
    """Mix, feed each slot forward, revert, feed each token forward; the residual is the input."""

    def __init__(
        self,
        num_tokens: int,
        dim: int,
        num_heads: int,
        *,
        config: TokenMixerLargeConfig,
        generator: Generator,
    ) -> None:
        super().__init__()
        branch = _PreNormBranch if config.norm == "pre" else _PostNormBranch
        width = num_tokens * dim // num_heads
        self.num_tokens, self.num_heads = num_tokens, num_heads
        self.mixed = branch(
            num_heads, width, _hidden(width, config), config=config, generator=generator
        )
        self.tokens = branch(
            num_tokens, dim, _hidden(dim, config), config=config, generator=generator
        )

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Give the next (B, T, D)."""
        h_BHW = mix(x_BTD, self.num_heads)
        h_BHW = self.mixed(h_BHW, h_BHW)
        y_BTD: Tensor = self.tokens(revert(h_BHW, self.num_tokens), x_BTD)
        return y_BTD


class _Step(nn.Module):
    """A block as a step of the state."""

    def __init__(self, block: TokenMixerLargeBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, state: TokenMixerLargeState) -> TokenMixerLargeState:
        return TokenMixerLargeState(self.block(state.x), state.group)


class _LastOfGroup(_Step):
    """A block whose output receives the input of its group."""

    def forward(self, state: TokenMixerLargeState) -> TokenMixerLargeState:
        x_BTD = self.block(state.x) + state.group
        return TokenMixerLargeState(x_BTD, x_BTD)


def _enter_together(tokens: Tokens) -> TokenMixerLargeState:
    x_BTD = tokens.all()
    return TokenMixerLargeState(x_BTD, x_BTD)


State = TokenMixerLargeState | SeparatedTokenMixerLargeState


class TokenMixerLarge(nn.Module):
    """A deep stack of mix-and-revert blocks with inter-residuals.

    Example:
        >>> TokenMixerLargeConfig(num_layers=4, num_heads=8).inter_residual_every
        2

    Raises:
        ConfigError: `num_heads` does not divide the token width, there is no global token to read,
            or the tokens cannot be kept apart as `separation` asks.
    """

    Config: ClassVar[type[Config]] = TokenMixerLargeConfig
    takes: ClassVar[Takes] = "tokens"
    candidates: ClassVar[Candidates] = "independent"

    def __init__(
        self, config: TokenMixerLargeConfig, layout: Layout, *, generator: Generator
    ) -> None:
        super().__init__()
        assert layout.tokens is not None
        tokens, separation = layout.tokens, config.separation
        streams = None if separation is None else streams_of(separation, tokens)
        _check(config, tokens, streams)
        self.config = config
        self.num_tokens, self.dim = (streams or tokens).num_tokens, tokens.dim
        self.num_heads = config.num_heads or default_num_heads(self.num_tokens, self.dim, streams)
        self.slots = None if streams is None else Slots(streams, self.num_heads)
        self.enter: Callable[[Tokens], State] = _enter_together
        make_block: Callable[[], nn.Module] = partial(
            TokenMixerLargeBlock,
            self.num_tokens,
            self.dim,
            self.num_heads,
            config=config,
            generator=generator,
        )
        steps: tuple[type[nn.Module], type[nn.Module]] = (_Step, _LastOfGroup)
        if self.slots is not None:
            self.enter = SeparateTokens(self.slots.streams, generator=generator)
            make_block = partial(
                SeparatedTokenMixerLargeBlock,
                self.slots,
                (_hidden(self.slots.width, config), _hidden(self.dim, config)),
                norm=config.norm,
                down_std=config.down_std,
                dropout=config.dropout,
                generator=generator,
            )
            steps = (SeparatedStep, SeparatedLastOfGroup)
        every = config.inter_residual_every or config.num_layers
        ends = tuple(range(every, config.num_layers, every))
        self.layers = nn.ModuleList(
            steps[number in ends](make_block()) for number in range(1, config.num_layers + 1)
        )
        self.norm = RMSNorm(tokens.dim)
        place = _place_of_global(tokens, streams)
        self.global_token = place if config.readout == "mean_global" else None
        self.out_dim = tokens.dim if self.global_token is None else 2 * tokens.dim
        self.auxiliary_after = ends if config.auxiliary_weight else ()
        self.auxiliary_weight = config.auxiliary_weight

    def cost_letters(self) -> dict[str, int]:
        """Give tokens, blocks, slots, their width, and the sums that the header names."""
        tokens, heads, dim = self.num_tokens, self.num_heads, self.dim
        width = tokens * dim // heads
        slot_hidden, token_hidden = _hidden(width, self.config), _hidden(dim, self.config)
        parameters, work = self._added_cost()
        return {
            "T": tokens,
            "M": len(self.layers),
            "H": heads,
            "W": width,
            "P": heads * width * slot_hidden + tokens * dim * token_hidden,
            "S": heads * slot_hidden + tokens * (token_hidden + dim),
            "U": parameters,
            "A": work,
        }

    def _added_cost(self) -> tuple[int, int]:
        """Give what separation adds, which may be negative: parameters and multiply-adds."""
        if self.slots is None:
            return 0, 0
        hidden_dims = (_hidden(self.slots.width, self.config), _hidden(self.dim, self.config))
        parameters, work = added_cost(self.slots, len(self.layers))
        more, saved = block_difference(self.slots, hidden_dims, norm=self.config.norm)
        return parameters + len(self.layers) * (more - saved), work - len(self.layers) * saved

    def embed_in(self, tokens: Tokens) -> State:
        """Put the tokens side by side, or into two streams; they open the first group."""
        return self.enter(tokens)

    def features(self, state: State) -> Tensor:
        """Give (B, T, D), user tokens first, before the final norm."""
        return state.x

    def readout(self, state: State) -> Tensor:
        """Give (B, out_dim): the normed tokens' mean, and the global token if asked for."""
        x_BTD = self.norm(state.x)
        mean_BD = x_BTD.mean(dim=1)
        if self.global_token is None:
            return mean_BD
        return torch.cat((mean_BD, x_BTD[:, self.global_token]), dim=1)


def default_num_heads(num_tokens: int, dim: int, streams: Streams | None = None) -> int:
    """Give the number of tokens if it divides their width, else the largest that fits below it.

    Args:
        num_tokens: T.
        dim: D.
        streams: With separation, the user's share of the slices must be whole too.

    Raises:
        ValueError: None fits.
    """
    fitting = divisors(dim) if streams is None else heads_that_fit(streams)
    return max(one for one in fitting if one <= num_tokens)


def _hidden(width: int, config: TokenMixerLargeConfig) -> int:
    return max(1, round(width * config.expansion))


def _place_of_global(tokens: TokenLayout, streams: Streams | None) -> int | None:
    """Give the place of the global token among all that are mixed."""
    if tokens.global_token is None or streams is None:
        return tokens.global_token
    return streams.place_of(tokens.global_token)


def _check(config: TokenMixerLargeConfig, tokens: TokenLayout, streams: Streams | None) -> None:
    """Refuse options that do not fit the tokens, all at once."""
    problems = []
    if config.num_heads is not None and tokens.dim % config.num_heads:
        nearest = ", ".join(map(str, nearest_divisors(tokens.dim, config.num_heads)))
        problems.append(
            f"model.interaction.num_heads: must divide token_dim={tokens.dim}. "
            f"Got {config.num_heads}. Nearest that work: {nearest}."
        )
    if config.readout == "mean_global" and tokens.global_token is None:
        problems.append(
            "model.interaction.readout: the tokens hold no global token. Got mean_global. "
            "Use mean, or set model.tokenization.global_token."
        )
    if streams is not None:
        problems += _separation_problems(config, tokens, streams)
    if problems:
        raise ConfigError(join_problems(problems, where=""))


def _separation_problems(
    config: TokenMixerLargeConfig, tokens: TokenLayout, streams: Streams
) -> list[str]:
    """List what is wrong with separation."""
    problems = stream_problems(streams)
    is_global_lost = tokens.global_token is not None and _place_of_global(tokens, streams) is None
    if config.readout == "mean_global" and is_global_lost:
        problems.append(
            "model.interaction.readout: the global token is one of the user tokens, which "
            f"separation.user_tokens projects to others. Got mean_global and "
            f"user_tokens={streams.num_user}. Use mean, or remove user_tokens."
        )
    fitting = [one for one in heads_that_fit(streams) if one <= streams.num_tokens]
    heads = config.num_heads
    if streams.num_candidate and (not fitting if heads is None else not is_whole(heads, streams)):
        problems.append(_heads_problem(heads, streams))
    return problems


def _heads_problem(heads: int | None, streams: Streams) -> str:
    """Say which numbers of heads and of user tokens would work."""
    wanted = heads or default_num_heads(streams.num_tokens, streams.dim)
    nearest = sorted(heads_that_fit(streams), key=lambda one: abs(one - wanted))[:3]
    user_tokens = user_tokens_that_fit(streams, wanted) if streams.dim % wanted == 0 else ()
    ways = ["another token_dim"]
    if user_tokens:
        numbers = ", ".join(map(str, user_tokens))
        ways.insert(0, f"num_heads {wanted} with separation.user_tokens {numbers}")
    if nearest:
        ways.insert(0, f"num_heads {', '.join(map(str, sorted(nearest)))}")
    got = heads or f"no divisor of token_dim={streams.dim} up to {streams.num_tokens} that fits"
    return (
        "model.interaction.num_heads: with separation, num_heads times the share of user tokens, "
        f"{streams.num_user} of {streams.num_tokens}, must be whole. Got {got}. "
        f"Nearest that work: {'; or '.join(ways)}."
    )
