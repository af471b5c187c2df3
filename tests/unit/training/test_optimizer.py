from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from rankloom.training.config import AdamWConfig, ConstantSchedule, CosineSchedule, PlateauSchedule
from rankloom.training.optimizer import dense_optimizer, lr_factor


class _Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(2)
        self.per_token = nn.Parameter(torch.ones(4, 3, 2))
        self.per_token_bias = nn.Parameter(torch.ones(4, 2))
        self.scale = nn.Parameter(torch.ones(()))
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)


def test_matrices_decay_and_vectors_do_not() -> None:
    parts = _Parts()
    groups = dense_optimizer(parts, AdamWConfig(lr=0.1, weight_decay=0.5)).param_groups
    names = {id(parameter): name for name, parameter in parts.named_parameters()}
    found = {group["weight_decay"]: {names[id(p)] for p in group["params"]} for group in groups}
    assert found == {
        0.5: {"linear.weight", "per_token"},
        0.0: {"linear.bias", "norm.weight", "norm.bias", "per_token_bias", "scale"},
    }


def test_decay_is_decoupled_from_the_gradient() -> None:
    parts = _Parts()
    optimizer = dense_optimizer(parts, AdamWConfig(lr=0.1, weight_decay=0.5))
    weight, bias = parts.per_token.detach().clone(), parts.per_token_bias.detach().clone()
    for parameter in parts.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    torch.testing.assert_close(parts.per_token.detach(), weight * (1 - 0.1 * 0.5))
    assert torch.equal(parts.per_token_bias, bias)


def test_a_network_of_vectors_alone_has_one_group() -> None:
    assert len(dense_optimizer(nn.LayerNorm(2), AdamWConfig()).param_groups) == 1


@pytest.mark.parametrize(("step", "factor"), [(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (99, 1.0)])
def test_a_constant_rate_after_the_warm_up(step: int, factor: float) -> None:
    assert lr_factor(ConstantSchedule(warmup_steps=4), step, 10) == factor
    assert lr_factor(ConstantSchedule(), step, 10) == 1.0


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (0, 0.5),
        (1, 1.0),
        (2, 1.0),  # the cosine's first step
        (4, 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4))),
        (6, 0.55),
        (10, 0.1),
        (11, 0.1),  # a step more than planned, after a resume with another batch size
    ],
)
def test_a_cosine_from_the_peak_to_the_final_ratio(step: int, factor: float) -> None:
    schedule = CosineSchedule(warmup_steps=2, final_ratio=0.1)
    assert lr_factor(schedule, step, 10) == pytest.approx(factor, rel=1e-12)


def test_a_warm_up_longer_than_the_training_is_no_mistake() -> None:
    schedule = CosineSchedule(warmup_steps=20)
    assert lr_factor(schedule, 9, 10) == 0.5


def test_plateau_keeps_what_evaluations_left_of_the_peak() -> None:
    schedule = PlateauSchedule(warmup_steps=2)
    assert lr_factor(schedule, 0, 10, plateau_ratio=0.1) == 0.5
    assert lr_factor(schedule, 5, 10, plateau_ratio=0.1) == 0.1
