"""What passes between the parts of a network, and what each slot promises.

    Inputs --door--> Inputs at rows --sequence--> features --tokenization--> Tokens
           --interaction--> Stack --head--> Output

Every slot class is built as `Class(config, layout, *, generator)`. It declares `Config`; a layout
says what comes in, without torch, so that a wrong combination fails before anything is built.

Shapes: R requests, B rows, L history length, T tokens, D width (see `rankloom.shapes`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rankloom.schema import Rate

Takes = Literal["tokens", "fields", "flat"]
"""What an interaction is given: tokens by rate, one vector per feature, or one wide vector."""

Candidates = Literal["independent", "set"]
"""Whether a candidate's score depends on the request's other candidates."""

State = Any
"""A NamedTuple of tensors that one interaction passes between its own layers."""


class EventInputs(NamedTuple):
    """One history, padded on the left so that the newest event is last."""

    events: Tensor
    """(R, L, D). The columns' embeddings side by side; zero where padded."""
    mask: Tensor
    """(R, L) bool. True where there is an event."""
    times: dict[str, Tensor]
    """gap_previous and gap_newest (R, L), user-rate, and age_newest (R,), request-rate: seconds.
    Empty when the sequence has no time column."""


class Inputs(NamedTuple):
    """What the embedder hands to the network; after the door every tensor has B rows."""

    features: dict[str, Tensor]
    """Feature -> (R or B, width). A feature of another embedding set is `feature@set`."""
    sequences: dict[str, EventInputs]
    """Sequence feature -> its history."""
    ids: dict[str, Tensor]
    """Feature -> (R or B,) int64 raw ids, for the features a part asked for."""
    request_index: Tensor
    """(B,) int64, non-decreasing. The request of each row."""
    slots: Tensor | None = None
    """(R, N) int64. Each request's rows, B for padding; only where a part `needs_slots`."""
    slot_of_row: Tensor | None = None
    """(B,) int64. Place of each row in the flattened slots."""


class Tokens(NamedTuple):
    """Tokens by rate; each tensor may have no token."""

    user: Tensor
    """(B, T_user, D)."""
    request: Tensor
    """(B, T_request, D)."""
    candidate: Tensor
    """(B, T_candidate, D)."""

    def all(self) -> Tensor:
        """Give (B, T, D): user tokens, request tokens, candidate tokens."""
        parts = [part for part in self if part.shape[1]]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


class Output(NamedTuple):
    """What the network gives."""

    logits: dict[str, Tensor]
    """Task -> (B,). The task's own raw output; losses and predictions own the link."""
    auxiliary: dict[str, Tensor]
    """Name -> per-row tensors for auxiliary losses and the log; empty in eval mode."""


@dataclass(frozen=True, kw_only=True)
class FeatureLayout:
    """One feature as the tokenization sees it."""

    width: int
    """Width of its vector."""
    rate: Rate
    """How often it must be computed."""


@dataclass(frozen=True, kw_only=True)
class SequenceLayout:
    """One sequence feature as its encoder sees it."""

    name: str
    """The feature's name."""
    columns: Mapping[str, int]
    """Column -> width; an event is these side by side."""
    rate: Rate
    """How often the history itself changes."""
    candidate: Mapping[str, str]
    """Column -> the item feature of the same table, for encoders that compare; may be partial."""
    max_length: int
    """Most events kept."""
    has_times: bool
    """Whether `EventInputs.times` is filled."""
    features: Mapping[str, FeatureLayout] = field(default_factory=dict)
    """What `read` finds beside the history in `Inputs.features`; the assembly fills it."""

    @property
    def width(self) -> int:
        """Width of an event."""
        return sum(self.columns.values())


