from __future__ import annotations

import contextlib
import math

import pytest
import torch
from torch import Tensor

from rankloom.contract import Subject
from rankloom.layers.memory import Found, MemoryTable, memory_tables
from rankloom.losses import Loss
from rankloom.models import Model
from rankloom.training.config import AdamWConfig, RowwiseAdagradConfig, TableOptimizerConfig
from rankloom.training.optimizer import dense_optimizer
from rankloom.training.sparse import SparseOptimizer, sparse_optimizer
from rankloom.training.step import StepResult, train_step

CONFIG = RowwiseAdagradConfig(lr=0.5, eps=1e-6)


def make_table() -> MemoryTable:
    table = MemoryTable("history/memory", 4, 2, generator=torch.Generator())
    torch.nn.init.zeros_(table.weight)
    return table


def read(table: MemoryTable, slots: list[list[int]], weights: list[list[float]]) -> Tensor:
    return table(Found(torch.tensor(slots), torch.tensor(weights)))


def test_rows_that_several_reads_share_are_updated_once_by_the_sum() -> None:
    table = make_table()
    optimizer = sparse_optimizer([table], CONFIG)
    total = read(table, [[1, 2], [2, 1]], [[1.0, 3.0], [2.0, 0.0]]) @ torch.tensor([1.0, -1.0])
    (total.sum() + read(table, [[1]], [[1.0]])[:, 0].sum()).backward()
    optimizer.step([])
    # Gradients: row 1 (1 + 1, -1), row 2 (3 + 2, -(3 + 2)); then g / sqrt(mean g^2).
    root = math.sqrt(2.5)
    expected = [[0.0, 0.0], [-0.5 * 2 / root, 0.5 / root], [-0.5, 0.5], [0.0, 0.0]]
    torch.testing.assert_close(table.weight, torch.nn.Parameter(torch.tensor(expected)))
    assert optimizer.states[0]["accumulator"].tolist() == [0.0, 2.5, 25.0, 0.0]


def test_a_step_without_a_read_changes_nothing_and_gradients_do_not_add_up() -> None:
    table = make_table()
    optimizer = sparse_optimizer([table], CONFIG)
    read(table, [[1]], [[1.0]]).sum().backward()
    optimizer.step([])
    before = table.weight.detach().clone()
    assert table.weight.grad is None
    optimizer.step([])
    assert torch.equal(table.weight.detach(), before)


def test_a_memory_has_its_own_rate_by_its_name() -> None:
    table = make_table()
    own = {"history/memory": TableOptimizerConfig(lr=0.01)}
    optimizer = sparse_optimizer([table], RowwiseAdagradConfig(lr=0.5, eps=1e-6, tables=own))
    read(table, [[3]], [[1.0]]).sum().backward()
    optimizer.step([])
    assert table.weight[3].tolist() == pytest.approx([-0.01, -0.01], rel=1e-4)


def make_model() -> tuple[Subject, Model, SparseOptimizer]:
    subject = Subject.in_slot("sequence", "lmn", {"num_slots": 2500})
    model = subject.build().train()
    return subject, model, sparse_optimizer(model.sparse_tables(), CONFIG)


def step(
    subject: Subject, model: Model, sparse: SparseOptimizer, *, max_grad_norm: float | None = None
) -> StepResult:
    return train_step(
        model.embedder,
        model.network,
        Loss(subject.schema, auxiliary_weights=model.network.auxiliary_weights),
        subject.batch(),
        dense=dense_optimizer(model.network, AdamWConfig(lr=0.01)),
        sparse=sparse,
        max_grad_norm=max_grad_norm,
        autocast=contextlib.nullcontext(),
    )


def test_a_training_step_changes_only_the_slots_that_were_read() -> None:
    subject, model, sparse = make_model()
    (table,) = memory_tables(model.network)
    before = table.weight.detach().clone()
    result = step(subject, model, sparse)
    changed = (table.weight != before).any(dim=1).nonzero().flatten().tolist()
    slots = result.choices["history/memory"]
    assert slots.shape == (10, 4)
    # Candidates and events read: some more than the candidates did, of 2500.
    assert set(slots.flatten().tolist()) <= set(changed)
    assert len(changed) < 4 * (10 + 10 * 12)
    used = sparse.states[-1]["accumulator"].nonzero().flatten().tolist()
    assert used == changed


def test_the_dense_optimizer_and_clipping_never_see_the_table() -> None:
    subject, model, sparse = make_model()
    (table,) = memory_tables(model.network)
    groups = dense_optimizer(model.network, AdamWConfig()).param_groups
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert id(table.weight) not in held
    assert len(held) == len(list(model.network.parameters())) - 1
    norm = step(subject, model, sparse, max_grad_norm=1e9).grad_norm
    dense = [p.grad for p in model.network.parameters() if p is not table.weight]
    expected = torch.stack([one.norm() for one in dense if one is not None]).norm()
    assert norm is not None
    torch.testing.assert_close(norm, expected)
