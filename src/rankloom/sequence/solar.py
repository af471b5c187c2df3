"""SOLAR: a history as a few principal interests, read by softmax attention.

Paper: Zhang et al., "SOLAR: SVD-Optimized Lifelong Attention for Recommendation", arXiv:2603.02561.
Layer: H = U S V^T cut to rank r; softmax(q C^T) C with C = S V^T, or softmax(q V (U S)^T) U C.
Differs from the paper: unknown, as we know its abstract alone; `SOLAR` says what is inferred.
Cost: K * (P * D + 1) * W + Q parameters; L * (D * D + S) + 5 * D ** 3 + G multiply-adds per row.
Shapes: L events of D, K tokens of W by P matrices; Q: norm; S, G: the read of an event, the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Generator, Tensor, nn

from rankloom.config import Config
from rankloom.errors import ConfigError, join_problems
from rankloom.layers.heads import head_problems
from rankloom.layers.norm import RMSNorm
from rankloom.layers.protocols import Candidates, Inputs, SequenceLayout
from rankloom.ops import from_slots, to_slots
from rankloom.sequence.solar_reads import (
    ColumnReader,
    ColumnState,
    InterestReader,
    InterestState,
    Reader,
)

RECENCY_S = 30 * 86400.0
"""Seconds in which an event's weight first falls by half, with `recency: seconds`."""


class SOLARConfig(Config):
    """Hyper-parameters of `SOLAR` (arXiv:2603.02561)."""

    kind: Literal["solar"] = "solar"
    """Name of the encoder."""
    read: Literal["flat_in_length", "exact_at_low_rank"] = "flat_in_length"
    """What a candidate attends to. `flat_in_length`: the principal interests, at a cost that does
    not depend on the history's length; a softmax over them is another one than over events.
    `exact_at_low_rank`: the events through `rank` columns, which equals softmax attention where the
    history's rank is at most `rank`; its cost grows with the length."""
    rank: PositiveInt = 16
    """Principal interests; the width of an event where that is less."""
    dim: PositiveInt = 64
    """Width of a token."""
    num_heads: PositiveInt = 2
    """Heads of the attention; a divisor of `dim`. Each costs `exact_at_low_rank` as much."""
    recency: Literal["none", "events", "seconds"] = "events"
    """What an event's weight falls with, at a learned rate: the number of events after it, or the
    time until the newest. A weight raises the rank of no history, as a position added would."""
    candidates: Literal["independent", "set"] = "independent"
    """`set` gives a second token, of the same attention to the request's candidates: scores then
    depend on which candidates a request has, and a log must be grouped by request."""


READERS: dict[str, type[Reader]] = {
    "flat_in_length": InterestReader,
    "exact_at_low_rank": ColumnReader,
}


