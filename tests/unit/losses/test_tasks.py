from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rankloom.losses import predictions, row_losses
from rankloom.losses.tasks import log_one_minus_exp
from rankloom.schema import BinaryTask, PositiveTask, Schema


def schema(**tasks: Any) -> Schema:
    return Schema({}, tasks=tasks)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


CLICK = BinaryTask(label="click")
ESMM = schema(
    click=CLICK, buy=BinaryTask(label="buy", given="click"), keep=BinaryTask(label="k", given="buy")
)


def test_binary_cross_entropy() -> None:
    losses = row_losses("click", {"click": double(0, 0, 2)}, double(1, 0, 1), schema(click=CLICK))
    expected = [math.log(2), math.log(2), -math.log(sigmoid(2))]
    torch.testing.assert_close(losses, double(*expected))


CASES = [(0.3, -1.2, 0.0), (0.3, -1.2, 1.0), (-4.0, 2.5, 0.0), (6.0, 5.0, 0.0), (6.0, 5.0, 1.0)]


@pytest.mark.parametrize(("click", "buy", "label"), CASES)
def test_a_conditional_task_trains_the_product(click: float, buy: float, label: float) -> None:
    logits = {"click": double(click), "buy": double(buy), "keep": double(1.0)}
    p = sigmoid(click) * sigmoid(buy)
    expected = -(label * math.log(p) + (1 - label) * math.log(1 - p))
    torch.testing.assert_close(row_losses("buy", logits, double(label), ESMM), double(expected))
    p *= sigmoid(1.0)
    expected = -(label * math.log(p) + (1 - label) * math.log(1 - p))
    torch.testing.assert_close(row_losses("keep", logits, double(label), ESMM), double(expected))
    found = predictions(logits, ESMM)
    torch.testing.assert_close(found["keep"], double(p))
    torch.testing.assert_close(found["click"], double(sigmoid(click)))


def test_the_product_trains_the_logits_it_is_made_of() -> None:
    logits = {name: torch.zeros(1, requires_grad=True) for name in ("click", "buy", "keep")}
    row_losses("buy", logits, torch.ones(1), ESMM).sum().backward()
    # -log(s(a) s(b)) has the slope -(1 - s(0)) = -1/2 in each.
    assert [None if z.grad is None else z.grad.item() for z in logits.values()] == [
        -0.5,
        -0.5,
        None,
    ]


def test_conditional_rows_trains_its_own_probability_and_predicts_the_product() -> None:
    buy = BinaryTask(label="buy", given="click", loss="conditional_rows")
    both = schema(click=CLICK, buy=buy)
    logits = {"click": double(-3), "buy": double(0)}
    torch.testing.assert_close(row_losses("buy", logits, double(1), both), double(math.log(2)))
    expected = sigmoid(-3) * 0.5
    torch.testing.assert_close(predictions(logits, both)["buy"], double(expected))


WATCH = PositiveTask(label="watch")


@pytest.mark.parametrize("given_click", [False, True])
def test_softplus_is_at_its_optimum_where_the_prediction_is_the_mean_label(
    given_click: bool,
) -> None:
    watch = PositiveTask(label="watch", given="click" if given_click else None)
    both = schema(click=CLICK, watch=watch)
    labels = double(0.0, 1.0, 7.0, 4.0)  # mean 3
    z = math.log(math.expm1(6.0 if given_click else 3.0))  # softplus(z) is 6 or 3
    logit = torch.full((4,), z, dtype=torch.float64, requires_grad=True)
    logits = {"click": double(0, 0, 0, 0), "watch": logit}  # sigmoid(0) halves it
    torch.testing.assert_close(predictions(logits, both)["watch"], double(3, 3, 3, 3))
    row_losses("watch", logits, labels, both).sum().backward()
    assert logit.grad is not None
    assert logit.grad.sum().item() == pytest.approx(0.0, abs=1e-12)
    assert logit.grad[2] < 0 < logit.grad[0]


def test_softplus_losses_differ_as_poisson_deviances_do() -> None:
    one = schema(watch=WATCH)
    near, far = (math.log(math.expm1(mean)) for mean in (2.0, 5.0))
    losses = row_losses("watch", {"watch": double(near, far)}, double(3, 3), one)
    # m - y log m, up to a term of y alone.
    difference = (2 - 3 * math.log(2)) - (5 - 3 * math.log(5))
    torch.testing.assert_close(losses[0] - losses[1], double(difference)[0])


def test_log_normal_is_squared_error_of_the_logarithm_and_predicts_the_median() -> None:
    one = schema(watch=PositiveTask(label="watch", link="log_normal"))
    logits = {"watch": double(math.log(4), -1.0)}
    losses = row_losses("watch", logits, double(math.e**2 - 1, 0.0), one)
    torch.testing.assert_close(losses, double((2 - math.log(4)) ** 2, 1.0))
    # Never below zero, whatever the logit.
    torch.testing.assert_close(predictions(logits, one)["watch"], double(3.0, 0.0))


