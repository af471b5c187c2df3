"""SOLAR's second token: candidates that attend to the others of their request."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.unit.sequence.test_sequences import build, candidates, histories
from torch import Tensor

from rankloom.contract import Subject
from rankloom.data.batch import make_slots
from rankloom.layers.protocols import Inputs

READS = pytest.mark.parametrize("read", ["flat_in_length", "exact_at_low_rank"])
INDEX = [0, 0, 0, 1, 1]


def seen(encoder: Any, items: Tensor, index: list[int]) -> Tensor:
    """Give the tokens of candidates whose requests are `index`."""
    request_index = torch.tensor(index)
    slots, slot_of_row = make_slots(request_index, index[-1] + 1)
    events, mask = histories([5, 5])
    state = encoder.encode(events[request_index], mask[request_index], {})
    inputs = Inputs({}, {}, {}, request_index, slots, slot_of_row)
    tokens: Tensor = encoder.read(state, items, inputs)
    return tokens


def make(read: str) -> Any:
    return build("solar", dim=8, rank=2, read=read, candidates="set").eval()


@READS
def test_a_candidate_depends_on_those_of_its_request_alone(read: str) -> None:
    encoder, items = make(read), candidates(5)
    before = seen(encoder, items, INDEX)
    items[1] += 1.0
    after = seen(encoder, items, INDEX)
    assert torch.equal(after[3:], before[3:])
    # Of the others of its request, the history's token is the same, the set's is not.
    torch.testing.assert_close(after[[0, 2], 0], before[[0, 2], 0])
    assert not torch.isclose(after[[0, 2], 1], before[[0, 2], 1]).any(dim=1).any()


@READS
def test_permuting_a_request_permutes_its_tokens(read: str) -> None:
    encoder, items = make(read), candidates(5)
    order = torch.tensor([2, 0, 1, 3, 4])
    expected = seen(encoder, items, INDEX)[order]
    torch.testing.assert_close(seen(encoder, items[order], INDEX), expected)


@READS
def test_places_that_a_larger_request_leaves_empty_do_not_count(read: str) -> None:
    encoder, items = make(read), candidates(5)
    together = seen(encoder, items, INDEX)
    torch.testing.assert_close(seen(encoder, items[:3], [0, 0, 0]), together[:3])
    alone = seen(encoder, items[3:], [0, 0])
    torch.testing.assert_close(alone[:, 1], together[3:, 1])


@READS
def test_without_the_set_every_candidate_is_alone(read: str) -> None:
    encoder = build("solar", dim=8, rank=2, read=read).eval()
    assert (encoder.candidates, encoder.num_tokens) == ("independent", 1)
    items = candidates(5)
    together = seen(encoder, items, INDEX)
    alone = [seen(encoder, items[n : n + 1], [0]) for n in range(3)]
    torch.testing.assert_close(torch.cat(alone), together[:3])


def test_a_network_is_set_wise_if_a_part_is_and_finds_the_places_itself() -> None:
    values = {"dim": 16, "candidates": "set"}
    subject = Subject.in_slot("sequence", "solar", values)
    model, batch = subject.build().train(False), subject.batch()
    assert model.network.candidates == "set"
    assert Subject.of("solar").build().network.candidates == "independent"
    with torch.no_grad():
        inputs = model.embedder(batch).inputs
        expected = model.network(inputs).logits["click"]
        found = model.network(inputs._replace(slots=None, slot_of_row=None)).logits["click"]
    assert torch.equal(found, expected)
