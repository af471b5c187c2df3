"""TokenMixer-Large's block in two streams, so that user tokens never see the candidate.

Layer: H = M * Mix(X), H_G += C(H_U); H' = H + A(N(H)); R = M * Revert(H'); X' = X + B(N(R)).
    M is the mask of UG-Sep (see `layers.separation`). It is needed twice: slices of candidate
    rows would come back into user tokens when rows are reverted.
Shapes: B rows, T = T_U + T_G tokens of width D, H = H_U + H_G mixed rows of width W; see `Slots`.

What the mask makes zero is left out, which changes nothing but the cost. With the norm before it, a
feed-forward network reads only the columns that are there: the norm divides by the full width. And
candidate rows give only the columns of candidate tokens: the mask throws the others away.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor, nn

from rankloom.layers.dropout import Dropout
from rankloom.layers.feed_forward import PerTokenSwiGLU
from rankloom.layers.norm import RMSNorm
from rankloom.layers.protocols import Tokens
from rankloom.layers.separation import (
    Slots,
    SplitTokens,
    make_compensation,
    mix_apart,
    pad_columns,
    revert_apart,
)
from rankloom.ops import rms_norm_fp32

Norm = Literal["pre", "post"]


class SeparatedTokenMixerLargeState(NamedTuple):
    """The tokens of both streams, and what the next inter-residual adds to each."""

    user: Tensor
    """(B, T_U, D)."""
    candidate: Tensor
    """(B, T_G, D)."""
    user_group: Tensor
    """(B, T_U, D). The user tokens that entered the current group of blocks."""
    candidate_group: Tensor
    """(B, T_G, D)."""

    @property
    def x(self) -> Tensor:
        """(B, T, D)."""
        return torch.cat((self.user, self.candidate), dim=1)


class PaddedRMSNorm(nn.Module):
    """Root-mean-square norm of rows whose other columns are zeros and left out.

    Equal to the norm over all columns: the mean square is over `padded_dim` of them.
    """

    def __init__(self, dim: int, *, padded_dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        # x / sqrt(sum / P + eps) = sqrt(P / D) x / sqrt(sum / D + eps P / D).
        self.scale = math.sqrt(padded_dim / dim)
        self.eps = eps * padded_dim / dim

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., dim)."""
        return rms_norm_fp32(x, self.weight * self.scale, eps=self.eps)


class _PartBranch(nn.Module):
    """A residual SwiGLU on rows whose last columns may be zeros and left out.

    Args:
        num_rows: Rows, each with its own weights.
        dims: Full width of a row; columns of the input that are there; last columns to give.
        hidden_dim: Of the SwiGLU.
        norm: Where the norm stands.
        down_std: Standard deviation of the down projections.
        dropout: Probability of dropping an element of the SwiGLU's output.
        generator: Source of the initial weights.
    """

    def __init__(
        self,
        num_rows: int,
        dims: tuple[int, int, int],
        hidden_dim: int,
        *,
        norm: Norm,
        down_std: float,
        dropout: float,
        generator: Generator,
    ) -> None:
        super().__init__()
        width, in_dim, self.num_kept = dims
        # After the residual a row is dense: a norm there needs all of its columns.
        is_pre = norm == "pre"
        self.norm = PaddedRMSNorm(in_dim, padded_dim=width) if is_pre else RMSNorm(width)
        self.feed_forward = PerTokenSwiGLU(
            num_rows,
            in_dim,
            hidden_dim,
            out_dim=self.num_kept if is_pre else width,
            down_std=down_std,
            generator=generator,
        )
        self.dropout = Dropout(dropout)


class _PreNormPartBranch(_PartBranch):
    def forward(self, x_BTI: Tensor, residual_BTD: Tensor) -> Tensor:
        y_BTK: Tensor = self.dropout(self.feed_forward(self.norm(x_BTI)))
        return residual_BTD[..., -self.num_kept :] + y_BTK


class _PostNormPartBranch(_PartBranch):
    def forward(self, x_BTI: Tensor, residual_BTD: Tensor) -> Tensor:
        y_BTD: Tensor = self.norm(residual_BTD + self.dropout(self.feed_forward(x_BTI)))
        return y_BTD[..., -self.num_kept :]


