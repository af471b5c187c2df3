"""User tokens kept apart from the candidate in every layer of a token mixer: UG-Sep.

Paper: UG-Sep, user and group separated TokenMixer, ByteDance AML, 2026, arXiv:2602.10455.
Layer: S = Mix(X) * mask; S_G += C(S_U); then residual, norm and feed-forward per stream. The mask
    is zero where a user's mixed row meets a slice of a candidate token, so that values flow from
    user to candidate and never back.
Differs from the paper: two streams of tensors instead of a mask. Columns that the mask makes zero
    are not there, and what it would throw away is not computed; the results are the same.
Shapes: B rows, T = T_U + T_G tokens of width D, mixed to H = H_U + H_G rows of width W = T D / H
    with H_U = H T_U / T; the first W_U = W T_U / T columns of a mixed row come from user tokens.

Known from public notes on the paper: user tokens stand first; the mask; separate weights per token
for both streams; compensation as a learned linear map from the masked user rows to the candidate
rows; norms per token. Inferred, because those are silent: the compensation's two forms, its rank
and its zero initial value, norms with their own gains for each stream, the second mask where
TokenMixer-Large reverts, and the projection to a chosen number of user tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Generator, Tensor, nn

from rankloom.config import Config
from rankloom.layers.divisors import divisors
from rankloom.layers.linear import PerTokenLinear, linear
from rankloom.layers.protocols import TokenLayout, Tokens
from rankloom.ops import mix

PATH = "model.interaction.separation"


class SeparationConfig(Config):
    """How user tokens are kept apart from the candidate (arXiv:2602.10455).

    Example:
        >>> SeparationConfig(user_tokens=4).compensation
        'low_rank'
    """

    user_tokens: PositiveInt | None = None
    """Tokens of the user stream: what is of its rate, side by side, is projected to so many, each
    by its own weights. By default as many as the tokenization gives, as they are."""
    rate: Literal["user", "request"] = "user"
    """With `request`, request tokens join the user stream, which is then computed once a request
    and not cacheable across requests. With `user` they join the candidate stream."""
    compensation: Literal["none", "low_rank", "cheap"] = "low_rank"
    """What mixed candidate rows receive of the mixed user rows, all zero at first: nothing; a
    map of all columns through a bottleneck; or, slice by slice, a sum of the user rows."""
    rank: PositiveInt | None = None
    """Width of the bottleneck of `low_rank`; by default half the width of a token."""


@dataclass(frozen=True, kw_only=True)
class Streams:
    """How many tokens there are on either side."""

    config: SeparationConfig
    """How they are kept apart."""
    num_given: int
    """Tokens that the user stream is made of."""
    num_user: int
    """T_U."""
    num_candidate: int
    """T_G."""
    dim: int
    """D."""

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.num_user + self.num_candidate

    def place_of(self, token: int) -> int | None:
        """Give the place among both streams' tokens of one of the tokenization's, if it is kept."""
        if token >= self.num_given:
            return token - self.num_given + self.num_user
        return token if self.config.user_tokens is None else None


@dataclass(frozen=True)
class Slots:
    """How both streams' tokens are mixed."""

    streams: Streams
    num_heads: int
    """H; its share for the user, H T_U / T, is whole."""

    @cached_property
    def num_user(self) -> int:
        """H_U."""
        return self.num_heads * self.streams.num_user // self.streams.num_tokens

    @property
    def num_candidate(self) -> int:
        """H_G."""
        return self.num_heads - self.num_user

    @property
    def slice_dim(self) -> int:
        """Width of a slice of a token, D / H."""
        return self.streams.dim // self.num_heads

    @property
    def width(self) -> int:
        """W."""
        return self.streams.num_tokens * self.slice_dim

    @property
    def user_width(self) -> int:
        """W_U."""
        return self.streams.num_user * self.slice_dim

    @property
    def user_dim(self) -> int:
        """Columns of a reverted token that come from mixed user rows: D T_U / T."""
        return self.num_user * self.slice_dim


class MixedRows(NamedTuple):
    """Mixed rows without the slices that the mask would make zero."""

    user: Tensor
    """(B, H_U, W_U). User rows: slices of user tokens."""
    shared: Tensor
    """(B, H_G, W_U). Candidate rows: slices of user tokens."""
    candidate: Tensor
    """(B, H_G, W - W_U). Candidate rows: slices of candidate tokens."""


def streams_of(config: SeparationConfig, tokens: TokenLayout) -> Streams:
    """Count the tokens of both streams."""
    joining = tokens.num_request if config.rate == "request" else 0
    given = tokens.num_user + joining
    return Streams(
        config=config,
        num_given=given,
        num_user=config.user_tokens or given,
        num_candidate=tokens.num_tokens - given,
        dim=tokens.dim,
    )


