from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rankloom.ops import extend_low_rank, low_rank
from rankloom.ops.flops import flop_counter


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def of_rank(rank: int, *, rows: int = 3, length: int = 20, width: int = 8) -> Tensor:
    return draw(rows, length, rank) @ draw(rows, rank, width, seed=1)


def energy(x: Tensor) -> Tensor:
    """Give x^T x, which has no signs."""
    return x.mT @ x


def test_interests_are_singular_vectors_times_singular_values() -> None:
    events = draw(2, 20, 8)
    interests, axes = low_rank(events, 3)
    _, lengths, vectors = torch.linalg.svd(events, full_matrices=False)
    expected = lengths[:, :3, None] * vectors[:, :3]
    signs = (expected * interests).sum(dim=2, keepdim=True).sign()
    torch.testing.assert_close(interests, signs * expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(axes, signs * vectors[:, :3], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_interests_stand_for_all_events_of_a_history_of_their_rank(rank: int) -> None:
    events = of_rank(3)
    interests, axes = low_rank(events, rank)
    error = (energy(interests) - energy(events)).abs().max() / energy(events).abs().max()
    left = (events - events @ axes.mT @ axes).abs().max() / events.abs().max()
    assert (error < 1e-5) == (left < 1e-5) == (rank >= 3)


def test_the_error_is_the_energy_of_what_is_dropped() -> None:
    events = draw(1, 50, 8) * torch.logspace(0, -2, 8)
    lengths = torch.linalg.svdvals(events)[0]
    errors = []
    for rank in range(1, 9):
        _, axes = low_rank(events, rank)
        errors.append((events - events @ axes.mT @ axes).square().sum())
        # At full rank rounding is left, of the largest length.
        expected = lengths[rank:].square().sum()
        torch.testing.assert_close(errors[-1], expected, rtol=1e-3, atol=1e-8)
    assert errors == sorted(errors, reverse=True)


def test_neither_padding_nor_order_nor_other_histories_matter() -> None:
    events = draw(3, 6, 4)
    expected = energy(low_rank(events, 2)[0])
    padded = torch.nn.functional.pad(events, (0, 0, 5, 0)).flip(1)
    torch.testing.assert_close(energy(low_rank(padded, 2)[0]), expected)
    for row in range(3):
        torch.testing.assert_close(energy(low_rank(events[row : row + 1], 2)[0])[0], expected[row])


def test_the_gradient_is_that_of_fixed_combinations_of_the_events() -> None:
    events, slope = draw(2, 20, 6).double().requires_grad_(), draw(2, 3, 6, seed=2).double()
    interests, _ = low_rank(events, 3)
    with torch.no_grad():
        combinations = (events @ interests.mT) / interests.square().sum(dim=2)[:, None]
    expected = combinations.mT @ events
    torch.testing.assert_close(expected, interests)
    found, wanted = (torch.autograd.grad((y * slope).sum(), events) for y in (interests, expected))
    torch.testing.assert_close(found, wanted)


def test_the_gradient_of_all_energy_is_exact() -> None:
    events = draw(2, 20, 4).double().requires_grad_()
    (gradient,) = torch.autograd.grad(low_rank(events, 4)[0].square().sum(), events)
    torch.testing.assert_close(gradient, 2 * events)


@pytest.mark.parametrize("name", ["empty", "one event", "twice the same", "equal lengths"])
def test_degenerate_histories_are_finite_both_ways(name: str) -> None:
    events = torch.zeros(1, 5, 4)
    if name == "one event":
        events[0, 4] = draw(4)
    elif name == "twice the same":
        events[0, 3:] = draw(4)
    elif name == "equal lengths":
        events[0, 1:] = torch.eye(4)
    interests, axes = low_rank(events.requires_grad_(), 3)
    interests.sum().backward()
    assert events.grad is not None
    # As large as the slope, not as one over a difference of lengths.
    assert events.grad.abs().max() < 10
    torch.testing.assert_close(axes @ axes.mT, torch.eye(3)[None])
    assert interests.isfinite().all()
    assert name != "empty" or not (interests.any() or events.grad.any())


def test_a_history_that_is_not_finite_fails_alone() -> None:
    events = draw(2, 5, 4)
    events[0, 1, 1] = torch.inf
    interests, _ = low_rank(events, 2)
    assert interests[0].isnan().all()
    torch.testing.assert_close(energy(interests[1]), energy(low_rank(events[1:], 2)[0][0]))


def test_products_are_never_half_precise() -> None:
    events = of_rank(3).bfloat16()
    wide, _ = low_rank(events.float(), 3)
    torch.testing.assert_close(low_rank(events, 3)[0], wide.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(low_rank(events.float(), 3)[0], wide)


def test_a_history_that_has_grown_is_extended_exactly_within_the_rank() -> None:
    events = of_rank(4)
    older, _ = low_rank(events[:, :12], 4)
    extended, axes = extend_low_rank(older, events[:, 12:])
    torch.testing.assert_close(energy(extended), energy(events), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(events @ axes.mT @ axes, events, rtol=1e-5, atol=1e-5)


def test_beyond_the_rank_an_extension_lacks_what_was_dropped_and_no_more() -> None:
    events = draw(1, 20, 8).double()
    older, _ = low_rank(events[:, :12], 4)
    extended, _ = extend_low_rank(older, events[:, 12:])
    missing = torch.linalg.eigvalsh(energy(events) - energy(extended))
    dropped = torch.linalg.svdvals(events[:, :12])[0, 4] ** 2
    dropped += torch.linalg.svdvals(torch.cat((older, events[:, 12:]), dim=1))[0, 4] ** 2
    assert missing.min() > -1e-9
    assert missing.max() <= dropped + 1e-9


def test_cost_is_counted_and_linear_in_the_length() -> None:
    counts = []
    for length in (100, 200, 300):
        events = draw(2, length, 8).requires_grad_()
        with flop_counter() as counter:
            low_rank(events, 4)[0].sum().backward()
        counts.append(counter.get_total_flops())
    # Forward and backward each one product of width by width for each event.
    assert counts[2] - counts[1] == counts[1] - counts[0] == 2 * 100 * 2 * 2 * 8 * 8


def test_op_is_well_formed() -> None:
    events = draw(2, 7, 4).requires_grad_()
    torch.library.opcheck(torch.ops.rankloom.low_rank.default, (events, 2))