class SeparatedTokenMixerLargeBlock(nn.Module):
    """A block of two streams; the candidate stream reads the user stream, never the reverse.

    Args:
        slots: How both streams' tokens are mixed.
        hidden_dims: Hidden widths of the SwiGLUs of mixed rows and of tokens.
        norm: Where the norms stand.
        down_std: Standard deviation of the initial down projections.
        dropout: Probability of dropping an element of a feed-forward output.
        generator: Source of the initial weights.
    """

    def __init__(
        self,
        slots: Slots,
        hidden_dims: tuple[int, int],
        *,
        norm: Norm,
        down_std: float,
        dropout: float,
        generator: Generator,
    ) -> None:
        super().__init__()
        self.slots = slots
        branch = _PreNormPartBranch if norm == "pre" else _PostNormPartBranch
        make = partial(branch, norm=norm, down_std=down_std, dropout=dropout, generator=generator)
        streams, width, dim = slots.streams, slots.width, slots.streams.dim
        of_rows, of_tokens = hidden_dims
        self.user_mixed = make(slots.num_user, (width, slots.user_width, width), of_rows)
        self.candidate_mixed = make(
            slots.num_candidate, (width, width, width - slots.user_width), of_rows
        )
        self.user_tokens = make(streams.num_user, (dim, slots.user_dim, dim), of_tokens)
        self.candidate_tokens = make(streams.num_candidate, (dim, dim, dim), of_tokens)
        self.compensation = make_compensation(slots, generator=generator)

    def forward(self, user_BTD: Tensor, candidate_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Give the next (B, T_U, D) and (B, T_G, D)."""
        rows = mix_apart(user_BTD, candidate_BTD, self.slots)
        joined_BHW = self.compensation(rows)
        user_BHW = self.user_mixed(rows.user, pad_columns(rows.user, self.slots.width))
        candidate_BHW = self.candidate_mixed(joined_BHW, joined_BHW)
        user_BTI, reverted_BTD = revert_apart(user_BHW, candidate_BHW, self.slots)
        return (
            self.user_tokens(user_BTI, user_BTD),
            self.candidate_tokens(reverted_BTD, candidate_BTD),
        )


class SeparatedStep(nn.Module):
    """A separated block as a step of the state."""

    def __init__(self, block: SeparatedTokenMixerLargeBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, state: SeparatedTokenMixerLargeState) -> SeparatedTokenMixerLargeState:
        """Give the next state."""
        user_BTD, candidate_BTD = self.block(state.user, state.candidate)
        return state._replace(user=user_BTD, candidate=candidate_BTD)


class SeparatedLastOfGroup(SeparatedStep):
    """A separated block whose outputs receive the inputs of its group."""

    def forward(self, state: SeparatedTokenMixerLargeState) -> SeparatedTokenMixerLargeState:
        """Give the next state."""
        user_BTD, candidate_BTD = self.block(state.user, state.candidate)
        return _open_group(user_BTD + state.user_group, candidate_BTD + state.candidate_group)


def _open_group(user_BTD: Tensor, candidate_BTD: Tensor) -> SeparatedTokenMixerLargeState:
    return SeparatedTokenMixerLargeState(user_BTD, candidate_BTD, user_BTD, candidate_BTD)


class SeparateTokens(SplitTokens):
    """Makes the first state; its tokens open the first group."""

    def forward(self, tokens: Tokens) -> SeparatedTokenMixerLargeState:
        """Put the tokens into two streams."""
        return _open_group(*self.split(tokens))


def block_difference(slots: Slots, hidden_dims: tuple[int, int], *, norm: Norm) -> tuple[int, int]:
    """Compare a separated block, without compensation, with the block of one stream.

    Returns:
        more: Gains of the second stream's norms, less biases that are left out.
        saved: Weights that are left out, each a multiply-add per row.
    """
    dim, width, of_rows, of_tokens = slots.streams.dim, slots.width, *hidden_dims
    # Gates and values of user rows and tokens do not read the columns that are zero.
    saved = 2 * of_rows * (width - slots.user_width) * slots.num_user
    saved += 2 * of_tokens * (dim - slots.user_dim) * slots.streams.num_user
    if norm == "post":
        return width + dim, saved
    unwanted = slots.user_width * slots.num_candidate
    return slots.user_width + slots.user_dim - unwanted, saved + of_rows * unwanted
