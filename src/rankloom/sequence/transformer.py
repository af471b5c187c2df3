"""Transformer: each event attends to those before it, and the candidate to what comes out.

Paper: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018, arXiv:1808.09781.
Layer: x + g(LN(x)) for g = softmax(Q K^T / sqrt(d)) V (eq. 2), causal, then g = the FFN (eq. 4).
Differs from the paper: heads, a wider FFN, no dropout of weights; the candidate reads by attention.
Cost: M * (A + G) + D * W + Q parameters; L * (M * (A + L * W) + D * W + S) multiply-adds per row.
Shapes: L events of D, encoded to W; A, G: a layer's matrices, vectors; Q, S: the rest, the read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Generator, Tensor, nn

from rankloom.config import Config
from rankloom.errors import ConfigError, join_problems
from rankloom.layers.dropout import Dropout
from rankloom.layers.heads import head_problems, in_heads, out_of_heads
from rankloom.layers.init import normal_, xavier_uniform_
from rankloom.layers.linear import linear
from rankloom.layers.norm import LayerNorm
from rankloom.layers.protocols import Inputs, SequenceLayout

POSITION_STD = 0.02
"""Of the initial positions: small beside the events."""
FIRST_GAIN = 0.2
"""Of the last norm: encoded events begin about as large as embedded features. From 1, a
history that says nothing hid for long what the other features say."""


class TransformerConfig(Config):
    """Hyper-parameters of `Transformer` (arXiv:1808.09781)."""

    kind: Literal["transformer"] = "transformer"
    """Name of the encoder."""
    num_layers: PositiveInt = 2
    """Blocks of attention and feed-forward network."""
    dim: PositiveInt = 64
    """Width of an encoded event, and of the token."""
    num_heads: PositiveInt = 2
    """Heads of every attention, the candidate's too; a divisor of `dim`."""
    expansion: PositiveInt = 4
    """Hidden width of the feed-forward networks over `dim`; 1 in the paper."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping an element of an embedded event or of a block's two outputs, rounded
    to 1/256."""
    max_positions: PositiveInt | None = None
    """Newest events that have a position of their own, the older ones sharing the last; None: as
    many as the sequence's `max_length`."""
    read: Literal["target_attention", "newest"] = "target_attention"
    """The token: the encoded events weighted by the candidate, or the newest one alone, as in the
    paper, which needs no candidate."""


class TransformerState(NamedTuple):
    """The encoded events, which no candidate has entered."""

    events: Tensor
    """(B, L, W). Oldest first, then padding, which is zero."""
    mask: Tensor
    """(B, L) bool. True where there is an event; in an empty history, at the first place."""


class TransformerLayer(nn.Module):
    """Causal self-attention, then a feed-forward network, each added to its input."""

    def __init__(self, config: TransformerConfig, *, generator: Generator) -> None:
        super().__init__()
        dim = config.dim
        self.num_heads = config.num_heads
        self.attention_norm = LayerNorm(dim)
        # Without offsets, as in the paper: a key's would change no weight.
        self.query_key_value = nn.Parameter(torch.empty(3 * dim, dim))
        xavier_uniform_(self.query_key_value, fan_in=dim, fan_out=dim, generator=generator)
        self.out = linear(dim, dim, bias=False, generator=generator)
        self.feed_norm = LayerNorm(dim)
        self.up = linear(dim, config.expansion * dim, generator=generator)
        self.down = linear(config.expansion * dim, dim, generator=generator)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BLW: Tensor) -> Tensor:
        """Give the next (B, L, W); a place depends on itself and the places before it."""
        products = F.linear(self.attention_norm(x_BLW), self.query_key_value).chunk(3, dim=2)
        query, key, value = (in_heads(one, self.num_heads) for one in products)
        # No weights of (L, L) are ever held.
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x_BLW = x_BLW + self.dropout(self.out(out_of_heads(attended)))
        hidden = F.relu(self.up(self.feed_norm(x_BLW)))
        y_BLW: Tensor = x_BLW + self.dropout(self.down(hidden))
        return y_BLW


