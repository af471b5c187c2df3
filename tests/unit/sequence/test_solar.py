from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.unit.sequence.test_sequences import INPUTS, build, candidates, histories, read
from torch import Tensor

from rankloom.errors import ConfigError
from rankloom.layers.protocols import SequenceLayout
from rankloom.ops.flops import flop_counter
from rankloom.schema import Rate
from rankloom.sequence.solar import SOLAR, SOLARConfig
from rankloom.sequence.solar_reads import ColumnState, InterestState

EXACT = {"read": "exact_at_low_rank", "dim": 8}
FLAT = {"read": "flat_in_length", "dim": 8}
BOTH = pytest.mark.parametrize("options", [EXACT, FLAT], ids=["exact", "flat"])


def make(*, width: int = 4, max_length: int = 10, has_times: bool = True, **options: Any) -> Any:
    layout = SequenceLayout(
        name="history",
        columns={"item": width},
        rate=Rate.USER,
        candidate={"item": "item"},
        max_length=max_length,
        has_times=has_times,
    )
    generator = torch.Generator().manual_seed(0)
    return SOLAR(SOLARConfig(**options), layout, generator=generator).double().eval()


def of_rank(rank: int, lengths: list[int], *, length: int, width: int) -> tuple[Tensor, Tensor]:
    """Draw histories whose events lie in few dimensions."""
    events, mask = histories(lengths, length=length, width=rank)
    turn = torch.randn(rank, width, generator=torch.Generator().manual_seed(3)).double()
    return events @ turn, mask


def softmax_attention(encoder: SOLAR, events: Tensor, mask: Tensor, candidate: Tensor) -> Tensor:
    """Attend to the events themselves, head by head, as the definition of the exact read."""
    reader, heads = encoder.history, encoder.config.num_heads
    events = encoder.norm(events)
    age = torch.arange(mask.shape[1] - 1, -1, -1)
    rate = torch.nn.functional.softplus(encoder.rate) / encoder.max_length
    query, key = reader.query(encoder.norm(candidate)), reader.key(events)
    values = reader.value(events)
    tokens = []
    for one in torch.arange(encoder.out_dim).chunk(heads):
        logits = (key[:, :, one] @ query[:, one, None])[:, :, 0] / len(one) ** 0.5 - rate * age
        weights = torch.softmax(logits.masked_fill(~mask, -torch.inf), dim=1)
        tokens.append((weights[:, :, None] * values[:, :, one]).sum(dim=1))
    return torch.cat(tokens, dim=1)[:, None]


def test_the_exact_read_is_softmax_attention_within_the_rank() -> None:
    encoder = make(width=8, rank=3, **EXACT)
    events, mask = of_rank(3, [20, 11, 1], length=20, width=8)
    c = candidates(3, width=8)
    expected = softmax_attention(encoder, events, mask, c)
    torch.testing.assert_close(read(encoder, events, mask, c), expected, rtol=1e-9, atol=1e-9)
    found = read(encoder.float(), events.float(), mask, c.float())
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)


def test_the_exact_read_nears_softmax_attention_as_the_rank_grows() -> None:
    events, mask = histories([30, 30, 30], length=30, width=8)
    c = candidates(3, width=8)
    errors = []
    for rank in (1, 3, 5, 7, 8):
        encoder = make(width=8, rank=rank, **EXACT)
        with torch.no_grad():
            expected = softmax_attention(encoder, events, mask, c)
            error = (read(encoder, events, mask, c) - expected).norm() / expected.norm()
        errors.append(float(error))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.1
    assert errors[-1] < 1e-9


