"""The training loss: per-task means with masks and weights, and the model's auxiliary terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from rankloom.data.batch import Batch
from rankloom.layers.protocols import Output
from rankloom.losses.tasks import row_losses
from rankloom.schema import Schema


class LossValues(NamedTuple):
    """What one batch cost."""

    total: Tensor
    """() The number that is minimized."""
    tasks: dict[str, Tensor]
    """Task -> () mean loss, before `loss_weight`."""
    auxiliary: dict[str, Tensor]
    """Auxiliary term -> () mean, before its weight."""


class Loss:
    """Sum of the tasks' mean losses and the weighted auxiliary terms.

    A row counts for a task where its mask is true, and where the task it is conditional on has
    label 1 if it trains on `conditional_rows`. Weighted losses are divided by the number of rows
    that count, not by the sum of the weights, so that a weight means the same in every batch.

    Args:
        schema: The tasks.
        auxiliary_weights: Tower set of `Output.auxiliary` -> factor: its logits are named
            `<set>/<task>` and are trained on the same labels.
    """

    def __init__(
        self, schema: Schema, *, auxiliary_weights: Mapping[str, float] | None = None
    ) -> None:
        self.schema = schema
        self.auxiliary_weights = dict(auxiliary_weights or {})

    def __call__(self, output: Output, batch: Batch) -> LossValues:
        """Reduce a batch's outputs to the number that is minimized."""
        tasks = {name: self._mean(name, output.logits, batch) for name in self.schema.tasks}
        total = torch.stack(
            [loss * self.schema.tasks[name].loss_weight for name, loss in tasks.items()]
        ).sum()
        auxiliary: dict[str, Tensor] = {}
        for tower_set, weight in self.auxiliary_weights.items():
            logits = {
                name: output.auxiliary[f"{tower_set}/{name}"]
                for name in self.schema.tasks
                if f"{tower_set}/{name}" in output.auxiliary
            }
            if logits:
                losses = [self._mean(name, logits, batch) for name in logits]
                auxiliary[tower_set] = torch.stack(losses).sum()
                total = total + weight * auxiliary[tower_set]
        return LossValues(total, tasks, auxiliary)

    def _mean(self, task: str, logits: Mapping[str, Tensor], batch: Batch) -> Tensor:
        spec = self.schema.tasks[task]
        losses = row_losses(task, logits, batch.labels[task], self.schema)
        if task in batch.weights:
            losses = losses * batch.weights[task]
        mask = batch.masks.get(task)
        if spec.given is not None and spec.loss == "conditional_rows":
            reached = batch.labels[spec.given] > 0
            mask = reached if mask is None else mask & reached
        if mask is None:
            return losses.mean()
        return losses.where(mask, 0.0).sum() / mask.sum().clamp(min=1)