class Transformer(nn.Module):
    """Encodes a history by causal self-attention; the candidate then weighs what was encoded.

    Encoding is all but the read's cost and needs no candidate, so that it is computed once a user.
    Encoded events are the read's keys and its values: what is kept for a user is one (L, W) tensor.

    Example:
        >>> TransformerConfig(num_layers=1).dim
        64

    Raises:
        ConfigError: `num_heads` does not divide `dim`; or the read is by the candidate, and a
            column of the sequence shares no table with a feature of the candidate.
    """

    Config: ClassVar[type[Config]] = TransformerConfig
    reads_candidate: bool = False
    """Whether `read` looks at the candidate: it depends on the config."""

    def __init__(
        self, config: TransformerConfig, layout: SequenceLayout, *, generator: Generator
    ) -> None:
        super().__init__()
        check(config, layout)
        dim = config.dim
        self.config, self.event_dim = config, layout.width
        self.reads_candidate = config.read == "target_attention"
        self.project = linear(layout.width, dim, generator=generator)
        self.positions = nn.Parameter(torch.empty(config.max_positions or layout.max_length, dim))
        normal_(self.positions, std=POSITION_STD, generator=generator)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(config, generator=generator) for _ in range(config.num_layers)
        )
        self.norm = LayerNorm(dim)
        nn.init.constant_(self.norm.weight, FIRST_GAIN)
        if self.reads_candidate:
            self.query = linear(layout.width, dim, generator=generator)
        self.num_tokens = 1
        self.out_dim = dim

    def cost_letters(self) -> dict[str, int]:
        """Give the width and the sums that the `Cost:` line names."""
        dim, hidden = self.config.dim, self.config.dim * self.config.expansion
        query = (self.event_dim + 1) * dim if self.reads_candidate else 0
        return {
            "M": len(self.layers),
            "W": dim,
            "A": 4 * dim * dim + 2 * dim * hidden,
            "G": 5 * dim + hidden,
            "Q": len(self.positions) * dim + 3 * dim + query,
            "S": 2 * dim if self.reads_candidate else 0,
        }

    def encode(self, events: Tensor, mask: Tensor, times: Mapping[str, Tensor]) -> TransformerState:
        """Encode (B, L, D) events under a (B, L) mask."""
        del times
        count_B1 = mask.sum(dim=1, keepdim=True)
        place_BL = torch.ones_like(mask).cumsum(dim=1) - 1
        is_event_BL = place_BL < count_B1
        # Padding goes behind the events, where causality hides it: a mask of (L, L) is not needed.
        source_BL = torch.where(is_event_BL, place_BL + (~mask).sum(dim=1, keepdim=True), place_BL)
        events = events.gather(1, source_BL[:, :, None].expand(-1, -1, self.event_dim))
        # Counted from the newest event, so that neither padding nor truncation moves an event.
        position_BL = (count_B1 - 1 - place_BL).clamp(min=0, max=len(self.positions) - 1)
        x_BLW = self.dropout(self.project(events) + F.embedding(position_BL, self.positions))
        for layer in self.layers:
            x_BLW = layer(x_BLW)
        x_BLW = self.norm(x_BLW).masked_fill(~is_event_BL[:, :, None], 0.0)
        # A softmax over nothing is not a number.
        return TransformerState(x_BLW, place_BL < count_B1.clamp(min=1))

    def read(self, state: TransformerState, candidate: Tensor | None, inputs: Inputs) -> Tensor:
        """Give one token (B, 1, W); zeros for an empty history."""
        del inputs
        if not self.reads_candidate:
            newest_B1 = state.mask.sum(dim=1, keepdim=True) - 1
            return state.events.gather(1, newest_B1[:, :, None].expand(-1, -1, self.out_dim))
        assert candidate is not None
        query = in_heads(self.query(candidate)[:, None], self.config.num_heads)
        events = in_heads(state.events, self.config.num_heads)
        mask = state.mask[:, None, None]
        return out_of_heads(F.scaled_dot_product_attention(query, events, events, attn_mask=mask))


def check(config: TransformerConfig, layout: SequenceLayout) -> None:
    """Check a config against a history.

    Raises:
        ConfigError: They do not fit; all problems at once.
    """
    path = f"model.sequence.{layout.name}"
    problems = head_problems(path, dim=config.dim, num_heads=config.num_heads)
    missing = [column for column in layout.columns if column not in layout.candidate]
    if config.read == "target_attention" and missing:
        problems.append(
            f"{path}.read: target_attention compares events with the candidate, but no item "
            f"feature shares the table of {', '.join(missing)}. Give one the same table, or use "
            "newest."
        )
    if problems:
        raise ConfigError(join_problems(problems, where=path if problems[1:] else ""))
