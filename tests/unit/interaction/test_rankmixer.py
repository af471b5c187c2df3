from __future__ import annotations

import pytest
import torch

from rankloom.errors import ConfigError
from rankloom.layers.protocols import run_layers


def test_parameter_count(build) -> None:
    # Per block: weights 2 k T D^2, biases T (k D + D), two norms of 2 D.
    network = build("rankmixer", tokens=4, dim=12, num_layers=2, expansion=3)
    expected = 2 * (2 * 3 * 4 * 12**2 + 4 * (36 + 12) + 4 * 12)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_every_token_reaches_every_token_in_one_block(build, draw, as_tokens) -> None:
    network = build("rankmixer", tokens=3, dim=6, num_layers=1)
    x = draw(1, 3, 6).requires_grad_()
    out = run_layers(network, as_tokens(x)).features()
    for token in range(3):
        # A plain sum of a normed token is constant; the squares are weighted unevenly.
        weights = torch.arange(6, dtype=torch.float64)
        (gradient,) = torch.autograd.grad(out[0, token] @ weights, x, retain_graph=True)
        assert gradient.abs().sum(dim=2).gt(1e-9).all()


def test_readout_is_the_mean_over_tokens(build, draw, as_tokens) -> None:
    network = build("rankmixer", tokens=3, dim=6)
    stack = run_layers(network, as_tokens(draw(2, 3, 6)))
    torch.testing.assert_close(stack.readout(), stack.features().sum(dim=1) / 3)


def test_tokens_must_divide_their_width(build) -> None:
    with pytest.raises(ConfigError, match=r"token_dim=64. Use 60 or 66.*divide 64: 2, 4, 8"):
        build("rankmixer", tokens=6, dim=64)


def test_user_tokens_stand_before_candidate_tokens(build, draw, as_tokens) -> None:
    network = build("rankmixer", tokens=3, dim=6, user=1)
    x = draw(2, 3, 6)
    assert torch.equal(network.embed_in(as_tokens(x, user=1)).x, x)
