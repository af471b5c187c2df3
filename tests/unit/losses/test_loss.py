from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rankloom.data.batch import Batch
from rankloom.layers.protocols import Output
from rankloom.losses import Loss, LossValues
from rankloom.schema import BinaryTask, PositiveTask, Schema

LN2 = math.log(2)
# Losses of a label 1 at these logits: log 2, and log(1 + e^-z) elsewhere.
LOGITS = torch.tensor([0.0, 1.0, -1.0, 2.0])
ONE = [LN2, math.log1p(math.exp(-1)), math.log1p(math.exp(1)), math.log1p(math.exp(-2))]


def reduce(
    tasks: dict[str, Any],
    logits: dict[str, Tensor],
    labels: dict[str, list[float]],
    *,
    auxiliary: dict[str, Tensor] | None = None,
    auxiliary_weights: dict[str, float] | None = None,
    masks: dict[str, list[bool]] | None = None,
    weights: dict[str, list[float]] | None = None,
) -> LossValues:
    rows = len(next(iter(labels.values())))
    batch = Batch(
        ids={},
        numbers={},
        vectors={},
        sequences={},
        request_index=torch.arange(rows),
        num_requests=rows,
        labels={name: torch.tensor(value) for name, value in labels.items()},
        masks={name: torch.tensor(value) for name, value in (masks or {}).items()},
        weights={name: torch.tensor(value) for name, value in (weights or {}).items()},
    )
    loss = Loss(Schema({}, tasks=tasks), auxiliary_weights=auxiliary_weights)
    return loss(Output(logits, auxiliary or {}), batch)


CLICK = {"click": BinaryTask(label="y")}
ALL_ONE = {"click": [1.0] * 4}


def test_is_the_mean_over_rows() -> None:
    found = reduce(CLICK, {"click": LOGITS}, ALL_ONE)
    assert found.total.item() == pytest.approx(sum(ONE) / 4)
    assert found.tasks["click"].item() == pytest.approx(sum(ONE) / 4)
    assert found.auxiliary == {}


def test_weights_mean_the_same_in_every_batch() -> None:
    found = reduce(CLICK, {"click": LOGITS}, ALL_ONE, weights={"click": [2.0, 0.0, 1.0, 5.0]})
    # Divided by the rows, not by the weights' sum.
    assert found.total.item() == pytest.approx((2 * ONE[0] + ONE[2] + 5 * ONE[3]) / 4)


def test_only_masked_rows_count() -> None:
    masks = {"click": [True, False, True, False]}
    found = reduce(CLICK, {"click": LOGITS}, ALL_ONE, masks=masks)
    assert found.total.item() == pytest.approx((ONE[0] + ONE[2]) / 2)


def test_a_batch_without_rows_that_count_costs_nothing() -> None:
    logits = LOGITS.clone().requires_grad_()
    found = reduce(CLICK, {"click": logits}, ALL_ONE, masks={"click": [False] * 4})
    found.total.backward()
    assert found.total.item() == 0.0
    assert logits.grad is not None
    assert logits.grad.tolist() == [0.0] * 4


def test_rows_outside_the_mask_have_no_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    masks = {"click": [True, False, True, False]}
    reduce(CLICK, {"click": logits}, ALL_ONE, masks=masks).total.backward()
    assert logits.grad is not None
    assert (logits.grad != 0).tolist() == masks["click"]


def test_conditional_rows_counts_the_rows_where_the_condition_came_true() -> None:
    buy = BinaryTask(label="b", given="click", loss="conditional_rows")
    labels = {"click": [1.0, 1.0, 0.0, 0.0], "buy": [1.0] * 4}
    logits = {"click": LOGITS, "buy": LOGITS}
    found = reduce({**CLICK, "buy": buy}, logits, labels)
    assert found.tasks["buy"].item() == pytest.approx((ONE[0] + ONE[1]) / 2)
    masked = reduce({**CLICK, "buy": buy}, logits, labels, masks={"buy": [False, True, True, True]})
    assert masked.tasks["buy"].item() == pytest.approx(ONE[1])


def test_tasks_are_added_by_their_weights() -> None:
    tasks = {"click": BinaryTask(label="y"), "watch": PositiveTask(label="w", loss_weight=0.5)}
    zero = torch.full((2,), math.log(math.e - 1))  # softplus gives 1: the loss is 1 - y log 1
    logits = {"click": torch.zeros(2), "watch": zero}
    found = reduce(tasks, logits, {"click": [1.0, 0.0], "watch": [3.0, 4.0]})
    assert found.tasks["click"].item() == pytest.approx(LN2)
    assert found.tasks["watch"].item() == pytest.approx(1.0, rel=1e-5)
    assert found.total.item() == pytest.approx(LN2 + 0.5, rel=1e-5)


def test_auxiliary_towers_are_trained_on_the_same_labels_and_weighted() -> None:
    buy = BinaryTask(label="b", given="click")
    labels = {"click": [1.0, 1.0], "buy": [1.0, 1.0]}
    zeros = {name: torch.zeros(2) for name in labels}
    found = reduce(
        {**CLICK, "buy": buy},
        zeros,
        labels,
        auxiliary={"after_2/click": LOGITS[:2], "after_2/buy": LOGITS[:2], "router": LOGITS},
        auxiliary_weights={"after_2": 0.1, "after_4": 9.0},
    )
    # The tower of `buy` is a part of a chain too: its loss is that of the product.
    expected = (ONE[0] + ONE[1]) / 2 + (2 * ONE[0] + 2 * ONE[1]) / 2
    assert found.auxiliary.keys() == {"after_2"}
    assert found.auxiliary["after_2"].item() == pytest.approx(expected)
    assert found.total.item() == pytest.approx(LN2 + 2 * LN2 + 0.1 * expected)


def test_a_loss_that_the_network_made_is_averaged_and_weighted() -> None:
    found = reduce(
        CLICK,
        {"click": LOGITS},
        ALL_ONE,
        auxiliary={"history/write": LOGITS, "history/memory": torch.tensor([[3], [1], [4], [1]])},
        auxiliary_weights={"history/write": 0.25},
    )
    assert found.auxiliary == {"history/write": torch.tensor(0.5)}
    assert found.total.item() == pytest.approx(sum(ONE) / 4 + 0.25 * 0.5)
