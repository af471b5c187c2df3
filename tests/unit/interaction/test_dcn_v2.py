from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rankloom.layers.protocols import run_layers

KIND = "dcn_v2"


def along_a_ray(network, direction: Tensor, num_points: int) -> Tensor:
    """Give the readout at t * direction for t = 1, 2, ..."""
    steps = torch.arange(1, num_points + 1, dtype=direction.dtype)
    return run_layers(network, steps[:, None] * direction).readout()


def nth_difference(values: Tensor, order: int) -> float:
    """Give the largest finite difference of an order, over the size of the values."""
    for _ in range(order):
        values = values.diff(dim=0)
    return (values.abs().max() / 1e-9).item() * 1e-9


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_crosses_are_polynomials_of_one_degree_more_than_layers(
    build, draw, rank: int | None, num_layers: int
) -> None:
    network = build(
        KIND, dim=5, num_layers=num_layers, rank=rank, num_experts=1,
        expert_activation="none", hidden_dims=(), structure="stacked",
    )  # fmt: skip
    degree = num_layers + 1
    values = along_a_ray(network, draw(5), degree + 2)
    # A polynomial of degree n has constant n-th and vanishing (n + 1)-th differences.
    assert nth_difference(values, degree) > 1e-6
    assert nth_difference(values, degree + 1) < 1e-9


@pytest.mark.parametrize("options", [{}, {"rank": 3}, {"rank": 3, "gate": "sigmoid"}])
def test_zero_weights_make_the_identity(build, draw, options: dict[str, object]) -> None:
    network = build(KIND, dim=6, hidden_dims=(), **options)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "gate" not in name:
                parameter.zero_()
    x = draw(2, 6)
    assert torch.equal(run_layers(network, x).readout(), x)


def test_one_layer_by_hand(build) -> None:
    network = build(KIND, dim=2, num_layers=1, hidden_dims=())
    projection = network.layers[0].cross.projection
    with torch.no_grad():
        projection.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
        projection.bias.copy_(torch.tensor([0.5, -1.0]))
    # W x + b = (1 + 6 + 0.5, 3 - 1); times x, plus x.
    x = torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    assert run_layers(network, x).readout().tolist() == [[8.5, 9.0]]


def test_parallel_gives_crosses_and_mlp_side_by_side(build, draw) -> None:
    x = draw(2, 6)
    network = build(KIND, dim=6, hidden_dims=(4,), structure="parallel")
    crosses = build(KIND, dim=6, hidden_dims=())
    out = run_layers(network, x).readout()
    assert network.out_dim == 10
    torch.testing.assert_close(out[:, :6], run_layers(crosses, x).readout())
    hidden = network.layers[-1].hidden
    torch.testing.assert_close(out[:, 6:], hidden(x))


def test_stacked_feeds_the_crosses_to_the_mlp(build, draw) -> None:
    x = draw(2, 6)
    network = build(KIND, dim=6, hidden_dims=(4,), structure="stacked")
    crosses = build(KIND, dim=6, hidden_dims=())
    hidden = network.layers[-1].hidden
    expected = hidden(run_layers(crosses, x).readout())
    torch.testing.assert_close(run_layers(network, x).readout(), expected)


def test_one_expert_has_no_gate(build) -> None:
    names = [name for name, _ in build(KIND, dim=6, rank=2, num_experts=1).named_parameters()]
    assert not any("gate" in name for name in names)
