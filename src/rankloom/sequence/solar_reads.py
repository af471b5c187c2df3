"""The two reads of SOLAR: softmax attention to a history's interests, or through its columns.

Shapes: B rows, L events of width D, r interests, m candidates of each row, W width of a token.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from rankloom.layers.linear import linear
from rankloom.ops import extend_low_rank, low_rank, softmax_fp32

FIRST_GAIN = 0.2
"""Of the first values: tokens begin about as large as embedded features."""


class InterestState(NamedTuple):
    """What stands for a history whatever its length."""

    interests: Tensor
    """(B, r, D). C^T C is the sum of w_l e_l e_l^T over events e with weights w."""
    total: Tensor
    """(B, D). The sum of w_l e_l."""
    weight: Tensor
    """(B, 1). The sum of w_l."""


class ColumnState(NamedTuple):
    """A history in r columns."""

    columns: Tensor
    """(B, L, r). The events in the coordinates of the axes."""
    axes: Tensor
    """(B, r, D). Orthonormal."""
    log_weights: Tensor
    """(B, L). At most zero; close to the least number where padded."""


class Reader(nn.Module):
    """Softmax attention from candidates to what stands for some events.

    Args:
        width: D, of an event and of a candidate.
        dim: W.
        rank: r, at most D.
        num_heads: A divisor of W.
        generator: Source of the initial weights.
    """

    num_matrices: ClassVar[int] = 3

    def __init__(
        self, width: int, dim: int, *, rank: int, num_heads: int, generator: Generator
    ) -> None:
        super().__init__()
        self.rank, self.num_heads = rank, num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.query = linear(width, dim, generator=generator)
        # Without offsets: -c must have the key and the value of c, times -1.
        self.key = linear(width, dim, bias=False, generator=generator)
        self.value = linear(width, dim, bias=False, generator=generator)
        with torch.no_grad():
            self.value.weight.mul_(FIRST_GAIN)

    @abstractmethod
    def encode(self, events: Tensor, log_weights: Tensor) -> Any:
        """Factorise (B, L, D) events, zero where padded, with (B, L) logarithms of weights."""

    @abstractmethod
    def read(self, state: Any, candidates: Tensor) -> Tensor:
        """Give (B, m, W) for (B, m, D) candidates of each state."""

    @abstractmethod
    def extend(self, state: Any, events: Tensor, log_weights: Tensor, fall: Tensor) -> Any:
        """Give the state with (B, L, D) more events, all older log weights less by (B, 1)."""

    def in_heads(self, x_BnW: Tensor) -> Tensor:
        """Cut (B, n, W) into (B, n, H, W / H)."""
        x_BnHk: Tensor = x_BnW.unflatten(2, (self.num_heads, -1))
        return x_BnHk


class InterestReader(Reader):
    """Operator B: attends to r principal interests, each with its opposite.

    A singular vector has no sign, so that the softmax is over c_i and -c_i. Their values are
    opposite too, and the attention to both is one number in [-1, 1]. It is continuous where an
    interest vanishes, and for small logits it is the linear attention q H^T H, up to scale.

    That alone would not tell a history from its opposite. The mean event, whose sign is known, is
    therefore added to the query: interests on its side are attended to more.
    """

    num_matrices: ClassVar[int] = 4

    def __init__(
        self, width: int, dim: int, *, rank: int, num_heads: int, generator: Generator
    ) -> None:
        super().__init__(width, dim, rank=rank, num_heads=num_heads, generator=generator)
        self.mean_query = linear(width, dim, bias=False, generator=generator)

    def encode(self, events: Tensor, log_weights: Tensor) -> InterestState:
        """Factorise the events, each times the root of its weight."""
        roots_BL1 = (log_weights * 0.5).exp()[:, :, None]
        rows = events * roots_BL1
        interests, _ = low_rank(rows, self.rank)
        total = (rows * roots_BL1).sum(dim=1)
        return InterestState(interests, total, roots_BL1.square().sum(dim=1))

    def read(self, state: InterestState, candidates: Tensor) -> Tensor:
        """Weigh the interests for each candidate."""
        # The newest event weighs one, so that only an empty history has less. Divided by the
        # root, interests are as long as events are, however many.
        weight_B1 = state.weight.clamp(min=1)
        interests = state.interests * weight_B1.rsqrt()[:, :, None]
        mean = self.mean_query(state.total / weight_B1)[:, None]
        query = self.in_heads(self.query(candidates) + mean)
        key, value = self.in_heads(self.key(interests)), self.in_heads(self.value(interests))
        logits = torch.einsum("bmhk,brhk->bmhr", query, key) * self.scale
        toward, against = softmax_fp32(torch.cat((logits, -logits), dim=3)).chunk(2, dim=3)
        return torch.einsum("bmhr,brhk->bmhk", toward - against, value).flatten(2)

    def extend(
        self, state: InterestState, events: Tensor, log_weights: Tensor, fall: Tensor
    ) -> InterestState:
        """Merge the interests with the new events."""
        kept_B1 = (-fall).exp()
        roots_BL1 = (log_weights * 0.5).exp()[:, :, None]
        rows = events * roots_BL1
        interests, _ = extend_low_rank(state.interests * kept_B1.sqrt()[:, :, None], rows)
        total = state.total * kept_B1 + (rows * roots_BL1).sum(dim=1)
        weight = state.weight * kept_B1 + roots_BL1.square().sum(dim=1)
        return InterestState(interests, total, weight)


class ColumnReader(Reader):
    """Operator A: attends to all events through r columns.

    The keys are H W_k and the values H W_v, as in attention without factorisation, and H is
    (H V) V^T where its rank is at most r: queries go through V, and what is attended to are the
    columns H V. V is a constant to the gradient, which reaches the events through the columns.
    """

    def encode(self, events: Tensor, log_weights: Tensor) -> ColumnState:
        """Give the events in their principal coordinates."""
        _, axes = low_rank(events, self.rank)
        return ColumnState(torch.bmm(events, axes.transpose(1, 2)), axes, log_weights)

    def read(self, state: ColumnState, candidates: Tensor) -> Tensor:
        """Weigh the events for each candidate."""
        query = self.in_heads(self.query(candidates))
        key, value = self.in_heads(self.key(state.axes)), self.in_heads(self.value(state.axes))
        query = torch.einsum("bmhk,brhk->bmhr", query, key) * self.scale
        columns = state.columns[:, None]
        # Heads share the columns, so that they are but more queries; no (m, L) weights are held.
        attended = F.scaled_dot_product_attention(
            query.flatten(1, 2)[:, None],
            columns,
            columns,
            attn_mask=state.log_weights[:, None, None],
            scale=1.0,
        )
        attended = attended[:, 0].unflatten(1, (-1, self.num_heads))
        return torch.einsum("bmhr,brhk->bmhk", attended, value).flatten(2)

    def extend(
        self, state: ColumnState, events: Tensor, log_weights: Tensor, fall: Tensor
    ) -> ColumnState:
        """Factorise anew from the columns alone, and turn them to the new axes."""
        # The interests of the columns, as events: those of the history, whose events are not read.
        interests, _ = low_rank(state.columns, self.rank)
        _, axes = extend_low_rank(torch.bmm(interests, state.axes), events)
        turned = torch.bmm(state.columns, torch.bmm(state.axes, axes.transpose(1, 2)))
        columns = torch.cat((turned, torch.bmm(events, axes.transpose(1, 2))), dim=1)
        return ColumnState(columns, axes, torch.cat((state.log_weights - fall, log_weights), dim=1))
