from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from rankloom.layers.memory import Found, MemoryTable, ProductKeyMemory, memory_problems


def make(**options: Any) -> ProductKeyMemory:
    sizes = {"num_slots": 64, "dim": 5, "key_dim": 3, "top_k": 4, **options}
    generator = torch.Generator().manual_seed(0)
    return ProductKeyMemory("memory", generator=generator, **sizes).double()


def queries(count: int, width: int = 6) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1)).double()


def best_scores(memory: ProductKeyMemory, query: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Give scores and numbers of the best of all slots, each compared with the query."""
    normal = torch.nn.functional.layer_norm(query, (6,))
    rows, columns = (
        (one - one.mean(1, keepdim=True)) / (one.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        for one in (memory.row_keys, memory.column_keys)
    )
    keys = torch.cat([rows[:, None].expand(-1, 8, -1), columns[None].expand(8, -1, -1)], dim=2)
    scores, slots = (normal @ keys.flatten(0, 1).t() / math.sqrt(3)).topk(k)
    return scores, slots


def test_softmax_weights_of_the_best_of_all_slots() -> None:
    memory = make(weights="softmax")
    scores, slots = best_scores(memory, queries(9), 4)
    found = memory.search(queries(9))
    assert torch.equal(found.slots, slots)
    assert_close(found.weights, scores.softmax(dim=1))
    assert_close(memory(queries(9)), (memory.table.weight[slots] * found.weights[..., None]).sum(1))


def test_fading_weights_are_those_above_the_best_slot_that_is_not_read() -> None:
    memory = make()
    scores, slots = best_scores(memory, queries(9), 5)
    found = memory.search(queries(9))
    above = scores[:, :4].exp() - scores[:, 4:].exp()
    assert torch.equal(found.slots, slots[:, :4])
    assert_close(found.weights, above / above.sum(1, keepdim=True))


@pytest.mark.parametrize(("weights", "does_jump"), [("softmax", True), ("fading", False)])
def test_what_is_read_moves_with_the_query(weights: str, does_jump: bool) -> None:
    memory = make(weights=weights)
    start, end = queries(2)
    steps = torch.linspace(0, 1, 20_001).double()[:, None]
    values = memory(start + steps * (end - start)).detach()
    largest = (values[1:] - values[:-1]).abs().max().item()
    # Values are about 0.02; a step is 5e-5 of the way.
    assert (largest > 1e-3) == does_jump


def test_equal_slots_are_not_a_number_of_nothing() -> None:
    memory = make()
    with torch.no_grad():
        for keys in (memory.row_keys, memory.column_keys):
            keys.copy_(keys[:1].clone().expand(8, -1))
    assert not memory(queries(3)).any()


def test_only_the_table_rows_that_are_read_have_a_gradient() -> None:
    memory = make()
    found = memory.search(queries(3))
    memory(queries(3)).sum().backward()
    gradient = memory.table.weight.grad
    assert gradient is not None
    # K rows a read.
    assert gradient.coalesce().indices()[0].tolist() == found.slots.unique().tolist()
    assert len(found.slots.unique()) <= 3 * 4


def test_every_key_may_win_because_keys_are_of_one_size() -> None:
    memory = make()
    query = queries(500)
    before = memory.search(query).slots
    with torch.no_grad():
        memory.row_keys[0] *= 100
    after = memory.search(query).slots
    # eps of the norm is all that the size of a key changes.
    assert (before == after).float().mean() > 0.99


def test_usage_counts_reads_since_it_was_asked_last() -> None:
    table = MemoryTable("memory", 16, 2, generator=torch.Generator())
    assert table.usage() == {}
    table.count(torch.tensor([[0, 1], [2, 3]]))
    assert table.usage() == pytest.approx({"used": 0.25, "entropy": 0.5})
    table.count(torch.tensor([[5]]))
    table.count(torch.tensor([[5]]))
    assert table.usage() == pytest.approx({"used": 1 / 16, "entropy": 0.0})
    table.count(torch.arange(16))
    assert table.usage() == pytest.approx({"used": 1.0, "entropy": 1.0})


def test_leading_dimensions_are_kept() -> None:
    memory = make()
    query = queries(6).unflatten(0, (2, 3))
    assert_close(memory(query), memory(query.flatten(0, 1)).unflatten(0, (2, 3)))


def test_several_reads_may_be_one_sum() -> None:
    memory = make()
    slots, weights = memory.search(queries(6).unflatten(0, (2, 3)))
    together = memory.table(Found(slots.flatten(1), weights.flatten(1) / 3))
    assert_close(together, memory(queries(6)).unflatten(0, (2, 3)).mean(dim=1))


def test_sizes_that_do_not_fit_are_told_at_once() -> None:
    assert memory_problems("at", num_slots=64, top_k=7) == []
    first, second = memory_problems("at", num_slots=66, top_k=8)
    assert first == (
        "at.num_slots: must be the square of a whole number. Got 66. Nearest that work: 64, 81."
    )
    assert second.startswith("at.top_k: must be below the root of num_slots=66. Got 8. Use 7")
