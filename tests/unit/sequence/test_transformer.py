from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.unit.sequence.test_sequences import INPUTS, build, candidates, histories, read
from torch import Tensor

from rankloom.contract import Subject
from rankloom.errors import ConfigError
from rankloom.hoist import Hoisted, hoist
from rankloom.layers.protocols import EventInputs, SequenceLayout
from rankloom.models import Model
from rankloom.models.example import example_batch
from rankloom.schema import Rate
from rankloom.sequence.transformer import Transformer, TransformerConfig

LAYOUT = SequenceLayout(
    name="history",
    columns={"item": 4, "rating": 2},
    rate=Rate.USER,
    candidate={"item": "item"},
    max_length=5,
    has_times=False,
)


def encoded(encoder: Any, events: Tensor, mask: Tensor) -> Tensor:
    result: Tensor = encoder.encode(events, mask, {}).events
    return result


def test_an_event_does_not_see_those_after_it() -> None:
    encoder = build("transformer", dim=8)
    events, mask = histories([5])
    before = encoded(encoder, events, mask)
    events[:, 3] += 1.0
    after = encoded(encoder, events, mask)
    assert torch.equal(after[:, :3], before[:, :3])
    assert not torch.isclose(after[:, 3:], before[:, 3:]).any(dim=2).all()
    assert (after[:, 4] != before[:, 4]).any()


def test_encoded_events_come_first_and_padding_is_zero() -> None:
    encoder = build("transformer", dim=8)
    events, mask = histories([2, 0])
    state = encoder.encode(events, mask, {})
    alone = encoder.encode(events[:1, 3:], mask[:1, 3:], {})
    torch.testing.assert_close(state.events[:1, :2], alone.events)
    assert not state.events[0, 2:].any()
    assert not state.events[1].any()
    # One place may always be attended to, or a softmax would be over nothing.
    assert state.mask.tolist() == [[True, True, False, False, False], [True, *[False] * 4]]


def test_positions_are_counted_from_the_newest_event() -> None:
    encoder = build("transformer", dim=8, read="newest", max_positions=2)
    event = candidates(1)[:, None]
    equal, mask = event.expand(1, 4, 4), torch.ones(1, 4, dtype=torch.bool)
    before = encoded(encoder, equal, mask)
    with torch.no_grad():
        # Not all of it, which a norm would take away again.
        encoder.positions[0, :4] += 1.0
    after = encoded(encoder, equal, mask)
    # Only the newest has position 0; the three older ones share position 1.
    assert torch.equal(after[:, :3], before[:, :3])
    assert not torch.isclose(after[:, 3], before[:, 3]).all()
    assert torch.isclose(after[:, 0], after[:, 1]).all()


def test_the_newest_read_ignores_the_candidate_and_gives_the_last_event() -> None:
    encoder = build("transformer", dim=8, read="newest", candidate=False)
    events, mask = histories([5, 2, 3])
    state = encoder.encode(events, mask, {})
    tokens = encoder.read(state, None, INPUTS)
    for row, length in enumerate((5, 2, 3)):
        assert torch.equal(tokens[row, 0], state.events[row, length - 1])


def test_the_candidate_weighs_the_events() -> None:
    encoder = build("transformer", dim=8)
    events, mask = histories([5, 2, 1])
    first = read(encoder, events, mask, candidates(3))
    second = read(encoder, events, mask, candidates(3) + 1.0)
    assert not torch.isclose(first[:2], second[:2]).all()
    # Of one event there is nothing to weigh.
    assert torch.isclose(first[2], second[2]).all()


def test_dropout_acts_in_training_only() -> None:
    encoder = build("transformer", dim=8, dropout=0.5)
    events, mask = histories([5])
    torch.manual_seed(0)
    one, other = (encoded(encoder.train(), events, mask) for _ in range(2))
    assert not torch.equal(one, other)
    assert torch.equal(encoded(encoder.eval(), events, mask), encoded(encoder, events, mask))


