from __future__ import annotations

import pytest
import torch

from rankloom.layers.divisors import divisors, nearest_divisors, nearest_multiples
from rankloom.layers.linear import linear
from rankloom.layers.mlp import MLP, HiddenLayer
from rankloom.layers.norm import LayerNorm, RMSNorm


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_no_hidden_layer_is_the_identity() -> None:
    mlp = MLP(3, (), generator=seeded())
    x = torch.ones(2, 3)
    assert mlp(x) is x
    assert mlp.out_dim == 3


def test_parts_stand_in_order_and_unused_ones_are_left_out() -> None:
    full = HiddenLayer(2, 3, norm="layer", dropout=0.5, activation="gelu", generator=seeded())
    assert [type(part).__name__ for part in full] == ["Linear", "LayerNorm", "GELU", "Dropout"]
    bare = HiddenLayer(2, 3, generator=seeded())
    assert [type(part).__name__ for part in bare] == ["Linear", "ReLU"]


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_hidden_layer_of_each_norm_gives_its_width(norm: str) -> None:
    mlp = MLP(4, (5, 6), norm=norm, generator=seeded())  # type: ignore[arg-type]
    assert mlp(torch.ones(3, 4)).shape == (3, 6)


def test_linear_is_xavier_with_a_zero_bias() -> None:
    layer = linear(100, 50, generator=seeded())
    assert layer.weight.abs().max().item() == pytest.approx(0.2, abs=1e-3)
    assert not layer.bias.any()


def test_norm_modules_start_without_effect_on_normed_rows() -> None:
    x = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    torch.testing.assert_close(RMSNorm(4, eps=0.0)(x), x)
    torch.testing.assert_close(LayerNorm(4, eps=0.0)(x), x)


def test_divisors() -> None:
    assert divisors(12) == (1, 2, 3, 4, 6, 12)
    assert nearest_divisors(64, 6) == (2, 4, 8)
    assert nearest_multiples(6, 64) == (60, 66)
    assert nearest_multiples(6, 4) == (6,)
