from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from rankloom.ops import memory_read, product_key_search
from rankloom.ops.flops import flop_counter

Keys = tuple[Tensor, Tensor]


def keys(size: int, width: int, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Keys:
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.randn(2, size, width, generator=generator, dtype=dtype).unbind(0)
    return rows, columns


def queries(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def all_scores(query: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Give (B, S * S) scores of all slots."""
    of_row, of_column = query.chunk(2, dim=1)
    sums = (of_row @ rows.t())[:, :, None] + (of_column @ columns.t())[:, None, :]
    return sums.flatten(1)


@pytest.mark.parametrize(("size", "k"), [(1, 1), (4, 4), (9, 1), (50, 7), (60, 32)])
def test_a_search_finds_the_best_of_all_slots(size: int, k: int) -> None:
    query, (rows, columns) = queries(33, 6), keys(size, 3)
    scores, slots = product_key_search(query, rows, columns, k)
    expected, places = all_scores(query, rows, columns).sort(dim=1, descending=True)
    assert torch.equal(slots, places[:, :k])
    assert_close(scores, expected[:, :k], rtol=0, atol=1e-12)


@given(st.integers(2, 6), st.integers(1, 6), st.integers(0, 99))
def test_equal_slots_come_in_the_order_of_their_axes(size: int, k: int, seed: int) -> None:
    k = min(k, size)
    generator = torch.Generator().manual_seed(seed)
    # Small whole numbers: rows, columns and sums are equal often.
    rows, columns = torch.randint(3, (2, size, 1), generator=generator).float().unbind(0)
    _, slots = product_key_search(torch.ones(1, 2), rows, columns, k)
    by_row = sorted(range(size), key=lambda i: -float(rows[i]))
    by_column = sorted(range(size), key=lambda j: -float(columns[j]))
    pairs = [(i, j) for i in by_row for j in by_column]
    best = sorted(pairs, key=lambda pair: -float(rows[pair[0]] + columns[pair[1]]))
    assert slots.tolist() == [[i * size + j for i, j in best[:k]]]


def test_a_search_keeps_other_dimensions_and_treats_rows_apart() -> None:
    query, (rows, columns) = queries(2, 5, 6), keys(9, 3)
    scores, slots = product_key_search(query, rows, columns, 4)
    assert scores.shape == slots.shape == (2, 5, 4)
    changed = query.clone()
    changed[1, 2] += 1.0
    other, _ = product_key_search(changed, rows, columns, 4)
    assert (other != scores).any(dim=2).nonzero().tolist() == [[1, 2]]


def test_more_rows_than_a_piece_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    query, (rows, columns) = queries(40, 6), keys(9, 3)
    expected = product_key_search(query, rows, columns, 4)
    monkeypatch.setattr("rankloom.ops.rows.CHUNK_ELEMENTS", 9 * 7)
    found = product_key_search(query, rows, columns, 4)
    assert_close(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_gradients_of_a_search_are_those_of_the_chosen_products() -> None:
    query, (rows, columns) = queries(3, 4, 6).requires_grad_(), keys(7, 3)
    inputs = (query, rows.requires_grad_(), columns.requires_grad_())
    assert torch.autograd.gradcheck(lambda *given: product_key_search(*given, 3)[0], inputs)
    assert not product_key_search(*inputs, 3)[1].requires_grad


def test_autocast_does_not_reorder_slots() -> None:
    query, pair = queries(200, 16, dtype=torch.float32), keys(64, 8, dtype=torch.float32)
    expected = product_key_search(query, *pair, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = product_key_search(query, *pair, 8)
    assert found[0].dtype == torch.float32
    assert torch.equal(found[1], expected[1])


def read_plainly(slots: Tensor, weights: Tensor, table: Tensor) -> Tensor:
    return (table[slots] * weights[..., None]).sum(dim=-2)


def test_a_read_sums_rows_by_weight_and_so_do_its_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    slots = torch.randint(20, (3, 5, 4), generator=generator)
    found = []
    for read in (memory_read, read_plainly):
        table, weights = queries(20, 6).requires_grad_(), queries(3, 5, 4).requires_grad_()
        values = read(slots, weights, table)
        (values * queries(3, 5, 6)).sum().backward()
        assert table.grad is not None
        found.append((values.detach(), weights.grad, table.grad.to_dense()))
    assert_close(found[0], found[1])


def test_only_rows_that_were_read_have_a_gradient() -> None:
    table, weights = queries(100, 2).requires_grad_(), torch.ones(2, 3, dtype=torch.float64)
    slots = torch.tensor([[7, 3, 99], [3, 50, 7]])
    weights[1, 1] = 0.0  # slot 50 is read with weight zero: not at all
    memory_read(slots, weights, table).sum().backward()
    gradient = table.grad
    assert gradient is not None
    assert gradient.is_sparse
    assert gradient.coalesce().indices().tolist() == [[3, 7, 99]]
    assert gradient.coalesce().values().tolist() == [[2.0, 2.0], [2.0, 2.0], [1.0, 1.0]]


def test_reading_nothing_is_zero_and_changes_nothing() -> None:
    table = queries(9, 2).requires_grad_()
    values = memory_read(torch.zeros(4, 3, dtype=torch.int64), torch.zeros(4, 3).double(), table)
    values.sum().backward()
    assert not values.any()
    assert table.grad is not None
    assert table.grad._nnz() == 0


def test_a_search_costs_the_root_of_the_slots_and_a_read_nothing_more() -> None:
    counted = []
    for size in (10, 100):
        query, (rows, columns) = queries(5, 6), keys(size, 3)
        table = queries(size * size, 4)
        with flop_counter() as counter:
            scores, slots = product_key_search(query, rows, columns, 8)
        search = counter.get_total_flops()
        with flop_counter() as counter:
            memory_read(slots, scores, table)
        counted.append((search, counter.get_total_flops()))
    # Five queries against two lists of keys of width 3; eight rows of width 4.
    assert counted == [(5 * 2 * 2 * 10 * 3, 5 * 2 * 8 * 4), (5 * 2 * 2 * 100 * 3, 5 * 2 * 8 * 4)]


def test_a_read_never_holds_the_rows_side_by_side() -> None:
    slots = torch.randint(50, (4096, 32), generator=torch.Generator().manual_seed(0))
    weights, table = torch.ones(4096, 32), torch.ones(50, 64)
    with torch.profiler.profile(profile_memory=True) as profile:
        memory_read(slots, weights, table)
    allocated = max(event.cpu_memory_usage for event in profile.events())
    # The result takes 1 MiB, all rows side by side would take 32.
    assert allocated < 4 * 2**20


def test_ops_fit_what_torch_asks_of_them() -> None:
    query, (rows, columns) = queries(3, 4), keys(5, 2)
    ops = torch.ops.rankloom
    torch.library.opcheck(
        ops.product_key_search.default, (query.requires_grad_(), rows, columns, 2)
    )
    slots = torch.zeros(3, 2, dtype=torch.int64)
    weights = queries(3, 2).requires_grad_()
    torch.library.opcheck(ops.memory_read.default, (slots, weights, queries(25, 2)))
    gradient, tests = queries(3, 2), ("test_schema", "test_faketensor")
    args = (gradient, slots, weights.detach())
    torch.library.opcheck(ops.memory_table_backward.default, args, test_utils=tests)
