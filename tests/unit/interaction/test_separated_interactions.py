"""RankMixer and TokenMixer-Large with user tokens kept apart: purity, hoisting, mistakes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.unit.hoist.tiny import Tiny, flops, hoisted_equals_plain
from torch import Tensor

from rankloom.config import resolve
from rankloom.contract.cost_line import compute, cost_formulas
from rankloom.errors import ConfigError
from rankloom.interaction import INTERACTIONS
from rankloom.layers.protocols import Layout, TokenLayout, Tokens, run_layers
from rankloom.schema import Rate

KINDS = ("rankmixer", "tokenmixer_large")
COMPENSATIONS = ("none", "low_rank", "cheap")
N = 50
HOISTED = [((2, 2), "none"), ((4, 2), "low_rank"), ((3, 1), "none"), ((2, 2), "cheap")]


@pytest.fixture
def build_layout():
    def make(kind: str, layout: TokenLayout, **options: Any) -> Any:
        cls = resolve(kind, INTERACTIONS, path="kind")
        generator = torch.Generator().manual_seed(0)
        module = cls(cls.Config(**options), Layout(features={}, tokens=layout), generator=generator)
        return module.double()

    return make


def randomized(network: Any) -> Any:
    """Make what starts at zero or small visible."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return network


@pytest.mark.parametrize("compensation", COMPENSATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_user_tokens_never_see_the_candidate(build, draw, kind: str, compensation: str) -> None:
    separation = {"compensation": compensation}
    network = randomized(build(kind, tokens=4, user=2, dim=12, num_layers=3, separation=separation))
    user, candidate = draw(3, 2, 12), draw(3, 2, 12).requires_grad_()
    stack = run_layers(network, Tokens(user, user[:, :0], candidate))
    others = run_layers(network, Tokens(user, user[:, :0], candidate.detach().flip(0) + 1))
    for state, other in zip(stack.states[1:], others.states[1:], strict=True):
        assert torch.equal(state.user, other.user)
        assert not torch.equal(state.candidate, other.candidate)
        # Not even a path along which the gradient is zero.
        gradient = torch.autograd.grad(
            (state.user**3).sum(), candidate, retain_graph=True, allow_unused=True
        )
        assert gradient == (None,)


@pytest.mark.parametrize("compensation", COMPENSATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_candidate_tokens_see_every_user_token(build, draw, kind: str, compensation: str) -> None:
    separation = {"compensation": compensation}
    network = randomized(build(kind, tokens=4, user=2, dim=12, num_layers=1, separation=separation))
    user = draw(1, 2, 12).requires_grad_()
    out = run_layers(network, Tokens(user, user[:, :0], draw(1, 2, 12))).states[-1].candidate
    for token in range(2):
        (gradient,) = torch.autograd.grad((out[:, token] ** 3).sum(), user, retain_graph=True)
        assert (gradient.abs().sum(dim=2) > 1e-9).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rate", "num_user"), [("user", 1), ("request", 3)])
def test_request_tokens_join_the_stream_of_their_rate(
    build_layout, draw, kind: str, rate: str, num_user: int
) -> None:
    layout = TokenLayout(gives="tokens", num_user=1, num_request=2, num_candidate=1, dim=12)
    network = build_layout(kind, layout, separation={"rate": rate})
    x = draw(2, 4, 12)
    state = network.embed_in(Tokens(x[:, :1], x[:, 1:3], x[:, 3:]))
    assert state.user.shape[1] == num_user
    assert torch.equal(network.features(state), x)


@pytest.mark.parametrize("kind", KINDS)
def test_user_tokens_are_projected_to_another_number(build, draw, kind: str) -> None:
    network = build(kind, tokens=5, user=3, dim=12, separation={"user_tokens": 4})
    user, candidate = draw(2, 3, 12), draw(2, 2, 12)
    state = network.embed_in(Tokens(user, user[:, :0], candidate))
    weights = network.enter.project.project
    side_by_side = user.reshape(2, 36)
    expected = torch.stack([side_by_side @ weights.weight[t] for t in range(4)], dim=1)
    torch.testing.assert_close(state.user, expected)
    assert torch.equal(state.candidate, candidate)


def test_global_token_is_found_behind_projected_user_tokens(build, draw) -> None:
    network = build(
        "tokenmixer_large",
        tokens=5, user=3, dim=12, readout="mean_global", separation={"user_tokens": 4},
    )  # fmt: skip
    user, candidate = draw(2, 3, 12), draw(2, 2, 12)
    stack = run_layers(network, Tokens(user, user[:, :0], candidate))
    # The layout's global token is the first candidate token.
    expected = network.norm(stack.states[-1].candidate)[:, 0]
    torch.testing.assert_close(stack.readout()[:, 12:], expected)


# Hoisting


def network_of(interaction: Any, counts: tuple[int, int], dim: int) -> Tiny:
    """Give a network whose features are tokens and whose result is the readout."""

    def body(u: Tensor, c: Tensor) -> Tensor:
        return run_layers(interaction, Tokens(u, u[:, :0], c)).readout()

    network = Tiny(body, {"u": (counts[0], dim), "c": (counts[1], dim)})
    network.interaction = interaction
    return network


def flops_of_a_block(
    build, kind: str, counts: tuple[int, int], **options: Any
) -> tuple[dict[Rate, int], float]:
    """Count what the second block adds, hoisted by rate, and plain without separation."""
    dim, counted, plain = 48, [], []
    for layers in (1, 2):
        interaction = randomized(
            build(kind, tokens=sum(counts), user=counts[0], dim=dim, num_layers=layers, **options)
        )
        network = network_of(interaction, counts, dim)
        counted.append(flops(hoisted_equals_plain(network), network, num_candidates=N))
        options_together = {name: one for name, one in options.items() if name != "separation"}
        together = build(kind, tokens=sum(counts), dim=dim, num_layers=layers, **options_together)
        formula = cost_formulas(type(together))[1]
        plain.append(2 * compute(formula, {"D": dim, **together.cost_letters()}))
    return {rate: counted[1][rate] - counted[0][rate] for rate in counted[0]}, plain[1] - plain[0]


@pytest.mark.parametrize(("counts", "compensation"), HOISTED)
def test_hoisted_rankmixer_costs_the_candidate_its_own_tokens(
    build, counts: tuple[int, int], compensation: str
) -> None:
    separation = {"compensation": compensation}
    block, plain = flops_of_a_block(build, "rankmixer", counts, separation=separation)
    own = 2 * 2 * 48 * 144
    assert plain == own * sum(counts)
    # Compensation is the user's too: the candidate only adds it.
    assert block[Rate.CANDIDATE] == N * own * counts[1] == N * plain * counts[1] / sum(counts)
    assert block[Rate.USER] >= own * counts[0]
    if compensation == "none":
        assert block[Rate.USER] == own * counts[0]


@pytest.mark.parametrize(("counts", "compensation"), HOISTED)
def test_hoisted_tokenmixer_large_costs_the_candidate_its_own_tokens(
    build, counts: tuple[int, int], compensation: str
) -> None:
    separation = {"compensation": compensation}
    block, plain = flops_of_a_block(build, "tokenmixer_large", counts, separation=separation)
    share, user_share = counts[1] / sum(counts), counts[0] / sum(counts)
    # A candidate row's down projection leaves out the columns of user tokens: one of a SwiGLU's
    # three matrices, in one of the block's two.
    assert block[Rate.CANDIDATE] == pytest.approx(N * plain * share * (1 - user_share / 6))
    # User rows and tokens read their own columns only, with two of three matrices.
    own = plain * user_share * (1 / 3 + 2 / 3 * user_share)
    assert block[Rate.USER] == pytest.approx(own) or compensation != "none"
    assert block[Rate.USER] >= own


def test_hoisted_tokenmixer_large_with_norms_behind_divides_mixed_products(build) -> None:
    counts, separation = (3, 1), {"compensation": "none"}
    block, plain = flops_of_a_block(
        build, "tokenmixer_large", counts, norm="post", separation=separation
    )
    # Without a norm before them, the user's columns of gates and values are the user's (MaRI).
    assert block[Rate.CANDIDATE] == pytest.approx(N * plain / 4 * (1 / 3 + 2 / 3 / 4))


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_would_leave_nothing_to_hoist(build, kind: str) -> None:
    """What separation buys: without it, every block is the candidate's."""
    network = network_of(build(kind, tokens=4, user=2, dim=48), (2, 2), 48)
    hoisted = hoisted_equals_plain(network)
    counted = flops(hoisted, network, num_candidates=N)
    assert counted[Rate.USER] == 0


# Mistakes


def test_all_mistakes_of_tokenmixer_large_come_at_once(build) -> None:
    with pytest.raises(ConfigError) as caught:
        build(
            "tokenmixer_large", tokens=6, user=3, dim=64, num_heads=1, readout="mean",
            separation={"compensation": "cheap", "rank": 3},
        )  # fmt: skip
    message = str(caught.value)
    assert "separation.rank: belongs to compensation low_rank. Got 3 with cheap" in message
    assert "3 of 6, must be whole. Got 1. Nearest that work: num_heads 2, 4, 8; or" in message


def test_heads_and_user_tokens_that_would_fit_are_named(build) -> None:
    # Of 7 tokens 3 are the user's, and 7 divides no divisor of 64. With 4 heads and 4 candidate
    # tokens, 4 T_U / (T_U + 4) is whole for 4 and 12.
    ways = "Nearest that work: num_heads 4 with separation.user_tokens 4, 12; or another token_dim"
    nothing = "Got no divisor of token_dim=64 up to 7 that fits. "
    for heads, got in ((None, nothing), (4, "Got 4. ")):
        with pytest.raises(ConfigError) as caught:
            build("tokenmixer_large", tokens=7, user=3, dim=64, num_heads=heads, separation={})
        assert f"3 of 7, must be whole. {got}{ways}." in str(caught.value)
    for user_tokens in (4, 12):
        build(
            "tokenmixer_large",
            tokens=7, user=3, dim=64, num_heads=4, separation={"user_tokens": user_tokens},
        )  # fmt: skip


def test_default_heads_give_the_user_a_whole_share(build) -> None:
    # 4 heads would give the user 4 x 2 / 6 of them.
    assert build("tokenmixer_large", tokens=6, user=2, dim=12, separation={}).num_heads == 6
    assert build("tokenmixer_large", tokens=6, user=2, dim=15, separation={}).num_heads == 3


@pytest.mark.parametrize("kind", KINDS)
def test_each_stream_needs_a_token(build, kind: str) -> None:
    with pytest.raises(ConfigError, match=r"gives no token of rate user. Got 0 tokens"):
        build(kind, tokens=4, user=0, dim=12, separation={"user_tokens": 2})
    with pytest.raises(ConfigError, match=r"no token is left for the candidate stream. Got 4"):
        build(kind, tokens=4, user=4, dim=12, separation={})


def test_rankmixer_counts_projected_user_tokens(build) -> None:
    with pytest.raises(
        ConfigError, match=r"as many slices as there are tokens, 5. Got token_dim=12"
    ):
        build("rankmixer", tokens=4, user=2, dim=12, separation={"user_tokens": 3})


def test_a_projected_global_token_cannot_be_read(build_layout) -> None:
    layout = TokenLayout(gives="tokens", num_user=2, num_candidate=2, dim=12, global_token=0)
    separation = {"user_tokens": 2}
    with pytest.raises(ConfigError, match="the global token is one of the user tokens"):
        build_layout("tokenmixer_large", layout, readout="mean_global", separation=separation)
