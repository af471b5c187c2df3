"""Large Memory Network: what all users did is written into one memory, and each candidate reads it.

Paper: Lu et al., "Large Memory Network for Recommendation", WWW 2025, arXiv:2502.05558.
Layer: o(q) = sum_k w_k V[slot_k], q = MLP [x, u]; adds lambda SmoothL1(mean_t o(q_t), W u).
Differs from the paper: its equations are not known; what is known and what inferred says `LMN`.
Cost: P + A + V parameters; Q + A + R multiply-adds per row.
Shapes: L events x of D; A, V: the memory's keys, values; R: those read; P, Q: the linear layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt
from torch import Generator, Tensor, nn

from rankloom.config import Config
from rankloom.errors import ConfigError, did_you_mean, join_problems
from rankloom.layers.linear import linear
from rankloom.layers.memory import Found, ProductKeyMemory, Weights, memory_problems
from rankloom.layers.protocols import Inputs, SequenceLayout
from rankloom.schema import Rate


class LMNConfig(Config):
    """Hyper-parameters of `LMN` (arXiv:2502.05558)."""

    kind: Literal["lmn"] = "lmn"
    """Name of the encoder."""
    num_slots: PositiveInt = 65_536
    """Slots of the memory: the square of a whole number. Finding some of them costs its root."""
    top_k: PositiveInt = 16
    """Slots that a query reads; below the root of `num_slots`."""
    weights: Weights = "fading"
    """Of the slots that are read: a softmax of their scores, or one in which the last of them fades
    in from zero; with the former, few scores depend on the last bit of a sum."""
    dim: PositiveInt = 32
    """Width of a slot's value, and of the tokens."""
    key_dim: PositiveInt = 16
    """Width of a key on each of the two axes."""
    hidden_dim: PositiveInt = 64
    """Hidden width of the MLP that makes queries."""
    user: tuple[str, ...] | None = None
    """Features that make queries aware of the user, beside the mean of the history; null: all of
    the user's. Without any, users of equal histories read the same slots."""
    write_weight: NonNegativeFloat = 0.1
    """Factor of the loss that writes histories into the memory; 0: it is written by ranking only,
    and training reads nothing for events."""


class LMNState(NamedTuple):
    """The history; scoring uses its mean alone."""

    mean: Tensor
    """(B, D). Zero for an empty history."""
    events: Tensor
    """(B, L, D)."""
    mask: Tensor
    """(B, L) bool."""


