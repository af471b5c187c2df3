"""The network: door, sequence encoders, tokenization, interaction, head.

Shapes: R requests, B rows, L history length, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rankloom.data.batch import make_slots
from rankloom.layers.linear import linear
from rankloom.layers.protocols import (
    AuxiliarySequenceEncoder,
    Candidates,
    EventInputs,
    Inputs,
    Layout,
    Output,
    run_layers,
)
from rankloom.ops import expand
from rankloom.schema import Rate


class Network(nn.Module):
    """Everything between the embedder and the logits; what hoisting captures.

    Args:
        layout: What the embedder gives.
        encoders: Sequence feature -> its encoder.
        tokenization: Slot.
        interaction: Slot.
        head: Slot.
        generator: Source of the auxiliary towers' initial values.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        encoders: Mapping[str, nn.Module],
        tokenization: nn.Module,
        interaction: nn.Module,
        head: nn.Module,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.layout = layout
        # Prefixes, because a sequence or a task may be called what a module dictionary calls its
        # methods, such as `items`.
        self.encoders: Any = nn.ModuleDict({f"history_{n}": one for n, one in encoders.items()})
        self.tokenization: Any = tokenization
        self.interaction: Any = interaction
        self.head: Any = head
        slot: Any = interaction
        self.towers: Any = nn.ModuleDict(
            {
                f"after_{layer}": nn.ModuleDict(
                    {
                        f"task_{task}": linear(slot.out_dim, 1, generator=generator)
                        for task in layout.tasks
                    }
                )
                for layer in slot.auxiliary_after
            }
        )

    @property
    def candidates(self) -> Candidates:
        """Whether a candidate's score depends on the request's other candidates: if any part's."""
        parts = (self.interaction, *self.encoders.values())
        is_set = any(getattr(part, "candidates", "independent") == "set" for part in parts)
        return "set" if is_set else "independent"

    @property
    def auxiliary_weights(self) -> dict[str, float]:
        """Set of auxiliary towers, or `<sequence>/<loss>` of an encoder -> factor in the loss."""
        weight = getattr(self.interaction, "auxiliary_weight", 0.0)
        weights: dict[str, float] = dict.fromkeys(self.towers, weight)
        for name in self.layout.sequences:
            encoder = self.encoders[f"history_{name}"]
            if isinstance(encoder, AuxiliarySequenceEncoder):
                weights |= {f"{name}/{key}": one for key, one in encoder.auxiliary_weights.items()}
        return weights

    def forward(self, inputs: Inputs) -> Output:
        """Score every row.

        Args:
            inputs: From the embedder, at R and B rows.

        Returns:
            Task -> (B,) logits; in training mode, auxiliary logits `after_<layer>/<task>` and what
            encoders give, as `<sequence>/<name>`.
        """
        rows = self._door(inputs)
        read, auxiliary = self._read_histories(rows)
        rows = rows._replace(features={**rows.features, **read})
        stack = run_layers(self.interaction, self.tokenization(rows))
        if self.training:
            for name, towers in self.towers.items():
                readout = stack.readout(int(name.removeprefix("after_")))
                for task in self.layout.tasks:
                    auxiliary[f"{name}/{task}"] = towers[f"task_{task}"](readout).squeeze(1)
        return Output(self.head(stack, rows), auxiliary)

    def _door(self, inputs: Inputs) -> Inputs:
        """Give every row its request's inputs; the only place where rates meet."""
        index = inputs.request_index
        layout = self.layout
        if self.candidates == "set" and inputs.slots is None:
            slots, slot_of_row = make_slots(index, int(index[-1]) + 1)
            inputs = inputs._replace(slots=slots, slot_of_row=slot_of_row)

        def at_rows(value: Tensor, rate: Rate) -> Tensor:
            if rate >= Rate.CANDIDATE:
                return value
            # Requests are non-empty and in order, so that as many requests as rows means that
            # they are the same; captured programs always expand, since R and B are symbols there.
            if not torch.compiler.is_exporting() and value.shape[0] == index.shape[0]:
                return value
            return expand(value, index)

        sequences = {}
        for name, history in inputs.sequences.items():
            rate = layout.sequences[name].rate
            sequences[name] = EventInputs(
                at_rows(history.events, rate),
                at_rows(history.mask, rate),
                {key: at_rows(value, rate) for key, value in history.times.items()},
            )
        features = {
            name: at_rows(value, layout.features[name].rate)
            for name, value in inputs.features.items()
        }
        ids = {
            name: at_rows(value, layout.features[name].rate) for name, value in inputs.ids.items()
        }
        return inputs._replace(features=features, sequences=sequences, ids=ids)

    def _read_histories(self, rows: Inputs) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Give each sequence's tokens side by side, (B, n * D); and auxiliary tensors."""
        read: dict[str, Tensor] = {}
        auxiliary: dict[str, Tensor] = {}
        for name in self.layout.sequences:
            encoder = self.encoders[f"history_{name}"]
            history, layout = rows.sequences[name], self.layout.sequences[name]
            candidate = None
            if encoder.reads_candidate:
                same = [rows.features[layout.candidate[column]] for column in layout.columns]
                candidate = torch.cat(same, dim=1) if len(same) > 1 else same[0]
            state = encoder.encode(history.events, history.mask, history.times)
            if self.training and isinstance(encoder, AuxiliarySequenceEncoder):
                tokens, more = encoder.read_in_training(state, candidate, rows)
                auxiliary |= {f"{name}/{key}": value for key, value in more.items()}
            else:
                tokens = encoder.read(state, candidate, rows)
            read[name] = tokens.flatten(1)
        return read, auxiliary
