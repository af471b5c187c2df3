from __future__ import annotations

import torch

from rankloom.layers.protocols import run_layers


def test_linear_hands_the_features_on(build, draw) -> None:
    x = draw(2, 5)
    network = build("linear", dim=5)
    assert run_layers(network, x).readout() is x
    assert network.out_dim == 5
    assert not list(network.parameters())


def test_mlp_layers_can_be_stepped_through(build, draw) -> None:
    network = build("mlp", dim=5, hidden_dims=(4, 3))
    stack = run_layers(network, draw(2, 5))
    assert [state.x.shape[1] for state in stack.states] == [5, 4, 3]
    assert network.out_dim == 3
    assert torch.equal(stack.features()[:, 0], stack.readout())