class SOLAR(nn.Module):
    """Factorises a history once a user; candidates read r interests or r columns of it.

    Known of the paper: attention through an SVD of the behaviours, with a softmax, lossless at low
    rank, O(L d r) instead of O(L^2 d); candidates scored as a set. Inferred: both reads (each
    fulfils one half of that claim: `exact_at_low_rank` is lossless, `flat_in_length` has the cost),
    the treatment of signs, recency as a weight, the gradient, the norm of the events (by row, which
    keeps the rank), and the set's attention to itself. The paper's figures were not reproduced.

    Where two interests of a history are equally long, their directions are arbitrary within their
    plane, and what `flat_in_length` reads of them is too. Histories of real events have none.

    Example:
        >>> SOLARConfig(read="exact_at_low_rank").rank
        16

    Raises:
        ConfigError: `num_heads` does not divide `dim`; a column of the sequence shares no table
            with a feature of the candidate; or recency goes by a time that the sequence has not.
    """

    Config: ClassVar[type[Config]] = SOLARConfig
    reads_candidate: ClassVar[bool] = True
    candidates: Candidates = "independent"
    """Whether tokens depend on the request's other candidates: it depends on the config."""

    def __init__(
        self, config: SOLARConfig, layout: SequenceLayout, *, generator: Generator
    ) -> None:
        super().__init__()
        check(config, layout)
        self.config, self.max_length = config, layout.max_length
        self.candidates = config.candidates

        def make_reader() -> Reader:
            rank = min(config.rank, layout.width)
            return READERS[config.read](
                layout.width,
                config.dim,
                rank=rank,
                num_heads=config.num_heads,
                generator=generator,
            )

        # Candidates are items as events are: one norm for both.
        self.norm = RMSNorm(layout.width)
        if config.recency != "none":
            self.rate = nn.Parameter(torch.zeros(1))
        self.history = make_reader()
        if config.candidates == "set":
            self.competitors = make_reader()
        self.num_tokens = 2 if config.candidates == "set" else 1
        self.out_dim = config.dim

    def cost_letters(self) -> dict[str, int]:
        """Give the numbers that the `Cost:` line names."""
        width, dim, rank = len(self.norm.weight), self.config.dim, self.history.rank
        projected = (self.history.num_matrices - 2 + 2 * rank) * width * dim
        is_exact = self.config.read == "exact_at_low_rank"
        return {
            "K": self.num_tokens,
            "P": self.history.num_matrices,
            "W": dim,
            "Q": width + (self.config.recency != "none"),
            "S": rank * (width + 2 * self.config.num_heads) if is_exact else 0,
            "G": self.num_tokens * (projected + 2 * rank * dim),
        }

    def encode(
        self, events: Tensor, mask: Tensor, times: Mapping[str, Tensor]
    ) -> InterestState | ColumnState:
        """Factorise (B, L, D) events under a (B, L) mask."""
        events, log_weights = self._weighed(events, mask, times)
        state: InterestState | ColumnState = self.history.encode(events, log_weights)
        return state

    def extend(
        self, state: Any, events: Tensor, mask: Tensor, times: Mapping[str, Tensor]
    ) -> InterestState | ColumnState:
        """Give the state of a history to which events were added.

        It equals `encode` of all events where the older ones have a rank of at most `rank`; else
        the older ones count without the directions that were dropped.

        Args:
            state: Of the older events.
            events: (B, L, D). The new ones, padded on the left; some histories may have none.
            mask: (B, L) bool.
            times: gap_previous and gap_newest (B, L) of the new events, for recency by time.
        """
        count_B1 = mask.sum(dim=1, keepdim=True)
        passed_B1 = count_B1
        if self.config.recency == "seconds":
            # From the newest of the older events to the newest of the new ones.
            first_B1 = (mask.shape[1] - count_B1).clamp(max=mask.shape[1] - 1)
            passed_B1 = (times["gap_previous"] + times["gap_newest"]).gather(1, first_B1)
            passed_B1 = passed_B1.masked_fill(count_B1 == 0, 0.0)
        events, log_weights = self._weighed(events, mask, times)
        fall_B1 = self._fall(passed_B1, events[:, :1, 0])
        extended: InterestState | ColumnState = self.history.extend(
            state, events, log_weights, fall_B1
        )
        return extended

    def read(self, state: Any, candidate: Tensor | None, inputs: Inputs) -> Tensor:
        """Give (B, 1, W), or (B, 2, W) with the set; the first is zero for an empty history."""
        assert candidate is not None
        candidate = self.norm(candidate)
        token = self.history.read(state, candidate[:, None])
        if self.config.candidates == "independent":
            return token
        assert inputs.slots is not None
        assert inputs.slot_of_row is not None
        placed = to_slots(candidate, inputs.slots)
        is_row = to_slots(torch.ones_like(candidate[:, 0]), inputs.slots)
        log_weights = torch.zeros_like(is_row).masked_fill(is_row == 0, lowest(candidate))
        competitors = self.competitors.encode(placed, log_weights)
        seen = from_slots(self.competitors.read(competitors, placed), inputs.slot_of_row)
        return torch.cat((token, seen[:, None]), dim=1)

    def _weighed(
        self, events: Tensor, mask: Tensor, times: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Give normalised events, zero where padded, and the logarithms of their weights."""
        events = self.norm(events.masked_fill(~mask[:, :, None], 0.0))
        if self.config.recency == "seconds":
            age_BL = times["gap_newest"]
        else:
            # Counted from the newest event, so that neither padding nor truncation moves an event.
            age_BL = mask.sum(dim=1, keepdim=True) - mask.cumsum(dim=1)
        log_weights = -self._fall(age_BL, events[:, :, 0])
        return events, log_weights.masked_fill(~mask, lowest(events))

    def _fall(self, age_Bn: Tensor, like_Bn: Tensor) -> Tensor:
        """Give by how much the logarithm of a weight has fallen at an age."""
        if self.config.recency == "none":
            return torch.zeros_like(like_Bn)
        scale = RECENCY_S if self.config.recency == "seconds" else self.max_length
        # softplus(0) = log 2: the weight first halves over the scale.
        return age_Bn * (F.softplus(self.rate) / scale)


def lowest(x: Tensor) -> float:
    """Give a number whose exponential is zero, and of which a finite one may be taken away."""
    return torch.finfo(x.dtype).min / 2


def check(config: SOLARConfig, layout: SequenceLayout) -> None:
    """Check a config against a history.

    Raises:
        ConfigError: They do not fit; all problems at once.
    """
    path = f"model.sequence.{layout.name}"
    problems = head_problems(path, dim=config.dim, num_heads=config.num_heads)
    missing = [column for column in layout.columns if column not in layout.candidate]
    if missing:
        problems.append(
            f"{path}.kind: solar compares events with the candidate, but no item feature shares "
            f"the table of {', '.join(missing)}. Give one the same table, or use masked_mean."
        )
    if config.recency == "seconds" and not layout.has_times:
        problems.append(
            f"{path}.recency: seconds needs the events' times. Got a sequence without a time "
            "column. Name one in the schema, or use events."
        )
    if problems:
        raise ConfigError(join_problems(problems, where=path if problems[1:] else ""))