def stream_problems(streams: Streams) -> list[str]:
    """List what is wrong with a separation, whatever the architecture."""
    config, problems = streams.config, []
    if not streams.num_given:
        problems.append(
            f"{PATH}: the tokenization gives no token of rate {config.rate}. Got 0 tokens for the "
            "user stream. Give features of the user a group or token of their own, or remove "
            "separation."
        )
    if not streams.num_candidate:
        problems.append(
            f"{PATH}: no token is left for the candidate stream. Got {streams.num_given} tokens, "
            "all for the user stream. Remove separation: everything is computed once a user as "
            "it is."
        )
    if config.rank is not None and config.compensation != "low_rank":
        problems.append(
            f"{PATH}.rank: belongs to compensation low_rank. Got {config.rank} with "
            f"{config.compensation}. Remove it."
        )
    return problems


def is_whole(num_heads: int, streams: Streams) -> bool:
    """Tell whether the user's share of so many mixed rows is whole."""
    return num_heads * streams.num_user % streams.num_tokens == 0


def heads_that_fit(streams: Streams) -> tuple[int, ...]:
    """Give the numbers of heads that divide the width and whose user share is whole, ascending."""
    return tuple(one for one in divisors(streams.dim) if is_whole(one, streams))


def user_tokens_that_fit(streams: Streams, num_heads: int, *, count: int = 3) -> tuple[int, ...]:
    """Give the numbers of user tokens nearest to T_U whose share of the heads is whole."""
    other = streams.num_candidate
    # T divides H T_U just when it divides H T_G = H T - H T_U.
    fitting = [one - other for one in divisors(num_heads * other) if one > other]
    return tuple(sorted(sorted(fitting, key=lambda one: abs(one - streams.num_user))[:count]))