def make(layout: SequenceLayout = LAYOUT, **options: Any) -> Transformer:
    generator = torch.Generator().manual_seed(0)
    return Transformer(TransformerConfig(**options), layout, generator=generator)


def test_a_candidate_without_a_column_can_be_read_by_newest_only() -> None:
    message = (
        r"model.sequence.history.read: target_attention compares .* the table of rating\. "
        r".* or use newest\."
    )
    with pytest.raises(ConfigError, match=message):
        make()
    assert make(read="newest").reads_candidate is False
    whole = replace(LAYOUT, candidate={"item": "item", "rating": "rating"})
    assert make(whole).reads_candidate is True


def test_all_problems_of_a_config_come_at_once() -> None:
    with pytest.raises(ConfigError, match=r"num_heads: must divide dim=10\. Got 4\.") as caught:
        make(dim=10, num_heads=4)
    assert "Nearest that work: 1, 2, 5." in str(caught.value)
    assert "history.read: target_attention" in str(caught.value)


def hoisted(read: str) -> tuple[Model, Hoisted]:
    values = {"dim": 8, "num_layers": 3, "read": read}
    model = Subject.in_slot("sequence", "transformer", values).build().train(False)
    return model, hoist(model.network, model.embedder(example_batch(model)).inputs)


@pytest.fixture(scope="module")
def by_attention() -> tuple[Model, Hoisted]:
    return hoisted("target_attention")


def attentions(divided: Hoisted, rate: Rate) -> int:
    nodes = divided.programs.by_rate[rate].module.graph.nodes
    return sum("scaled_dot_product_attention" in str(node.target) for node in nodes)


def state_of_events(divided: Hoisted) -> list[tuple[int | str, ...]]:
    """Give what crosses with a history's length: the sizes that are free beside R."""
    return [one.sizes for one in divided.state if any(isinstance(s, str) for s in one.sizes[1:])]


def test_a_history_is_encoded_once_a_user(by_attention: tuple[Model, Hoisted]) -> None:
    _, divided = by_attention
    assert attentions(divided, Rate.USER) == 3
    assert attentions(divided, Rate.CANDIDATE) == 1
    # The encoded events are keys and values in one; beside them there is their mask.
    assert [len(sizes) for sizes in state_of_events(divided)] == [4, 4]


def test_the_newest_event_is_all_that_is_kept() -> None:
    _, divided = hoisted("newest")
    assert attentions(divided, Rate.USER) == 3
    assert attentions(divided, Rate.CANDIDATE) == 0
    assert state_of_events(divided) == []


def test_no_candidate_repeats_the_history(by_attention: tuple[Model, Hoisted]) -> None:
    _, divided = by_attention
    programs = divided.programs
    for program in (programs.by_rate[Rate.CANDIDATE], programs.one_request):
        repeated = [
            node.args[0].meta["val"].shape
            for node in program.module.graph.nodes
            if "expand" in str(node.target)
        ]
        assert repeated
        assert all(isinstance(size, int) for shape in repeated for size in shape[1:])


@pytest.mark.parametrize("length", [2, 40])
def test_the_programs_take_histories_of_any_length(
    by_attention: tuple[Model, Hoisted], length: int
) -> None:
    model, divided = by_attention
    with torch.no_grad():
        inputs = model.embedder(example_batch(model, rows_of_request=(6,))).inputs
        events = torch.randn(1, length, 8, generator=torch.Generator().manual_seed(0))
        mask, times = torch.arange(length)[None] >= 1, inputs.sequences["history"].times
        times = {k: v if v.dim() == 1 else torch.zeros(1, length) for k, v in times.items()}
        inputs = inputs._replace(sequences={"history": EventInputs(events, mask, times)})
        plain, once = model.network(inputs), divided(inputs)
    for task, logits in plain.logits.items():
        torch.testing.assert_close(once.logits[task], logits, rtol=1e-5, atol=1e-6)
