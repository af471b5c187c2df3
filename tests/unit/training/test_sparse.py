from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from rankloom.embedding import FusedTables, Lookup
from rankloom.errors import ConfigError
from rankloom.training.config import (
    RowwiseAdagradConfig,
    SparseAdamConfig,
    TableOptimizerConfig,
)
from rankloom.training.sparse import RowwiseAdagrad, SparseAdam, SparseOptimizer, sparse_optimizer

Rows = list[list[float]]
# Steps of (rows of the group, gradient of each): row 1 comes three times in the first, row 5 is
# the first of table b, and rows 0, 3, 6 and 7 never come.
STEPS: list[tuple[list[int], Rows]] = [
    ([1, 5, 1, 1], [[1.0, 2.0], [-1.0, 0.5], [0.5, -1.0], [0.25, 0.5]]),
    ([2, 1], [[3.0, 1.0], [-2.0, 2.0]]),
    ([5, 2, 5, 4], [[0.5, 0.5], [1.0, -1.0], [0.5, -2.0], [2.0, 0.0]]),
]
UNUSED = [0, 3, 6, 7]


def make_tables(generator: torch.Generator) -> FusedTables:
    return FusedTables({"a": 5, "b": 3}, 2, init_std={"a": 1.0, "b": 1.0}, generator=generator)


def train(tables: FusedTables, optimizer: SparseOptimizer) -> None:
    for ids, gradient in STEPS:
        lookup = tables.at_rows(torch.tensor(ids))
        lookup.vectors.backward(torch.tensor(gradient))
        optimizer.step([lookup])


def summed(ids: list[int], gradient: Rows) -> dict[int, list[float]]:
    sums: dict[int, list[float]] = {}
    for row, (x, y) in zip(ids, gradient, strict=True):
        old = sums.get(row, [0.0, 0.0])
        sums[row] = [old[0] + x, old[1] + y]
    return sums


def adagrad(start: float, eps: float) -> Callable[[int, list[float]], list[float]]:
    accumulators: dict[int, float] = {}

    def step(row: int, g: list[float]) -> list[float]:
        accumulators[row] = accumulators.get(row, start) + (g[0] ** 2 + g[1] ** 2) / 2
        return [x / (math.sqrt(accumulators[row]) + eps) for x in g]

    return step


def adam(beta1: float, beta2: float, eps: float) -> Callable[[int, list[float]], list[float]]:
    means: dict[int, list[float]] = {}
    squares: dict[int, list[float]] = {}
    uses: dict[int, int] = {}

    def step(row: int, g: list[float]) -> list[float]:
        m, v = means.get(row, [0.0, 0.0]), squares.get(row, [0.0, 0.0])
        uses[row] = t = uses.get(row, 0) + 1
        means[row] = m = [beta1 * a + (1 - beta1) * b for a, b in zip(m, g, strict=True)]
        squares[row] = v = [beta2 * a + (1 - beta2) * b * b for a, b in zip(v, g, strict=True)]
        return [
            a / (1 - beta1**t) / (math.sqrt(b / (1 - beta2**t)) + eps)
            for a, b in zip(m, v, strict=True)
        ]

    return step


def reference(
    weight: Rows,
    step: Callable[[int, list[float]], list[float]],
    lr: Callable[[int], float],
    decay: Callable[[int], float],
) -> Rows:
    weight = [list(row) for row in weight]
    for ids, gradient in STEPS:
        for row, g in summed(ids, gradient).items():
            delta = step(row, g)
            kept = 1 - lr(row) * decay(row)
            weight[row] = [w * kept - lr(row) * d for w, d in zip(weight[row], delta, strict=True)]
    return weight


OPTIMIZERS: list[tuple[Any, Callable[..., Any]]] = [
    (
        lambda **o: RowwiseAdagradConfig(lr=0.5, eps=1e-3, initial_accumulator=0.1, **o),
        lambda: adagrad(0.1, 1e-3),
    ),
    (
        lambda **o: SparseAdamConfig(lr=0.5, eps=1e-3, betas=(0.8, 0.9), **o),
        lambda: adam(0.8, 0.9, 1e-3),
    ),
]


@pytest.mark.parametrize(("config", "step"), OPTIMIZERS, ids=["adagrad", "adam"])
def test_equals_the_formula_row_by_row(config: Any, step: Any, generator: torch.Generator) -> None:
    tables = make_tables(generator)
    expected = reference(tables.weight.tolist(), step(), lambda _: 0.5, lambda _: 0.0)
    train(tables, sparse_optimizer([tables], config()))
    torch.testing.assert_close(tables.weight, torch.tensor(expected))


@pytest.mark.parametrize(("config", "step"), OPTIMIZERS, ids=["adagrad", "adam"])
def test_each_table_may_have_its_own_rate_and_decay(
    config: Any, step: Any, generator: torch.Generator
) -> None:
    own = {"b": TableOptimizerConfig(lr=0.01, weight_decay=0.0)}
    tables = make_tables(generator)
    optimizer = sparse_optimizer([tables], config(weight_decay=0.2, tables=own))
    expected = reference(
        tables.weight.tolist(),
        step(),
        lambda row: 0.01 if row >= 5 else 0.5,
        lambda row: 0.0 if row >= 5 else 0.2,
    )
    train(tables, optimizer)
    torch.testing.assert_close(tables.weight, torch.tensor(expected))


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize(("config", "step"), OPTIMIZERS, ids=["adagrad", "adam"])
def test_the_factor_scales_rate_and_decay(
    config: Any, step: Any, weight_decay: float, generator: torch.Generator
) -> None:
    tables = make_tables(generator)
    optimizer = sparse_optimizer([tables], config(weight_decay=weight_decay))
    optimizer.lr_factor = 0.1
    expected = reference(tables.weight.tolist(), step(), lambda _: 0.05, lambda _: weight_decay)
    train(tables, optimizer)
    torch.testing.assert_close(tables.weight, torch.tensor(expected))


