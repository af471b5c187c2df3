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
        auxiliary_weights: Name in `Output.auxiliary` -> factor. What has this name is a loss of
            each row; a tower set's logits are named `<set>/<task>` and are trained on the same
            labels.
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
        for name, weight in self.auxiliary_weights.items():
            losses = self._auxiliary(name, output.auxiliary, batch)
            if losses:
                auxiliary[name] = torch.stack(losses).sum()
                total = total + weight * auxiliary[name]
        return LossValues(total, tasks, auxiliary)

    def _auxiliary(self, name: str, given: Mapping[str, Tensor], batch: Batch) -> list[Tensor]:
        """Give the mean of a loss that the network made, or one for each task of a tower set."""
        if name in given:
            return [given[name].mean()]
        logits = {
            task: given[f"{name}/{task}"] for task in self.schema.tasks if f"{name}/{task}" in given
        }
        return [self._mean(task, logits, batch) for task in logits]

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
