"""SOLAR divided by rate: a history is factorised once a user."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rankloom.contract import Subject
from rankloom.hoist import Hoisted, HoistedNetwork, hoist
from rankloom.hoist.verify import check_equal, in_fp64
from rankloom.layers.protocols import EventInputs, Inputs
from rankloom.models import Model
from rankloom.models.example import example_batch
from rankloom.ops.flops import flop_counter
from rankloom.schema import Rate

RANK, DIM, HEADS = 3, 16, 2


def build(read: str, **options: Any) -> Model:
    values = {"dim": DIM, "rank": RANK, "num_heads": HEADS, "read": read, **options}
    return Subject.in_slot("sequence", "solar", values).build().train(False)


def hoisted(model: Model) -> Hoisted:
    with torch.no_grad():
        return hoist(model.network, model.embedder(example_batch(model)).inputs)


@pytest.fixture(scope="module")
def flat() -> tuple[Model, Hoisted]:
    model = build("flat_in_length")
    return model, hoisted(model)


@pytest.fixture(scope="module")
def exact() -> tuple[Model, Hoisted]:
    model = build("exact_at_low_rank")
    return model, hoisted(model)


def count(divided: Hoisted, rate: Rate, name: str) -> int:
    nodes = divided.programs.by_rate[rate].module.graph.nodes
    return sum(name in str(node.target) for node in nodes)


def sizes_with_length(divided: Hoisted) -> list[tuple[int | str, ...]]:
    """Give what crosses with a history's length: the sizes that are free beside R."""
    found = [one.sizes for one in divided.state if one.rate == Rate.USER]
    return [sizes for sizes in found if any(isinstance(size, str) for size in sizes[1:])]


def with_length(model: Model, length: int, rows: int = 6) -> Inputs:
    """Give one request whose history has so many events."""
    with torch.no_grad():
        inputs = model.embedder(example_batch(model, rows_of_request=(rows,))).inputs
    events = torch.randn(1, length, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(length)[None] >= 1
    old = inputs.sequences["history"].times
    times = {k: v if v.dim() == 1 else torch.zeros(1, length) for k, v in old.items()}
    return inputs._replace(sequences={"history": EventInputs(events, mask, times)})


def test_a_history_is_factorised_once_a_user(flat, exact) -> None:
    for _, divided in (flat, exact):
        assert count(divided, Rate.USER, "low_rank") == 1
        assert count(divided, Rate.CANDIDATE, "low_rank") == 0


def test_what_is_kept_of_a_flat_history_does_not_grow_with_it(flat) -> None:
    _, divided = flat
    assert sizes_with_length(divided) == []
    # Keys and values of the interests.
    shape = (RANK, HEADS, DIM // HEADS)
    assert [one.sizes[1:] for one in divided.state].count(shape) == 2


def test_of_an_exact_history_its_columns_and_weights_are_kept(exact) -> None:
    _, divided = exact
    assert sorted(len(sizes) for sizes in sizes_with_length(divided)) == [4, 4]
    assert sum(sizes[-1] == RANK for sizes in sizes_with_length(divided)) == 1


def test_scoring_a_flat_history_costs_the_same_at_any_length(flat, exact) -> None:
    def flops(model: Model, divided: Hoisted, length: int) -> tuple[int, int]:
        inputs = with_length(model, length)
        with torch.no_grad(), flop_counter() as building:
            user = divided.user_state(inputs)
        state = {**user, **divided.request_state(inputs, user)}
        with torch.no_grad(), flop_counter() as scoring:
            divided.score(inputs, state)
        return building.get_total_flops(), scoring.get_total_flops()

    for (model, divided), grows in ((flat, 0), (exact, 1)):
        counts = [flops(model, divided, length) for length in (100, 200, 300)]
        building, scoring = zip(*counts, strict=True)
        assert building[2] - building[1] == building[1] - building[0] > 0
        # Six candidates of two heads each read three columns twice.
        step = grows * 100 * 2 * (6 * HEADS * RANK * 2)
        assert scoring[2] - scoring[1] == scoring[1] - scoring[0] == step


@pytest.mark.parametrize("length", [2, 40])
def test_the_programs_take_histories_of_any_length(flat, exact, length: int) -> None:
    for model, divided in (flat, exact):
        inputs = with_length(model, length)
        check_equal(model.network, divided, [inputs], tolerance=1e-5)


def gradients(network: Any, inputs: Inputs, model: Model) -> dict[str, Tensor]:
    model.network.zero_grad()
    sum(value.square().sum() for value in network(inputs).logits.values()).backward()
    return {n: p.grad.clone() for n, p in model.network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("read", "candidates"), [("flat_in_length", "independent"), ("exact_at_low_rank", "set")]
)
def test_training_hoisted_gives_the_same_gradients(read: str, candidates: str) -> None:
    model = build(read, candidates=candidates).train()
    with torch.no_grad():
        inputs = in_fp64(model.embedder(example_batch(model)).inputs)
    network = HoistedNetwork(model.network.double(), inputs)
    expected, found = (gradients(one, inputs, model) for one in (model.network, network))
    assert any("history_history" in name for name in expected)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        # Sums in another order.
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)