EXTREME = [0.0, 20.0, -20.0, 100.0, -100.0, 1e4, -1e4]


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "task",
    [
        BinaryTask(label="y"),
        BinaryTask(label="y", given="click"),
        BinaryTask(label="y", given="click", loss="conditional_rows"),
    ],
)
def test_extreme_logits_give_finite_losses_and_gradients(
    task: BinaryTask, dtype: torch.dtype, label: float
) -> None:
    assert_finite(task, dtype, label, EXTREME)


@pytest.mark.parametrize("label", [0.0, 50.0])
@pytest.mark.parametrize(
    "task",
    [WATCH, PositiveTask(label="y", given="click"), PositiveTask(label="y", link="log_normal")],
)
def test_extreme_logits_of_positive_tasks_too(task: PositiveTask, label: float) -> None:
    assert_finite(task, torch.float32, label, EXTREME)


@pytest.mark.parametrize("label", [0.0, 50.0])
def test_extreme_logits_of_a_conditional_log_normal_too(label: float) -> None:
    # The median is e^z - 1: beyond 80 it is no number of seconds, and beyond 88 no float32.
    task = PositiveTask(label="y", given="click", link="log_normal", loss="conditional_rows")
    assert_finite(task, torch.float32, label, [0.0, 20.0, -20.0, 80.0, -100.0, -1e4])


def assert_finite(
    task: BinaryTask | PositiveTask, dtype: torch.dtype, label: float, logits: list[float]
) -> None:
    tasks = schema(click=CLICK, y=task)
    own = torch.tensor(logits, dtype=dtype).repeat(len(EXTREME)).requires_grad_()
    click = torch.tensor(EXTREME, dtype=dtype).repeat_interleave(len(logits)).requires_grad_()
    both = {"click": click, "y": own}
    losses = row_losses("y", both, torch.full((len(own),), label), tasks)
    assert losses.dtype == torch.float32
    losses.sum().backward()
    assert losses.isfinite().all()
    assert all(z.grad is None or z.grad.isfinite().all() for z in (own, click))
    assert all(value.isfinite().all() for value in predictions(both, tasks).values())


@pytest.mark.parametrize("label", [0.0, 1.0])
@pytest.mark.parametrize(
    "task",
    [
        BinaryTask(label="y", given="click"),
        PositiveTask(label="y"),
        PositiveTask(label="y", given="click"),
        PositiveTask(label="y", link="log_normal"),
        PositiveTask(label="y", given="click", link="log_normal", loss="conditional_rows"),
    ],
)
def test_gradients_are_those_of_the_loss(task: BinaryTask | PositiveTask, label: float) -> None:
    tasks = schema(click=CLICK, y=task)

    def losses(click: Tensor, own: Tensor) -> Tensor:
        return row_losses("y", {"click": click, "y": own}, torch.full_like(own, label), tasks)

    own = double(0.4, 1.3, 3.0, 9.0).requires_grad_()
    click = double(-2.0, 0.1, 8.0, 12.0).requires_grad_()
    assert torch.autograd.gradcheck(losses, (click, own))


@pytest.mark.parametrize("x", [-1e-5, -0.1, -0.6931, -0.6932, -5.0, -30.0])
def test_log_one_minus_exp_keeps_its_digits(x: float) -> None:
    expected = math.log(-math.expm1(x))
    assert log_one_minus_exp(double(x)).item() == pytest.approx(expected, rel=1e-14)
    # float32 near its limits: 5 of 7 digits.
    single = log_one_minus_exp(torch.tensor([x]))
    assert single.item() == pytest.approx(expected, rel=1e-5)


def corrected(z: float, kept: float) -> float:
    """Give p / (p + (1 - p) / w), as the paper writes it."""
    p = sigmoid(z)
    return p / (p + (1 - p) / kept)


def test_predictions_are_those_of_a_log_with_all_negatives() -> None:
    tasks = {**ESMM.tasks, "click": BinaryTask(label="click", negatives_kept=0.1)}
    watched = PositiveTask(label="seconds", given="click")
    sampled = schema(**tasks, watched=watched)
    logits = {"click": double(2.0), "buy": double(-1), "keep": double(1), "watched": double(0.5)}
    found = predictions(logits, sampled)
    click = corrected(2.0, 0.1)
    torch.testing.assert_close(found["click"], double(click), rtol=1e-14, atol=0)
    torch.testing.assert_close(found["buy"], double(click * sigmoid(-1)))
    torch.testing.assert_close(found["keep"], double(click * sigmoid(-1) * sigmoid(1)))
    torch.testing.assert_close(found["watched"], double(click * math.log1p(math.exp(0.5))))
    # What is trained is the sample's own rate.
    for name in ("click", "buy"):
        losses = [row_losses(name, logits, double(1), one) for one in (sampled, ESMM)]
        assert torch.equal(*losses)


def test_all_negatives_kept_change_no_bit() -> None:
    logits = {"click": torch.tensor([-0.0, 1e-30, 3.7])}
    plain = predictions(logits, schema(click=CLICK))
    kept = predictions(logits, schema(click=BinaryTask(label="click", negatives_kept=1.0)))
    assert torch.equal(plain["click"], kept["click"])
    assert torch.equal(plain["click"], logits["click"].sigmoid())