class LMN(nn.Module):
    """Reads a memory that all users share, by a query made of candidate and user.

    Gives two tokens: what the memory holds about the candidate for such a user, and the user's own
    history pooled, W u. The history reaches scoring through u alone, made once a user, so that a
    candidate costs the same at any L. In training one read for each event, all of a history as one
    weighted sum of L K rows, writes the history into the memory.

    Known of the paper: keys on two axes, whose K best slots are read; a memory of a million slots
    by product quantisation; queries aware of the user; a Smooth-L1 loss that writes the history
    with the user's features into the slots; padding masked. Inferred: that the memory is one of
    product keys (`ProductKeyMemory`); u, the mean of the events and the user's features; the form
    of the loss, which writes W u and leaves it alone: W is trained by ranking, since with both of
    its sides trained the loss would make them zero. Not verified against published numbers.

    The memory's table, `<sequence>/memory` by name, is trained by the optimizer of tables; the log
    shows how evenly its slots are read.

    Example:
        >>> LMNConfig(num_slots=1_000_000, user=("user_id",)).top_k
        16

    Raises:
        ConfigError: `num_slots` is no square, `top_k` not below its root, or `user` names what is
            no feature of user or request.
    """

    Config: ClassVar[type[Config]] = LMNConfig
    reads_candidate: ClassVar[bool] = True

    def __init__(self, config: LMNConfig, layout: SequenceLayout, *, generator: Generator) -> None:
        super().__init__()
        self.user = user_features(config, layout)
        user_dim = layout.width + sum(layout.features[name].width for name in self.user)
        self.config, self.event_dim, self.user_dim = config, layout.width, user_dim
        # The first layer of the MLP on [x, u], in two: that of u is the same for all x.
        self.of_event = linear(layout.width, config.hidden_dim, bias=False, generator=generator)
        self.of_user = linear(user_dim, config.hidden_dim, generator=generator)
        self.to_query = linear(config.hidden_dim, 2 * config.key_dim, generator=generator)
        self.memory = ProductKeyMemory(
            f"{layout.name}/memory",
            num_slots=config.num_slots,
            dim=config.dim,
            key_dim=config.key_dim,
            top_k=config.top_k,
            weights=config.weights,
            generator=generator,
        )
        self.pool = linear(user_dim, config.dim, generator=generator)
        self.auxiliary_weights = {"write": config.write_weight} if config.write_weight else {}
        self.num_tokens = 2
        self.out_dim = config.dim

    def cost_letters(self) -> dict[str, int]:
        """Give the sums that the `Cost:` line names."""
        config = self.config
        query, hidden = 2 * config.key_dim, config.hidden_dim
        first = (self.event_dim + self.user_dim) * hidden
        products = first + hidden * query + self.user_dim * config.dim
        return {
            "A": 2 * self.memory.row_keys.numel(),
            "V": config.num_slots * config.dim,
            "R": config.top_k * config.dim,
            # Offsets, and the norm's scale and shift.
            "P": products + hidden + query + config.dim + 2 * query,
            "Q": products,
        }

    def encode(self, events: Tensor, mask: Tensor, times: Mapping[str, Tensor]) -> LMNState:
        """Average (B, L, D) events under a (B, L) mask."""
        del times
        total_BD = events.masked_fill(~mask[:, :, None], 0.0).sum(dim=1)
        return LMNState(total_BD / mask.sum(dim=1, keepdim=True).clamp(min=1), events, mask)

    def read(self, state: LMNState, candidate: Tensor | None, inputs: Inputs) -> Tensor:
        """Give two tokens (B, 2, dim): what the memory gives, and the history pooled."""
        user = self._user(state, inputs)
        return self._tokens(self._search(candidate, self.of_user(user)), self.pool(user))

    def read_in_training(
        self, state: LMNState, candidate: Tensor | None, inputs: Inputs
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Give the tokens too; `write`, (B,) of that loss; `memory`, (B, K) slots that were read.

        An empty history writes nothing.
        """
        user = self._user(state, inputs)
        of_user, pooled = self.of_user(user), self.pool(user)
        found = self._search(candidate, of_user)
        more = {"memory": found.slots}
        if self.auxiliary_weights:
            more["write"] = self._write_loss(state, of_user, pooled)
        return self._tokens(found, pooled), more

    def _user(self, state: LMNState, inputs: Inputs) -> Tensor:
        """Give u (B, U)."""
        return torch.cat([state.mean, *(inputs.features[name] for name in self.user)], dim=1)

    def _search(self, x: Tensor | None, of_user: Tensor) -> Found:
        """Search for (..., D) candidates or events of users whose first layer is given."""
        assert x is not None
        return self.memory.search(self.to_query(F.relu(self.of_event(x) + of_user)))

    def _tokens(self, found: Found, pooled_BW: Tensor) -> Tensor:
        return torch.cat([self.memory.table(found)[:, None], pooled_BW[:, None]], dim=1)

    def _write_loss(self, state: LMNState, of_user: Tensor, pooled_BW: Tensor) -> Tensor:
        """Give (B,): how far the memory, read by every event, is from the history pooled."""
        slots, weights = self._search(state.events, of_user[:, None])
        weights = weights.masked_fill(~state.mask[:, :, None], 0.0)
        share_B1 = 1 / state.mask.sum(dim=1, keepdim=True).clamp(min=1)
        held_BW = self.memory.table(Found(slots.flatten(1), weights.flatten(1) * share_B1))
        off_BW = (held_BW - pooled_BW.detach()).abs()
        # Smooth L1, written out: hoist knows these operations to be element-wise.
        loss_B = torch.where(off_BW < 1, 0.5 * off_BW * off_BW, off_BW - 0.5).mean(dim=1)
        return loss_B.masked_fill(~state.mask.any(dim=1), 0.0)


def user_features(config: LMNConfig, layout: SequenceLayout) -> tuple[str, ...]:
    """Give the features that make u, beside the history.

    Raises:
        ConfigError: The config does not fit; all problems at once.
    """
    path = f"model.sequence.{layout.name}"
    problems = memory_problems(path, num_slots=config.num_slots, top_k=config.top_k)
    features = layout.features
    if config.user is None:
        # Another embedding set says the same of the user.
        chosen = [n for n, one in features.items() if one.rate <= Rate.USER and "@" not in n]
    else:
        chosen = list(config.user)
        fit = [name for name, one in features.items() if one.rate < Rate.CANDIDATE]
        problems += [
            f"{path}.user: {name!r} is no feature of user or context.{did_you_mean(name, fit)}"
            for name in chosen
            if name not in fit
        ]
    if problems:
        raise ConfigError(join_problems(problems, where=path if problems[1:] else ""))
    return tuple(chosen)
