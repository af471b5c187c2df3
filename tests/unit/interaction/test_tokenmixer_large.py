from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rankloom.errors import ConfigError
from rankloom.interaction.tokenmixer_large import default_num_heads
from rankloom.layers.protocols import run_layers

KIND = "tokenmixer_large"


def test_parameter_count(build) -> None:
    # 3 tokens of 8 in 4 slots of 6; hidden widths 2 x 6 = 12 and 2 x 8 = 16.
    network = build(KIND, tokens=3, dim=8, num_layers=2, num_heads=4, expansion=2.0)
    slots = 4 * (3 * 6 * 12 + 2 * 12 + 6)
    tokens = 3 * (3 * 8 * 16 + 2 * 16 + 8)
    norms = 6 + 8
    expected = 2 * (slots + tokens + norms) + 8
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


@pytest.mark.parametrize("heads", [1, 4, 8])
def test_zero_down_projections_make_a_block_the_identity(build, draw, heads: int) -> None:
    network = build(KIND, tokens=3, dim=8, num_layers=1, num_heads=heads)
    block = network.layers[0].block
    with torch.no_grad():
        block.mixed.feed_forward.down.weight.zero_()
        block.tokens.feed_forward.down.weight.zero_()
    x = draw(2, 3, 8)
    assert torch.equal(block(x), x)


def test_small_initial_values_make_a_block_nearly_the_identity(build, draw, as_tokens) -> None:
    network = build(KIND, tokens=8, dim=64, num_layers=1)
    first, last = run_layers(network, as_tokens(draw(16, 8, 64))).states
    change = (last.x - first.x).norm() / first.x.norm()
    # The branch ends in 64 products of a unit-size value with N(0, 0.01^2).
    assert 1e-3 < change < 0.1


def test_residual_comes_from_the_input_not_from_the_mixed_tokens(build, draw) -> None:
    network = build(KIND, tokens=3, dim=6, num_layers=1)
    block = network.layers[0].block
    with torch.no_grad():
        block.tokens.feed_forward.down.weight.zero_()
    x = draw(2, 3, 6)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(
    ("num_layers", "every", "expected"),
    [(4, 2, (2,)), (5, 2, (2, 4)), (6, 3, (3,)), (2, 2, ()), (3, None, ())],
)
def test_auxiliary_towers_stand_at_the_inter_residuals(
    build, num_layers: int, every: int | None, expected: tuple[int, ...]
) -> None:
    network = build(KIND, tokens=2, dim=4, num_layers=num_layers, inter_residual_every=every)
    assert network.auxiliary_after == expected
    off = build(
        KIND, tokens=2, dim=4, num_layers=num_layers, inter_residual_every=every, auxiliary_weight=0
    )
    assert off.auxiliary_after == ()


def test_inter_residual_adds_the_input_of_the_group(build, draw, as_tokens) -> None:
    network = build(KIND, tokens=2, dim=4, num_layers=5, inter_residual_every=2)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".down." in name:
                parameter.zero_()
    x = draw(1, 2, 4)
    states = run_layers(network, as_tokens(x)).states
    # Blocks are identities, so each end of a group doubles; the last block is no end.
    for state, factor in zip(states, (1, 1, 2, 2, 4, 4), strict=True):
        torch.testing.assert_close(state.x, factor * x)


def deep_gradients(network, x: Tensor, as_tokens, *, auxiliary: bool) -> tuple[float, float]:
    """Give the gradient norms of the first and last block's gates under a random linear loss."""
    stack = run_layers(network, as_tokens(x))
    depths = [len(network.layers)]
    if auxiliary:
        depths += network.auxiliary_after
    generator = torch.Generator().manual_seed(2)
    loss = x.new_zeros(())
    for depth in depths:
        weights = torch.randn(network.out_dim, dtype=x.dtype, generator=generator)
        loss = loss + (stack.readout(depth) @ weights).square().mean()
    loss.backward()
    gates = [layer.block.tokens.feed_forward.gate_up.weight.grad for layer in network.layers]
    return gates[0].norm().item(), gates[-1].norm().item()


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_gradients_reach_the_first_of_sixteen_blocks(build, draw, as_tokens, norm: str) -> None:
    options = {"tokens": 4, "dim": 16, "num_layers": 16, "down_std": 0.25, "norm": norm}
    x = draw(32, 4, 16)
    helped = build(KIND, **options, inter_residual_every=2)
    first, last = deep_gradients(helped, x, as_tokens, auxiliary=True)
    plain = build(KIND, **options, inter_residual_every=None)
    plain_first, plain_last = deep_gradients(plain, x, as_tokens, auxiliary=False)
    if norm == "pre":
        # Each inter-residual doubles the stream, so that early blocks weigh more than late ones.
        assert first / last > 1
        assert plain_first / plain_last < 0.1 * first / last
    else:
        # Normed at each block, the gradients stay within an order of magnitude, only if helped.
        assert 0.1 < first / last < 10
        assert not 0.1 < plain_first / plain_last < 10


def test_default_heads_divide_the_width() -> None:
    assert default_num_heads(16, 256) == 16
    assert default_num_heads(6, 64) == 4
    assert default_num_heads(100, 64) == 64


def test_global_token_stands_beside_the_mean(build, draw, as_tokens) -> None:
    network = build(KIND, tokens=3, dim=4, user=1, readout="mean_global")
    stack = run_layers(network, as_tokens(draw(2, 3, 4), user=1))
    normed = network.norm(stack.features())
    assert network.out_dim == 8
    torch.testing.assert_close(stack.readout(), torch.cat((normed.mean(1), normed[:, 1]), dim=1))


def test_all_mistakes_come_at_once(build) -> None:
    with pytest.raises(ConfigError) as caught:
        build(KIND, tokens=0, dim=64, num_heads=6, readout="mean_global")
    message = str(caught.value)
    assert "num_heads: must divide token_dim=64. Got 6. Nearest that work: 2, 4, 8." in message
    assert "readout: the tokens hold no global token" in message


def test_post_norm_norms_after_the_residual(build, draw) -> None:
    network = build(KIND, tokens=3, dim=6, num_layers=1, norm="post")
    out = network.layers[0].block(draw(2, 3, 6))
    torch.testing.assert_close(
        out.square().mean(dim=2), torch.ones(2, 3).double(), rtol=1e-4, atol=0
    )