def test_l2_adds_the_rows_values_to_their_gradient() -> None:
    tables = FusedTables({"a": 2}, 2, init_std={}, generator=torch.Generator())
    tables.weight.copy_(torch.tensor([[1.0, -2.0], [5.0, 5.0]]))
    optimizer = RowwiseAdagrad([tables], RowwiseAdagradConfig(lr=0.1, l2=0.5, eps=1e-12))
    lookup = tables.at_rows(torch.tensor([0]))
    lookup.vectors.backward(torch.tensor([[0.5, 0.0]]))
    optimizer.step([lookup])
    # g = (0.5, 0) + 0.5 * (1, -2) = (1, -1), whose mean square is 1: the step is 0.1 * g.
    torch.testing.assert_close(tables.weight, torch.tensor([[0.9, -1.9], [5.0, 5.0]]))


@pytest.mark.parametrize(("config", "step"), OPTIMIZERS, ids=["adagrad", "adam"])
def test_only_rows_that_were_used_change(
    config: Any, step: Any, generator: torch.Generator
) -> None:
    tables = make_tables(generator)
    optimizer = sparse_optimizer([tables], config(weight_decay=0.5))
    before = [tables.weight.clone(), *(one.clone() for one in optimizer.states[0].values())]
    train(tables, optimizer)
    after = [tables.weight, *optimizer.states[0].values()]
    for old, new in zip(before, after, strict=True):
        changed = (old != new).view(8, -1).any(dim=1)
        assert [row for row in range(8) if not changed[row]] == UNUSED


def test_lookups_of_one_step_are_summed(generator: torch.Generator) -> None:
    ids, gradient = STEPS[0]
    weights: list[Tensor] = []
    for cut in (0, 2):
        tables = make_tables(torch.Generator().manual_seed(0))
        lookups: list[Lookup] = []
        for part in (slice(0, cut), slice(cut, None)):
            lookup = tables.at_rows(torch.tensor(ids[part], dtype=torch.int64))
            lookup.vectors.backward(torch.tensor(gradient[part]).view(-1, 2))
            lookups.append(lookup)
        RowwiseAdagrad([tables], RowwiseAdagradConfig()).step(lookups)
        weights.append(tables.weight)
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)


def test_a_lookup_without_gradient_changes_nothing(generator: torch.Generator) -> None:
    tables = make_tables(generator)
    before = tables.weight.clone()
    optimizer = SparseAdam([tables], SparseAdamConfig(weight_decay=0.5))
    optimizer.step([tables.at_rows(torch.tensor([1, 2]))])
    assert torch.equal(tables.weight, before)
    assert not optimizer.states[0]["uses"].any()


def test_each_group_takes_its_own_lookups(generator: torch.Generator) -> None:
    first = make_tables(generator)
    second = FusedTables({"c": 4}, 3, init_std={}, generator=generator)
    before = [first.weight.clone(), second.weight.clone()]
    lookup = second.at_rows(torch.tensor([3]))
    lookup.vectors.backward(torch.ones(1, 3))
    RowwiseAdagrad([first, second], RowwiseAdagradConfig(lr=0.5)).step([lookup])
    assert torch.equal(first.weight, before[0])
    # g / sqrt(mean(g^2)) is 1 everywhere in the first step.
    torch.testing.assert_close(second.weight[3], before[1][3] - 0.5)


def test_adagrad_keeps_one_number_a_row(generator: torch.Generator) -> None:
    (state,) = RowwiseAdagrad([make_tables(generator)], RowwiseAdagradConfig()).states
    shapes: Mapping[str, tuple[int, ...]] = {name: tuple(x.shape) for name, x in state.items()}
    assert shapes == {"accumulator": (8,)}


def test_an_unknown_table_names_the_nearest(generator: torch.Generator) -> None:
    own = {"aa": TableOptimizerConfig(), "zzz": TableOptimizerConfig()}
    with pytest.raises(ConfigError) as caught:
        RowwiseAdagrad([make_tables(generator)], RowwiseAdagradConfig(tables=own))
    assert [line.strip() for line in str(caught.value).splitlines()] == [
        "run file has 2 mistakes:",
        "training.sparse.tables.aa: no table has this name. Did you mean 'a'?",
        "training.sparse.tables.zzz: no table has this name.",
    ]


def test_l2_counts_the_steps_a_row_was_idle() -> None:
    tables = FusedTables({"a": 2}, 1, init_std={}, generator=torch.Generator())
    tables.weight.copy_(torch.tensor([[2.0], [1.0]]))
    optimizer = RowwiseAdagrad([tables], RowwiseAdagradConfig(lr=1.0, l2=0.1, eps=1e-12))
    for row in (1, 1, 0):
        lookup = tables.at_rows(torch.tensor([row]))
        lookup.vectors.backward(torch.tensor([[0.0]]))
        optimizer.step([lookup])
    # Row 0 was idle for three steps: g = 3 * 0.1 * 2, and Adagrad's first step is g / |g|.
    assert optimizer.states[0]["accumulator"][0].item() == pytest.approx(0.36, rel=1e-6)
    assert tables.weight[0].item() == pytest.approx(1.0, rel=1e-6)
