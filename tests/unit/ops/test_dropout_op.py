from __future__ import annotations

import pytest
import torch

from rankloom.layers.dropout import Dropout
from rankloom.ops import cheap_dropout, dropped_levels


@pytest.mark.parametrize(
    ("p", "levels"), [(0.0, 0), (1e-6, 1), (0.1, 26), (0.5, 128), (0.999, 255)]
)
def test_probability_is_rounded_to_a_256th(p: float, levels: int) -> None:
    assert dropped_levels(p) == levels


def test_mean_is_kept() -> None:
    torch.manual_seed(0)
    y = cheap_dropout(torch.ones(1 << 20), 0.1)
    # Kept values are 256 / 230; the mean's standard error is 0.00033.
    assert y.unique().tolist() == pytest.approx([0.0, 256 / 230])
    assert y.mean().item() == pytest.approx(1.0, abs=0.002)
    assert (y == 0).float().mean().item() == pytest.approx(26 / 256, abs=0.002)


def test_gradient_flows_where_the_value_did() -> None:
    torch.manual_seed(0)
    # Memory orders differ between value and gradient.
    x = torch.ones(4, 3, 5).transpose(0, 1).requires_grad_()
    y = cheap_dropout(x, 0.5)
    y.backward(torch.ones(3, 4, 5))
    assert x.grad is not None
    assert 0 < (y == 0).sum() < y.numel()
    assert torch.equal(x.grad, y.detach())


def test_saved_state_draws_the_same_again() -> None:
    x = torch.ones(1001)
    state = torch.get_rng_state()
    first, second = cheap_dropout(x, 0.5), cheap_dropout(x, 0.5)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(cheap_dropout(x, 0.5), first)
    assert torch.equal(cheap_dropout(x, 0.5), second)


def test_bytes_of_one_draw_are_independent() -> None:
    torch.manual_seed(0)
    kept = (cheap_dropout(torch.ones(1 << 17), 0.5).view(-1, 8) > 0).double()
    correlation = torch.corrcoef(kept.T) - torch.eye(8)
    # 16,384 draws: the standard error of a correlation is 0.008.
    assert correlation.abs().max() < 0.04


def test_nothing_is_dropped_when_not_training() -> None:
    x = torch.ones(100)
    assert Dropout(0.5).eval()(x) is x
    assert (Dropout(0.5).train()(x) == 0).any()


def test_fp64_and_bf16_keep_their_dtype() -> None:
    for dtype in (torch.float64, torch.bfloat16):
        assert cheap_dropout(torch.ones(64, dtype=dtype), 0.25).dtype == dtype