def test_the_flat_read_of_a_faint_query_is_linear_attention_to_the_events() -> None:
    encoder = make(width=8, rank=3, **FLAT)
    events, mask = of_rank(3, [20, 20], length=20, width=8)
    c = candidates(2, width=8)
    reader, faint = encoder.history, 1e-5
    with torch.no_grad():
        reader.mean_query.weight.zero_()
        reader.query.weight.mul_(faint)
        token = read(encoder, events, mask, c)[:, 0] / faint
        rate = torch.nn.functional.softplus(encoder.rate) / encoder.max_length
        weights = torch.exp(-rate * torch.arange(19, -1, -1))
        rows = encoder.norm(events) * weights.sqrt()[:, None]
        query = reader.query(encoder.norm(c)) / faint
        for one in torch.arange(8).chunk(2):
            linear = query[:, None, one] @ (reader.key(rows)[:, :, one].mT @ reader.value(rows))
            # The softmax over 2 r logits +-s gives tanh(s) / r to each pair.
            expected = linear[:, 0, one] / weights.sum() / 3 / 2.0
            torch.testing.assert_close(token[:, one], expected, rtol=1e-6, atol=1e-9)


@BOTH
def test_the_signs_of_singular_vectors_do_not_matter(options: dict[str, Any]) -> None:
    encoder, c = make(**options), candidates(2)
    state = encoder.encode(*histories([5, 3]), {})
    expected = encoder.read(state, c, INPUTS)
    signs = torch.tensor([1.0, -1.0, -1.0, 1.0]).double()
    if isinstance(state, InterestState):
        flipped: Any = state._replace(interests=state.interests * signs[:, None])
    else:
        axes = state.axes * signs[:, None]
        flipped = state._replace(columns=state.columns * signs, axes=axes)
    torch.testing.assert_close(encoder.read(flipped, c, INPUTS), expected, rtol=0, atol=1e-14)


@BOTH
def test_the_order_of_events_matters_by_their_recency_alone(options: dict[str, Any]) -> None:
    events, mask = histories([5, 5])
    order = torch.tensor([3, 0, 4, 2, 1])
    for recency, does_matter in (("none", False), ("events", True)):
        encoder = make(recency=recency, **options)
        tokens, turned = (read(encoder, x, mask, candidates(2)) for x in (events, events[:, order]))
        assert torch.isclose(tokens, turned).all() != does_matter


def test_a_history_and_its_opposite_are_told_apart() -> None:
    encoder, (events, mask) = make(**FLAT), histories([5, 4])
    tokens, opposite = (read(encoder, x, mask, candidates(2)) for x in (events, -events))
    assert not torch.isclose(tokens, opposite).any(dim=2).any()
    assert not torch.isclose(tokens, -opposite).any(dim=2).any()


@pytest.mark.parametrize("recency", ["events", "seconds"])
def test_a_weight_halves_over_the_scale_at_first(recency: str) -> None:
    encoder = make(recency=recency, max_length=2, **FLAT)
    mask = torch.ones(1, 3, dtype=torch.bool)
    month = 30 * 86400.0
    times = {"gap_newest": torch.tensor([[2 * month, month, 0.0]]).double()}
    with torch.no_grad():
        state = encoder.encode(torch.ones(1, 3, 4).double(), mask, times)
    # Of ages 2, 1, 0 with halves at 2 events, or at one month.
    expected = 1 / 2 + 0.5**0.5 + 1 if recency == "events" else 1 / 4 + 1 / 2 + 1
    torch.testing.assert_close(state.weight, torch.tensor([[expected]]).double())


def gaps(mask: Tensor, seconds: Tensor) -> dict[str, Tensor]:
    """Give each event's time to the one before it and to the newest."""
    seconds = seconds.masked_fill(~mask, 0.0)
    after = seconds.flip(1).cumsum(1).flip(1) - seconds
    return {"gap_previous": seconds, "gap_newest": after}


