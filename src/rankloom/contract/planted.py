"""A planted signal that no linear model can see, and how well a model learns it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from rankloom.contract.subject import Subject
from rankloom.data.batch import Batch
from rankloom.losses import Loss
from rankloom.metrics import auc
from rankloom.models import Model
from rankloom.training.config import AdamWConfig, RowwiseAdagradConfig
from rankloom.training.optimizer import dense_optimizer
from rankloom.training.sparse import sparse_optimizer
from rankloom.training.step import train_step

STEPS = 150
ROWS = 512


def planted_auc(subject: Subject, *, steps: int = STEPS) -> float:
    """Train on the planted signal; give the AUC on rows that were not trained on."""
    torch.manual_seed(0)
    model = subject.build()
    train(model, _batches(subject, steps), steps=steps)
    held_out = _planted(subject, seed=10**6, rows=4096)
    scores = subject.logits(model, held_out)[:, 0]
    return auc(held_out.labels["click"].numpy(), scores.numpy())


def train(model: Model, batches: Iterator[Batch], *, steps: int) -> None:
    """Make some steps at rates that suit tiny models."""
    import contextlib

    model.train()
    dense = dense_optimizer(model.network, AdamWConfig(lr=0.01))
    sparse = sparse_optimizer(model.sparse_tables(), RowwiseAdagradConfig(lr=0.1))
    loss = Loss(model.schema, auxiliary_weights=model.network.auxiliary_weights)
    for _ in range(steps):
        train_step(
            model.embedder,
            model.network,
            loss,
            next(batches),
            dense=dense,
            sparse=sparse,
            max_grad_norm=None,
            autocast=contextlib.nullcontext(),
        )


def _batches(subject: Subject, count: int) -> Iterator[Batch]:
    return (_planted(subject, seed=seed, rows=ROWS) for seed in range(count))


def _planted(subject: Subject, *, seed: int, rows: int) -> Batch:
    """Draw rows whose label is a cross: user and item agree in the sign of a hidden trait."""
    batch = subject.batch(rows_of_request=(1,) * rows, seed=seed)
    user, item = batch.ids["user"], batch.ids["item"]
    assert isinstance(user, torch.Tensor)
    assert isinstance(item, torch.Tensor)
    agree = (user % 2) == (item % 2)
    noise = torch.rand(rows, generator=torch.Generator().manual_seed(seed)) < 0.05
    click = (agree ^ noise).float()
    return replace(batch, labels={"click": click, "buy": click * batch.labels["buy"]})
