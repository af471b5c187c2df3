from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rankloom.layers.feed_forward import PerTokenFFN, PerTokenSwiGLU
from rankloom.layers.linear import PerTokenLinear


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(1))


def test_each_token_has_its_own_weights() -> None:
    layer = PerTokenLinear(2, 1, 1, generator=seeded())
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[2.0]], [[3.0]]]))
        layer.bias.copy_(torch.tensor([[10.0], [20.0]]))
    assert layer(torch.tensor([[[1.0], [1.0]]])).flatten().tolist() == [12.0, 23.0]


def test_memory_order_of_the_input_does_not_matter() -> None:
    layer = PerTokenLinear(3, 4, 5, generator=seeded())
    x = draw(2, 3, 4)
    tokens_first = x.transpose(0, 1).contiguous().transpose(0, 1)
    torch.testing.assert_close(layer(x), layer(tokens_first))


@pytest.mark.parametrize("parts", [1, 2])
def test_slices_are_initialised_by_their_own_fans(parts: int) -> None:
    weight = PerTokenLinear(7, 50, 100 * parts, parts=parts, generator=seeded()).weight
    # Uniform within sqrt(6 / (50 + 100)) = 0.2, whose standard deviation is 0.2 / sqrt(3).
    assert weight.abs().max().item() == pytest.approx(0.2, abs=1e-3)
    assert weight.std().item() == pytest.approx(0.2 / 3**0.5, rel=0.01)


def test_initial_weights_come_from_the_generator_alone() -> None:
    torch.manual_seed(1)
    first = PerTokenFFN(2, 3, 4, generator=seeded())
    torch.manual_seed(2)
    second = PerTokenFFN(2, 3, 4, generator=seeded())
    third = PerTokenFFN(2, 3, 4, generator=seeded(5))
    assert torch.equal(first.up.weight, second.up.weight)
    assert not torch.equal(first.up.weight, third.up.weight)


@pytest.mark.parametrize("kind", [PerTokenFFN, PerTokenSwiGLU])
def test_a_token_s_weights_change_that_token_only(kind: type[nn.Module]) -> None:
    network = kind(3, 4, 8, generator=seeded())
    x = draw(2, 3, 4)
    before = network(x)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter[1] += 1.0
    after = network(x)
    assert torch.equal(after[:, [0, 2]], before[:, [0, 2]])
    assert not torch.isclose(after[:, 1], before[:, 1]).any()


def test_swiglu_network_by_hand() -> None:
    network = PerTokenSwiGLU(1, 1, 1, generator=seeded())
    with torch.no_grad():
        network.gate_up.weight.copy_(torch.tensor([[[1.0986123, 2.0]]]))
        network.gate_up.bias.copy_(torch.tensor([[0.0, 1.0]]))
        network.down.weight.fill_(10.0)
        network.down.bias.fill_(0.5)
    # SiLU(ln 3) = 0.75 ln 3; the value is 2 + 1.
    expected = 0.75 * 1.0986123 * 3.0 * 10.0 + 0.5
    torch.testing.assert_close(network(torch.ones(1, 1, 1)).item(), expected)


def test_small_down_projections() -> None:
    network = PerTokenSwiGLU(4, 64, 128, down_std=0.01, generator=seeded())
    assert network.down.weight.std().item() == pytest.approx(0.01, rel=0.02)


def test_layers_can_be_built_without_memory() -> None:
    with torch.device("meta"):
        network = PerTokenSwiGLU(1000, 1000, 1000, generator=seeded())
    assert network.down.weight.is_meta