@BOTH
@pytest.mark.parametrize("recency", ["none", "events", "seconds"])
def test_an_extended_state_equals_a_rebuilt_one(options: dict[str, Any], recency: str) -> None:
    encoder, c = make(width=8, recency=recency, rank=3, **options), candidates(5, width=8)
    # Some histories have no older events, some no new ones, one has neither.
    events, mask = of_rank(3, [7, 3, 7, 0, 0], length=7, width=8)
    more, new = of_rank(3, [5, 5, 0, 4, 0], length=5, width=8)
    every, both = torch.cat((events, more), dim=1), torch.cat((mask, new), dim=1)
    seconds = torch.arange(1, 13).double().expand(5, -1) * 1e5
    times = gaps(both, seconds)
    state = encoder.extend(
        encoder.encode(events, mask, gaps(mask, seconds[:, :7])),
        more,
        new,
        {name: value[:, 7:] for name, value in times.items()},
    )
    expected = encoder.read(encoder.encode(every, both, times), c, INPUTS)
    torch.testing.assert_close(encoder.read(state, c, INPUTS), expected, rtol=1e-9, atol=1e-9)


@BOTH
def test_beyond_the_rank_an_extended_state_is_near_a_rebuilt_one(options: dict[str, Any]) -> None:
    encoder, c = make(width=8, rank=6, **options), candidates(2, width=8)
    events, mask = histories([40, 40], length=40, width=8)
    events = events * torch.logspace(0, -1.5, 8)
    first = encoder.encode(events[:, :30], mask[:, :30], {})
    found = encoder.read(encoder.extend(first, events[:, 30:], mask[:, 30:], {}), c, INPUTS)
    expected = read(encoder, events, mask, c)
    error = (found - expected).norm() / expected.norm()
    assert 1e-9 < error < 0.05


@BOTH
@pytest.mark.parametrize("lengths", [[0, 0], [1, 1], [5, 2]])
def test_gradients_are_finite_and_reach_every_event(options: dict[str, Any], lengths) -> None:
    encoder = make(**options).train()
    events, mask = histories(lengths)
    read(encoder, events.requires_grad_(), mask, candidates(2)).square().sum().backward()
    assert events.grad is not None
    assert events.grad.isfinite().all()
    assert torch.equal((events.grad != 0).any(dim=2), mask)
    assert all(one.grad is not None and one.grad.isfinite().all() for one in encoder.parameters())


def counted(what: Any) -> int:
    with flop_counter() as counter, torch.no_grad():
        what()
    return counter.get_total_flops()


@pytest.mark.parametrize(("options", "grows"), [(FLAT, 0), (EXACT, 1)], ids=["flat", "exact"])
def test_only_the_exact_read_costs_more_for_a_longer_history(
    options: dict[str, Any], grows: int
) -> None:
    encoder = make(rank=3, num_heads=2, **options)
    building, reading = [], []
    for length in (100, 200, 300):
        history = histories([length], length=length)
        state = encoder.encode(*history, {})
        building.append(counted(lambda one=history: encoder.encode(*one, {})))
        reading.append(counted(lambda one=state: encoder.read(one, candidates(1), INPUTS)))
    # Products of an event with itself, and with the axes for the exact read.
    step = 100 * 2 * (4 * 4 + grows * 4 * 3)
    assert building[2] - building[1] == building[1] - building[0] == step
    # Two heads, three columns, for the logits and for the sum.
    step = grows * 100 * 2 * (2 * 2 * 3)
    assert reading[2] - reading[1] == reading[1] - reading[0] == step


def test_the_rank_is_at_most_the_width_of_an_event() -> None:
    state = make(rank=16, **EXACT).encode(*histories([5]), {})
    assert isinstance(state, ColumnState)
    assert state.axes.shape == (1, 4, 4)


def test_all_problems_of_a_config_come_at_once() -> None:
    with pytest.raises(ConfigError, match=r"num_heads: must divide dim=10\. Got 4\.") as caught:
        make(dim=10, num_heads=4, recency="seconds", has_times=False)
    assert "Nearest that work: 1, 2, 5." in str(caught.value)
    assert "history.recency: seconds needs the events' times." in str(caught.value)
    with pytest.raises(ConfigError, match=r"history.kind: solar compares .* the table of item\."):
        build("solar", candidate=False)
