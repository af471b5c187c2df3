"""The network: door, sequence encoders, tokenization, interaction, head.

Shapes: R requests, B rows, L history length, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rankloom.layers.linear import linear
from rankloom.layers.protocols import EventInputs, Inputs, Layout, Output, run_layers
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
    def auxiliary_weights(self) -> dict[str, float]:
        """Set of auxiliary towers -> its factor in the loss."""
        weight = getattr(self.interaction, "auxiliary_weight", 0.0)
        return dict.fromkeys(self.towers, weight)

    def forward(self, inputs: Inputs) -> Output:
        """Score every row.

        Args:
            inputs: From the embedder, at R and B rows.

        Returns:
            Task -> (B,) logits; auxiliary logits `after_<layer>/<task>` in training mode.
        """
        rows = self._door(inputs)
        rows = rows._replace(features={**rows.features, **self._read_histories(rows)})
        stack = run_layers(self.interaction, self.tokenization(rows))
        auxiliary: dict[str, Tensor] = {}
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

    def _read_histories(self, rows: Inputs) -> dict[str, Tensor]:
        """Give each sequence's tokens side by side: (B, n * D)."""
        read = {}
        for name in self.layout.sequences:
            encoder = self.encoders[f"history_{name}"]
            history, layout = rows.sequences[name], self.layout.sequences[name]
            candidate = None
            if encoder.reads_candidate:
                same = [rows.features[layout.candidate[column]] for column in layout.columns]
                candidate = torch.cat(same, dim=1) if len(same) > 1 else same[0]
            state = encoder.encode(history.events, history.mask, history.times)
            read[name] = encoder.read(state, candidate, rows).flatten(1)
        return read
