from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.unit.sequence.test_sequences import candidates, histories
from torch import Tensor
from torch.nn.functional import smooth_l1_loss
from torch.testing import assert_close

from rankloom.contract import Subject
from rankloom.contract.planted import train
from rankloom.errors import ConfigError
from rankloom.hoist import Hoisted, hoist
from rankloom.layers.protocols import FeatureLayout, Inputs, SequenceLayout
from rankloom.losses import Loss
from rankloom.models import Model
from rankloom.models.example import example_batch
from rankloom.ops.flops import flop_counter
from rankloom.schema import Rate
from rankloom.sequence.lmn import LMN, LMNConfig, LMNState

LAYOUT = SequenceLayout(
    name="history",
    columns={"item": 4},
    rate=Rate.USER,
    candidate={"item": "item"},
    max_length=5,
    has_times=False,
    features={
        "user": FeatureLayout(width=3, rate=Rate.USER),
        "user@fm": FeatureLayout(width=2, rate=Rate.USER),
        "hour": FeatureLayout(width=2, rate=Rate.REQUEST),
        "item": FeatureLayout(width=4, rate=Rate.CANDIDATE),
    },
)


def make(**options: Any) -> LMN:
    values = {"num_slots": 100, "top_k": 3, "dim": 6, "key_dim": 3, "hidden_dim": 8, **options}
    encoder = LMN(LMNConfig(**values), LAYOUT, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        encoder.memory.table.weight *= 20  # values as large as trained ones
    return encoder.double()


def users(rows: int) -> Inputs:
    generator = torch.Generator().manual_seed(3)
    features = {
        name: torch.randn(rows, one.width, dtype=torch.float64, generator=generator)
        for name, one in LAYOUT.features.items()
    }
    return Inputs(features, {}, {}, torch.arange(rows))


def in_training(encoder: LMN, state: LMNState) -> tuple[Tensor, dict[str, Tensor]]:
    rows = len(state.mask)
    return encoder.read_in_training(state, candidates(rows), users(rows))


def by_event(encoder: LMN, state: LMNState, row: int, events: Tensor) -> Tensor:
    """Give what the memory gives a row's user for each of some (n, D) events."""
    mean, user = state.mean[row], users(len(state.mask)).features["user"][row]
    u = torch.cat([mean, user]).expand(len(events), -1)
    hidden = torch.relu(encoder.of_event(events) + encoder.of_user(u))
    read: Tensor = encoder.memory(encoder.to_query(hidden))
    return read


def test_the_tokens_are_a_read_for_the_candidate_and_the_history_pooled() -> None:
    encoder = make()
    events, mask = histories([5, 2, 0])
    state = encoder.encode(events, mask, {})
    tokens = encoder.read(state, candidates(3), users(3))
    assert tokens.shape == (3, encoder.num_tokens, encoder.out_dim)
    for row, mean in enumerate([events[0].mean(0), events[1, 3:].mean(0), torch.zeros(4)]):
        u = torch.cat([mean, users(3).features["user"][row]])
        expected = by_event(encoder, state, row, candidates(3)[row : row + 1])[0]
        assert_close(tokens[row], torch.stack([expected, encoder.pool(u)]))


def test_the_write_loss_compares_the_mean_read_of_events_with_the_history_pooled() -> None:
    encoder = make()
    events, mask = histories([5, 2])
    state = encoder.encode(events, mask, {})
    tokens, more = in_training(encoder, state)
    for row, first in enumerate((0, 3)):
        held = by_event(encoder, state, row, events[row, first:]).mean(dim=0)
        assert_close(more["write"][row], smooth_l1_loss(held, tokens[row, 1]))


def test_the_write_loss_leaves_what_it_writes_alone() -> None:
    encoder = make()
    state = encoder.encode(*histories([5, 2]), {})
    in_training(encoder, state)[1]["write"].sum().backward()
    assert encoder.pool.weight.grad is None
    for written in (encoder.memory.table.weight, encoder.memory.row_keys, encoder.of_event.weight):
        assert written.grad is not None


def test_training_and_scoring_read_alike() -> None:
    encoder = make()
    state = encoder.encode(*histories([5, 2, 0]), {})
    tokens, more = in_training(encoder, state)
    assert torch.equal(tokens, encoder.read(state, candidates(3), users(3)))
    assert more["memory"].shape == (3, 3)
    unwritten = make(write_weight=0.0)
    assert unwritten.auxiliary_weights == {}
    assert in_training(unwritten, state)[1].keys() == {"memory"}


def test_padding_is_invisible() -> None:
    encoder = make()
    events, mask = histories([5, 2, 0])
    tokens, more = in_training(encoder, encoder.encode(events, mask, {}))
    padded = torch.nn.functional.pad(events, (0, 0, 3, 0), value=1e3)
    longer = torch.nn.functional.pad(mask, (3, 0), value=False)
    found, other = in_training(encoder, encoder.encode(padded, longer, {}))
    assert_close(found, tokens)
    assert_close(other, more)


def test_padding_is_not_read() -> None:
    gradients = []
    for places in (0, 3):
        encoder = make()
        events, mask = histories([2])
        events = torch.nn.functional.pad(events, (0, 0, places, 0), value=1e3)
        mask = torch.nn.functional.pad(mask, (places, 0), value=False)
        in_training(encoder, encoder.encode(events, mask, {}))[1]["write"].sum().backward()
        assert encoder.memory.table.weight.grad is not None
        gradients.append(encoder.memory.table.weight.grad.coalesce())
    assert torch.equal(gradients[0].indices(), gradients[1].indices())
    assert_close(gradients[0].values(), gradients[1].values())


@pytest.mark.parametrize("length", [0, 1])
def test_short_histories_are_finite_forward_and_backward(length: int) -> None:
    encoder = make()
    tokens, more = in_training(encoder, encoder.encode(*histories([length, length]), {}))
    (tokens.sum() + more["write"].sum()).backward()
    assert tokens.isfinite().all()
    assert (more["write"] > 0).tolist() == [length > 0] * 2
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        gradient = parameter.grad.to_dense()
        assert gradient.isfinite().all(), name


def test_users_of_equal_histories_read_the_same_slots_if_queries_do_not_know_them() -> None:
    events, mask = histories([5])
    shared = []
    for user in ((), ("user",)):
        encoder = make(user=user)
        state = encoder.encode(events.expand(50, -1, -1), mask.expand(50, -1), {})
        same = candidates(1).expand(50, -1)
        slots = encoder.read_in_training(state, same, users(50))[1]["memory"]
        shared.append((slots == slots[:1]).float().mean().item())
    assert shared[0] == 1.0
    assert shared[1] < 0.8


def test_what_a_user_is_comes_from_user_and_context_only() -> None:
    assert make().user == ("user",)
    assert make(user=("hour", "user")).user_dim == 4 + 2 + 3
    with pytest.raises(ConfigError, match=r"num_slots: must be the square") as caught:
        make(num_slots=99, user=("item", "usr"))
    assert "'item' is no feature of user or context." in str(caught.value)
    assert "Did you mean 'user'?" in str(caught.value)


def test_scoring_costs_the_same_at_any_length() -> None:
    encoder = make()
    counted = []
    for length in (2, 200):
        state = encoder.encode(*histories([length], length=length), {})
        with flop_counter() as counter, torch.no_grad():
            encoder.read(state, candidates(1), users(1))
        counted.append(counter.get_total_flops())
    assert counted[0] == counted[1] > 0


def test_training_costs_one_search_more_for_each_event() -> None:
    encoder = make()
    counted = []
    for length in (10, 20, 40):
        state = encoder.encode(*histories([length], length=length), {})
        with flop_counter() as counter, torch.no_grad():
            in_training(encoder, state)
        counted.append(counter.get_total_flops())
    assert counted[2] - counted[1] == 2 * (counted[1] - counted[0])


@pytest.fixture(scope="module")
def divided() -> tuple[Model, Hoisted]:
    model = Subject.in_slot("sequence", "lmn").build().train(False)
    return model, hoist(model.network, model.embedder(example_batch(model)).inputs)


def operations(hoisted: Hoisted, rate: Rate) -> list[str]:
    nodes = hoisted.programs.by_rate[rate].module.graph.nodes
    return [str(node.target) for node in nodes if node.op == "call_function"]


def test_the_history_is_read_once_a_user_and_searched_by_candidates(
    divided: tuple[Model, Hoisted],
) -> None:
    of_user, of_candidate = (operations(divided[1], r) for r in (Rate.USER, Rate.CANDIDATE))
    assert not any("product_key" in one or "memory" in one for one in of_user)
    assert sum("product_key_search" in one for one in of_candidate) == 1
    assert sum("memory_read" in one for one in of_candidate) == 1
    # Keys are normalised once for all: the one norm that is left is that of queries.
    assert sum("layer_norm" in one for one in of_candidate) == 1


def test_a_user_is_kept_in_as_many_bytes_at_any_length(divided: tuple[Model, Hoisted]) -> None:
    sizes = [one.sizes for one in divided[1].state]
    assert sizes
    assert all(isinstance(size, int) for shape in sizes for size in shape[1:])


@torch.no_grad()
def write_loss(model: Model, subject: Subject) -> float:
    """Give the mean on histories that were not trained on."""
    model.train()
    batch = subject.batch(rows_of_request=(2,) * 64, seed=99)
    loss = Loss(subject.schema, auxiliary_weights=model.network.auxiliary_weights)
    found = loss(model.network(model.embedder(batch).inputs), batch)
    return float(found.auxiliary["history/write"])


def test_the_memory_learns_to_hold_histories() -> None:
    after = []
    for weight in (3.0, 1e-9):
        subject = Subject.in_slot("sequence", "lmn", {"write_weight": weight})
        model = subject.build()
        before = write_loss(model, subject)
        batches = (subject.batch(rows_of_request=(2,) * 64, seed=seed) for seed in range(60))
        train(model, batches, steps=60)
        after.append(write_loss(model, subject) / before)
    # The ranking makes the pooled histories larger: a memory that nothing writes falls behind.
    assert after[0] < 1 < after[1]
    assert after[0] < 0.2 * after[1]
