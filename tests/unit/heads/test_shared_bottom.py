from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from rankloom.heads.shared_bottom import SharedBottom, SharedBottomConfig
from rankloom.layers.protocols import Layout, Stack


def build(**options: Any) -> SharedBottom:
    layout = Layout(features={}, tasks=("like", "keys"), out_dim=4)
    generator = torch.Generator().manual_seed(0)
    return SharedBottom(SharedBottomConfig(**options), layout, generator=generator)


def logits(head: SharedBottom, readout: Tensor) -> dict[str, Tensor]:
    stack = Stack(SimpleNamespace(readout=lambda state: state), (readout,))
    return head(stack, None)  # type: ignore[arg-type]


X = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))


def test_without_hidden_layers_each_task_is_linear() -> None:
    head = build(hidden_dims=())
    like = head.towers["task_like"][1]
    torch.testing.assert_close(logits(head, X)["like"], X @ like.weight[0] + like.bias)


def test_each_task_has_a_logit_per_row() -> None:
    out = logits(build(shared_dims=(8,), hidden_dims=(6, 5)), X)
    assert {task: tuple(value.shape) for task, value in out.items()} == {
        "like": (3,),
        "keys": (3,),
    }


def test_towers_are_separate_and_the_bottom_is_shared() -> None:
    head = build(shared_dims=(8,), hidden_dims=(6,))
    before = logits(head, X)
    with torch.no_grad():
        for parameter in head.towers["task_like"].parameters():
            parameter += 0.5
    middle = logits(head, X)
    assert torch.equal(middle["keys"], before["keys"])
    assert not torch.equal(middle["like"], before["like"])
    with torch.no_grad():
        for parameter in head.bottom.parameters():
            parameter += 0.5
    after = logits(head, X)
    assert not torch.equal(after["keys"], middle["keys"])


@pytest.mark.parametrize(("norm", "norms"), [("none", 0), ("layer", 2)])
def test_parameter_count(norm: str, norms: int) -> None:
    head = build(shared_dims=(8,), hidden_dims=(6,), norm=norm)
    tower = 8 * 6 + 6 + norms * 6 + 6 + 1
    expected = 4 * 8 + 8 + norms * 8 + 2 * tower
    assert sum(parameter.numel() for parameter in head.parameters()) == expected
