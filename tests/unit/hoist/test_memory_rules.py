from __future__ import annotations

import pytest
import torch
from tests.unit.hoist.tiny import Tiny, flops, hoisted_equals_plain
from torch import Tensor

from rankloom.errors import HoistError
from rankloom.hoist import hoist
from rankloom.ops import memory_read, product_key_search
from rankloom.schema import Rate

WEIGHTS = {"rows": (10, 3), "columns": (10, 3), "table": (100, 4)}


def look_up(query: Tensor, w: dict[str, Tensor]) -> Tensor:
    scores, slots = product_key_search(query, w["rows"], w["columns"], 2)
    return memory_read(slots, scores.softmax(dim=-1), w["table"])


def test_a_memory_is_searched_and_read_at_the_rate_of_the_query() -> None:
    def body(u: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
        return (look_up(u, w) * look_up(c, w)).sum(dim=1)

    network = Tiny(body, {"u": (6,), "c": (6,)}, WEIGHTS)
    counted = flops(hoisted_equals_plain(network), network, num_candidates=50)
    # Two lists of ten keys of width 3, then two rows of width 4.
    assert counted[Rate.USER] == 2 * (2 * 10 * 3 + 2 * 4)
    assert counted[Rate.CANDIDATE] == 50 * counted[Rate.USER]


def test_queries_side_by_side_are_searched_each_at_its_rate() -> None:
    def body(u: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
        return look_up(torch.cat([u, c], dim=1), w).flatten(1)

    network = Tiny(body, {"u": (3, 6), "c": (1, 6)}, WEIGHTS)
    counted = flops(hoisted_equals_plain(network), network, num_candidates=50)
    assert counted[Rate.USER] >= 3 * 2 * 2 * 10 * 3
    assert counted[Rate.CANDIDATE] < 2 * 50 * 2 * (2 * 10 * 3 + 2 * 4)


def test_several_reads_of_a_user_may_be_one_sum() -> None:
    def body(u: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
        scores, slots = product_key_search(u, w["rows"], w["columns"], 2)
        return memory_read(slots.flatten(1), scores.flatten(1), w["table"]) + c

    network = Tiny(body, {"u": (5, 6), "c": (4,)}, WEIGHTS)
    counted = flops(hoisted_equals_plain(network), network, num_candidates=50)
    assert counted[Rate.CANDIDATE] == 0


@pytest.mark.parametrize("held", ["rows", "columns", "table"])
def test_a_memory_made_of_inputs_is_refused(held: str) -> None:
    def body(u: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
        return look_up(c, {**w, held: u})

    network = Tiny(body, {"u": (3,), "c": (6,)}, WEIGHTS).eval()
    with pytest.raises(HoistError, match="looks up in a memory that is no constant"):
        hoist(network, network.inputs())
