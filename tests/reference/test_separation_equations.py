"""UG-Sep in two streams against the paper's form: all tokens together, under a 0/1 mask.

The masked form has weights for the columns that are masked; they are random, since they must not
matter.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rankloom.config import resolve
from rankloom.contract.cost_line import compute, cost_formulas
from rankloom.interaction import INTERACTIONS
from rankloom.layers.protocols import Layout, TokenLayout, Tokens, run_layers

RATIOS = {"1:1": (2, 2), "2:1": (4, 2), "3:1": (3, 1)}
COMPENSATIONS = ("none", "low_rank", "cheap")
DIM = 12


def build(kind: str, counts: tuple[int, int], *, is_random: bool = True, **options: Any) -> Any:
    cls = resolve(kind, INTERACTIONS, path="kind")
    layout = TokenLayout(
        gives="tokens", num_user=counts[0], num_candidate=counts[1], dim=DIM, global_token=counts[0]
    )
    generator = torch.Generator().manual_seed(0)
    module = cls(cls.Config(**options), Layout(features={}, tokens=layout), generator=generator)
    if is_random:
        with torch.no_grad():
            for parameter in module.double().parameters():
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return module.double()


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def as_tokens(x: Tensor, num_user: int) -> Tokens:
    return Tokens(x[:, :num_user], x[:, :0], x[:, num_user:])


def mix(x: Tensor, heads: int) -> Tensor:
    """Give row h the h-th slice of every token, as the paper writes it."""
    rows, tokens, dim = x.shape
    return x.reshape(rows, tokens, heads, dim // heads).transpose(1, 2).reshape(rows, heads, -1)


def mask(shape: torch.Size, num_user: int, own_columns: int) -> Tensor:
    """Give zeros where a user's row has a column of the candidate's."""
    ones = torch.ones(shape[1:], dtype=torch.float64)
    ones[:num_user, own_columns:] = 0
    return ones


def filled(weight: Tensor, dim: int, size: int, *, front: bool = False) -> Tensor:
    """Add random columns that the mask makes useless."""
    shape = list(weight.shape)
    shape[dim] = size - shape[dim]
    parts = [weight, draw(*shape, seed=2)]
    return torch.cat(parts[::-1] if front else parts, dim=dim)


def compensation(block: Any, kind: str, user: Tensor, counts: tuple[int, int]) -> Tensor | float:
    """Give what is added to the mixed candidate rows, from all columns of the user rows."""
    module, num_user, width = block.compensation, user.shape[1], user.shape[2]
    tokens = sum(counts)
    if kind == "low_rank":
        down = module.down.weight.unflatten(1, (num_user, -1))
        code = user.flatten(1) @ filled(down, 2, width).flatten(1).T
        return (code @ module.up.weight.T).unflatten(1, (-1, width))
    if kind == "cheap":
        weight = filled(module.weight, 0, tokens)
        slices = user.unflatten(2, (tokens, -1))
        per_slice = [weight[t] @ slices[:, :, t] for t in range(tokens)]
        return torch.stack(per_slice, dim=2).flatten(2)
    return 0.0


def per_stream(user: nn.Module, candidate: nn.Module, x: Tensor, num_user: int) -> Tensor:
    return torch.cat((user(x[:, :num_user]), candidate(x[:, num_user:])), dim=1)


def masked_rankmixer_block(block: Any, kind: str, x: Tensor, counts: tuple[int, int]) -> Tensor:
    (num_user, _), tokens = counts, x.shape[1]
    s = mix(x, tokens) * mask(x.shape, num_user, num_user * DIM // tokens)
    s[:, num_user:] += compensation(block, kind, s[:, :num_user], counts)
    y = per_stream(block.user.mix_norm, block.candidate.mix_norm, s + x, num_user)
    v = per_stream(block.user.feed_forward, block.candidate.feed_forward, y, num_user)
    return per_stream(block.user.out_norm, block.candidate.out_norm, v + y, num_user)


@pytest.mark.parametrize("kind", COMPENSATIONS)
@pytest.mark.parametrize("counts", RATIOS.values(), ids=list(RATIOS))
def test_rankmixer(counts: tuple[int, int], kind: str) -> None:
    network = build("rankmixer", counts, num_layers=3, separation={"compensation": kind})
    x = draw(5, sum(counts), DIM)
    states = run_layers(network, as_tokens(x, counts[0])).states
    for block, state in zip(network.layers, states[1:], strict=True):
        x = masked_rankmixer_block(block, kind, x, counts)
        torch.testing.assert_close(state.x, x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        network.readout(states[-1]), x.sum(dim=1) / x.shape[1], rtol=1e-12, atol=1e-12
    )


def rms_norm(x: Tensor, gain: Tensor) -> Tensor:
    return x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * gain


def masked_branch(branch: Any, x: Tensor, residual: Tensor) -> Tensor:
    """Feed rows of full width forward, with weights for every column."""
    width, w = x.shape[2], branch.feed_forward
    is_pre = hasattr(branch.norm, "scale")
    gain = filled(branch.norm.weight, 0, width)
    given = rms_norm(x, gain) if is_pre else x
    both = torch.einsum("bti,tio->bto", given, filled(w.gate_up.weight, 1, width))
    gate, up = (both + w.gate_up.bias).chunk(2, dim=2)
    down, bias = (filled(one, -1, width, front=True) for one in (w.down.weight, w.down.bias))
    y = residual + torch.einsum("bti,tio->bto", F.silu(gate) * up, down) + bias
    return y if is_pre else rms_norm(y, gain)


def masked_tokenmixer_block(
    block: Any, kind: str, x: Tensor, counts: tuple[int, int], heads: int
) -> Tensor:
    (num_user, _), tokens = counts, x.shape[1]
    user_heads, own = heads * num_user // tokens, num_user * DIM // heads
    h = mix(x, heads)
    h = h * mask(h.shape, user_heads, own)
    h[:, user_heads:] += compensation(block, kind, h[:, :user_heads], counts)
    h = torch.cat(
        (
            masked_branch(block.user_mixed, h[:, :user_heads], h[:, :user_heads]),
            masked_branch(block.candidate_mixed, h[:, user_heads:], h[:, user_heads:]),
        ),
        dim=1,
    )
    # Without this second mask, slices of candidate rows come back into user tokens.
    r = mix(h, tokens) * mask(x.shape, num_user, user_heads * DIM // heads)
    user = masked_branch(block.user_tokens, r[:, :num_user], x[:, :num_user])
    candidate = masked_branch(block.candidate_tokens, r[:, num_user:], x[:, num_user:])
    return torch.cat((user, candidate), dim=1)


@pytest.mark.parametrize("kind", COMPENSATIONS)
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize(
    ("counts", "heads"), [((2, 2), 2), ((2, 2), 4), ((4, 2), 12), ((4, 2), 3), ((3, 1), 4)]
)
def test_tokenmixer_large(counts: tuple[int, int], heads: int, norm: str, kind: str) -> None:
    network = build(
        "tokenmixer_large", counts,
        num_layers=5, num_heads=heads, norm=norm, expansion=1.5, readout="mean_global",
        separation={"compensation": kind},
    )  # fmt: skip
    x = draw(5, sum(counts), DIM)
    states = run_layers(network, as_tokens(x, counts[0])).states
    group = x
    for number, state in enumerate(states[1:], start=1):
        block = network.layers[number - 1].block
        x = masked_tokenmixer_block(block, kind, x, counts, heads)
        if number in {2, 4}:
            x = group = x + group
        torch.testing.assert_close(state.x, x, rtol=1e-12, atol=1e-12)
    x = rms_norm(x, network.norm.weight)
    expected = torch.cat((x.sum(dim=1) / x.shape[1], x[:, counts[0]]), dim=1)
    torch.testing.assert_close(network.readout(states[-1]), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["low_rank", "cheap"])
@pytest.mark.parametrize("architecture", ["rankmixer", "tokenmixer_large"])
def test_compensation_starts_as_the_plain_masked_model(architecture: str, kind: str) -> None:
    network = build(architecture, (2, 2), is_random=False, separation={"compensation": kind})
    plain = build(architecture, (2, 2), is_random=False, separation={"compensation": "none"})
    plain.load_state_dict(network.state_dict(), strict=False)
    tokens = as_tokens(draw(5, 4, DIM), 2)
    assert torch.equal(run_layers(network, tokens).features(), run_layers(plain, tokens).features())
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "compensation" in name:
                # Not a constant, which a norm would take away again.
                parameter += draw(*parameter.shape)
    changed = run_layers(network, tokens).features()
    assert not torch.allclose(changed, run_layers(plain, tokens).features())


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("rankmixer", {"num_layers": 3, "expansion": 2}),
        ("tokenmixer_large", {"num_layers": 3, "expansion": 1.5}),
        ("tokenmixer_large", {"num_heads": 12, "norm": "post"}),
    ],
)
@pytest.mark.parametrize(
    "separation",
    [
        {"compensation": "none"},
        {"compensation": "low_rank", "rank": 5},
        {"compensation": "cheap"},
        {"user_tokens": 2},
    ],
)
def test_header_gives_the_number_of_parameters(
    architecture: str, options: dict[str, Any], separation: dict[str, Any]
) -> None:
    network = build(architecture, (3, 1) if "user_tokens" not in separation else (3, 2),
                    separation=separation, **options)  # fmt: skip
    formula, _ = cost_formulas(type(network))
    count = sum(parameter.numel() for parameter in network.parameters())
    assert compute(formula, {"D": DIM, **network.cost_letters()}) == count


def multiply_adds(network: Any, x: Tensor, num_user: int) -> float:
    with FlopCounterMode(display=False) as counter:
        run_layers(network, as_tokens(x, num_user))
    return counter.get_total_flops() / 2 / x.shape[0]


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("kind", COMPENSATIONS)
def test_header_gives_the_multiply_adds(kind: str, norm: str) -> None:
    for architecture, options in (("rankmixer", {}), ("tokenmixer_large", {"norm": norm})):
        network = build(
            architecture, (3, 2), separation={"user_tokens": 4, "compensation": kind}, **options
        )
        _, formula = cost_formulas(type(network))
        expected = compute(formula, {"D": DIM, **network.cost_letters()})
        assert multiply_adds(network, draw(2, 5, DIM), 3) == expected