@dataclass(frozen=True, kw_only=True)
class TokenLayout:
    """What a tokenization gives."""

    gives: Takes
    """Its form."""
    num_user: int = 0
    """User tokens (tokens only)."""
    num_request: int = 0
    """Request tokens (tokens only)."""
    num_candidate: int = 0
    """Candidate tokens (tokens only); for fields, all of them."""
    dim: int
    """Width of a token or a field, or the whole width of the flat vector."""
    global_token: int | None = None
    """Place of the token that is made of all groups, among all tokens; None without one."""

    @property
    def num_tokens(self) -> int:
        """T, or F for fields."""
        return self.num_user + self.num_request + self.num_candidate


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a slot is built for; the assembly fills it from the door to the head."""

    features: Mapping[str, FeatureLayout]
    """Feature -> width and rate, in order; once encoders stand, sequences are among them."""
    sequences: Mapping[str, SequenceLayout] = field(default_factory=dict)
    """Sequence feature -> what its encoder sees."""
    tasks: tuple[str, ...] = ()
    """Names of the tasks, in order."""
    tables: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Table -> (num_embeddings, embedding_dim)."""
    tokens: TokenLayout | None = None
    """What the tokenization gives; known to interaction and head."""
    num_layers: int = 0
    """Layers of the interaction; known to the head."""
    out_dim: int = 0
    """Width of the interaction's readout; known to the head."""


@runtime_checkable
class Tokenization(Protocol):
    """Slot: `Inputs` at rows -> `Tokens`, fields (B, F, d) or flat (B, W)."""

    gives: ClassVar[Takes]
    """The form of what `forward` gives."""
    tokens: TokenLayout
    """What `forward` gives."""

    def __call__(self, inputs: Inputs) -> Tokens | Tensor:
        """Make the interaction's input."""


@runtime_checkable
class SequenceEncoder(Protocol):
    """Slot: a history -> tokens. `encode` never sees the candidate. Built for a SequenceLayout.

    An encoder whose tokens depend on the request's other candidates says `candidates = "set"`: then
    `read` finds `slots` and `slot_of_row` in its inputs.
    """

    reads_candidate: bool
    """Whether `read` looks at the candidate, which makes its tokens candidate-rate."""
    num_tokens: int
    """n: tokens that `read` gives."""
    out_dim: int
    """Their width."""

    def encode(self, events: Tensor, mask: Tensor, times: Mapping[str, Tensor]) -> State:
        """Encode (B, L, D) events under a (B, L) mask."""

    def read(self, state: State, candidate: Tensor | None, inputs: Inputs) -> Tensor:
        """Give (B, n, out_dim) tokens; `candidate` is (B, D), the candidate as an event."""


@runtime_checkable
class AuxiliarySequenceEncoder(SequenceEncoder, Protocol):
    """A history encoder that trains on losses of its own, beside the tasks'."""

    auxiliary_weights: Mapping[str, float]
    """Loss -> its factor."""

    def read_in_training(
        self, state: State, candidate: Tensor | None, inputs: Inputs
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Give what `read` gives; and (B,) of each loss, with what else the log shows of rows."""


@runtime_checkable
class Interaction(Protocol):
    """Slot: tokens -> a state, layer by layer, and what heads read of it."""

    takes: ClassVar[Takes]
    """The form of its input."""
    candidates: ClassVar[Candidates]
    """`independent` or `set`."""
    layers: nn.ModuleList
    """Each maps a state to a state."""
    out_dim: int
    """Width of the readout."""
    auxiliary_after: tuple[int, ...]
    """Layers (counted from 1) whose readout gets an auxiliary tower per task."""

    def embed_in(self, tokens: Any) -> State:
        """Make the first state of what the tokenization gives."""

    def features(self, state: State) -> Tensor:
        """Give (B, T, D): what a head that steps through the layers may read."""

    def readout(self, state: State) -> Tensor:
        """Give (B, out_dim)."""


class Stack(NamedTuple):
    """An interaction after its run: the states before the first layer and after each."""

    interaction: Any
    """The interaction that made the states."""
    states: tuple[State, ...]
    """M + 1 states."""

    def readout(self, after: int = -1) -> Tensor:
        """Give (B, out_dim) after layer `after`; the last by default."""
        result: Tensor = self.interaction.readout(self.states[after])
        return result

    def features(self, after: int = -1) -> Tensor:
        """Give (B, T, D) after layer `after`; the last by default."""
        result: Tensor = self.interaction.features(self.states[after])
        return result


@runtime_checkable
class Head(Protocol):
    """Slot: a stack -> one logit per task."""

    def __call__(self, stack: Stack, inputs: Inputs) -> dict[str, Tensor]:
        """Give task -> (B,) logits."""


def run_layers(interaction: Any, tokens: Any) -> Stack:
    """Run an interaction from its input to its last layer."""
    states = [interaction.embed_in(tokens)]
    for layer in interaction.layers:
        states.append(layer(states[-1]))
    return Stack(interaction, tuple(states))
