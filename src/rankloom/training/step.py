"""One step of training, in the order of the mathematics."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rankloom.data.batch import Batch
from rankloom.embedding import Embedder
from rankloom.losses import Loss, LossValues
from rankloom.training.sparse import SparseOptimizer


class StepResult(NamedTuple):
    """What one step was like."""

    losses: LossValues
    """Detached."""
    grad_norm: Tensor | None
    """() norm of the dense gradient before clipping; none when it is not clipped."""
    choices: dict[str, Tensor]
    """Auxiliary output of whole numbers, such as the slots that rows read -> (B, ...) int64."""


def train_step(
    embedder: Embedder,
    network: nn.Module,
    loss_fn: Loss,
    batch: Batch,
    *,
    dense: Optimizer,
    sparse: SparseOptimizer,
    max_grad_norm: float | None,
    autocast: Any,
) -> StepResult:
    """Run one forward, backward and update of dense parameters and used table rows.

    No logging, no checkpointing, no device moves, and no host synchronization.
    """
    dense.zero_grad(set_to_none=True)
    inputs, lookups = embedder(batch)  # the looked-up vectors are leaves
    with autocast:
        output = network(inputs)
    losses = loss_fn(output, batch)
    losses.total.backward()
    grad_norm = None
    if max_grad_norm is not None:
        # A sparse gradient is a table's.
        dense_ones = [p for p in network.parameters() if p.grad is None or not p.grad.is_sparse]
        grad_norm = nn.utils.clip_grad_norm_(dense_ones, max_grad_norm)
    dense.step()
    sparse.step(lookups)
    choices = {n: one for n, one in output.auxiliary.items() if not one.is_floating_point()}
    return StepResult(_detached(losses), grad_norm, choices)


def _detached(losses: LossValues) -> LossValues:
    with torch.no_grad():
        return LossValues(
            losses.total.detach(),
            {name: value.detach() for name, value in losses.tasks.items()},
            {name: value.detach() for name, value in losses.auxiliary.items()},
        )