class SplitTokens(nn.Module):
    """Divides tokens into the user stream and the candidate stream; `forward` makes the state.

    Args:
        streams: How many they are, and of which rates.
        generator: Source of the initial weights.
    """

    def __init__(self, streams: Streams, *, generator: Generator) -> None:
        super().__init__()
        self.num_user_rates = 2 if streams.config.rate == "request" else 1
        self.project: nn.Module = nn.Identity()
        if streams.config.user_tokens is not None:
            self.project = ProjectTokens(
                streams.num_given, streams.num_user, streams.dim, generator=generator
            )

    def split(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Give (B, T_U, D) and (B, T_G, D)."""
        border = self.num_user_rates
        return self.project(_together(tokens[:border])), _together(tokens[border:])


class ProjectTokens(nn.Module):
    """Projects all tokens, side by side, to another number of them, each by its own weights."""

    def __init__(self, num_in: int, num_out: int, dim: int, *, generator: Generator) -> None:
        super().__init__()
        self.num_out = num_out
        self.project = PerTokenLinear(num_out, num_in * dim, dim, generator=generator)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Turn (B, T, D) into (B, num_out, D)."""
        y: Tensor = self.project(x_BTD.flatten(1)[:, None].expand(-1, self.num_out, -1))
        return y


def _together(parts: tuple[Tensor, ...]) -> Tensor:
    """Put tokens side by side; an empty tensor is left out."""
    filled = [part for part in parts if part.shape[1]]
    return filled[0] if len(filled) == 1 else torch.cat(filled, dim=1)


def mix_apart(user_BTD: Tensor, candidate_BTD: Tensor, slots: Slots) -> MixedRows:
    """Mix both streams' tokens; no candidate's slice enters a user row.

    Args:
        user_BTD: (B, T_U, D).
        candidate_BTD: (B, T_G, D).
        slots: How they are mixed.
    """
    border, num_candidate = slots.user_dim, slots.num_candidate
    return MixedRows(
        user=mix(user_BTD[..., :border], slots.num_user),
        shared=mix(user_BTD[..., border:], num_candidate),
        # The first slices would stand in the user's rows.
        candidate=mix(candidate_BTD[..., border:], num_candidate),
    )


def revert_apart(user_BHW: Tensor, candidate_BHW: Tensor, slots: Slots) -> tuple[Tensor, Tensor]:
    """Undo `mix_apart` for rows fed forward; no candidate row's slice enters a user token.

    Args:
        user_BHW: (B, H_U, W).
        candidate_BHW: (B, H_G, W - W_U). Without the columns of user tokens, which would leak.
        slots: How they were mixed.

    Returns:
        user: (B, T_U, D T_U / T). The other columns would be zero.
        candidate: (B, T_G, D).
    """
    border, streams = slots.user_width, slots.streams
    shared_BTD = mix(user_BHW[..., border:], streams.num_candidate)
    return (
        mix(user_BHW[..., :border], streams.num_user),
        beside(shared_BTD, mix(candidate_BHW, streams.num_candidate)),
    )


def beside(first: Tensor, second: Tensor) -> Tensor:
    """Concatenate (B, T, I) and (B, T, J) to (B, T, I + J), in memory ordered (T, B, I + J)."""
    return torch.cat((first.transpose(0, 1), second.transpose(0, 1)), dim=2).transpose(0, 1)


def add_to_first_columns(x_BTD: Tensor, added_BTI: Tensor) -> Tensor:
    """Add (B, T, I) to the first I columns of (B, T, D)."""
    width = added_BTI.shape[2]
    return beside(x_BTD[..., :width] + added_BTI, x_BTD[..., width:])


def pad_columns(x_BTI: Tensor, width: int) -> Tensor:
    """Add columns of zeros to (B, T, I) until it has `width` of them."""
    zeros = x_BTI.new_zeros(x_BTI.shape[0], x_BTI.shape[1], width - x_BTI.shape[2])
    return beside(x_BTI, zeros)


class JoinRows(nn.Module):
    """Candidate rows as they are: slices of user tokens, then of candidate tokens."""

    def forward(self, rows: MixedRows) -> Tensor:
        """Give (B, H_G, W)."""
        return beside(rows.shared, rows.candidate)


class LowRankCompensation(nn.Module):
    """Adds a map of all user rows, through a bottleneck, to the candidate rows.

    S_G + reshape(flatten(S_U) A B), with B zero at first.
    """

    def __init__(self, slots: Slots, rank: int, *, generator: Generator) -> None:
        super().__init__()
        self.out_shape = (slots.num_candidate, slots.width)
        self.down = linear(slots.num_user * slots.user_width, rank, bias=False, generator=generator)
        self.up = linear(rank, math.prod(self.out_shape), bias=False, generator=generator)
        nn.init.zeros_(self.up.weight)

    def forward(self, rows: MixedRows) -> Tensor:
        """Give (B, H_G, W)."""
        added_BHW = self.up(self.down(rows.user.flatten(1))).unflatten(1, self.out_shape)
        return beside(rows.shared, rows.candidate) + added_BHW


class CheapCompensation(nn.Module):
    """Adds to each user token's slice in a candidate row a sum of its slices in the user rows.

    S_G[g, t] + sum over u of P[t, g, u] S_U[u, t], t a user token, with P zero at first.
    """

    def __init__(self, slots: Slots) -> None:
        super().__init__()
        self.slice_shape = (slots.streams.num_user, slots.slice_dim)
        self.weight = nn.Parameter(
            torch.zeros(slots.streams.num_user, slots.num_candidate, slots.num_user)
        )

    def forward(self, rows: MixedRows) -> Tensor:
        """Give (B, H_G, W)."""
        slices_BUTI = rows.user.unflatten(2, self.slice_shape)
        added_BGTI = torch.einsum("buti,tgu->bgti", slices_BUTI, self.weight)
        return beside(rows.shared + added_BGTI.flatten(2), rows.candidate)


def make_compensation(
    slots: Slots, *, generator: Generator
) -> JoinRows | LowRankCompensation | CheapCompensation:
    """Build what makes the candidate rows."""
    kind = slots.streams.config.compensation
    if kind == "low_rank":
        return LowRankCompensation(slots, _rank(slots.streams), generator=generator)
    return CheapCompensation(slots) if kind == "cheap" else JoinRows()


def _rank(streams: Streams) -> int:
    return streams.config.rank or max(1, streams.dim // 2)


def added_cost(slots: Slots, num_layers: int) -> tuple[int, int]:
    """Count what projection and compensations add: parameters, and multiply-adds per row."""
    streams, config = slots.streams, slots.streams.config
    parameters = work = 0
    if config.compensation == "low_rank":
        inner = slots.num_user * slots.user_width + slots.num_candidate * slots.width
        parameters = work = num_layers * inner * _rank(streams)
    elif config.compensation == "cheap":
        parameters = num_layers * streams.num_user * slots.num_candidate * slots.num_user
        work = parameters * slots.slice_dim
    if config.user_tokens is not None:
        weights = streams.num_given * streams.dim * streams.num_user * streams.dim
        parameters += weights + streams.num_user * streams.dim
        work += weights
    return parameters, work
