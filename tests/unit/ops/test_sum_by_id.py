from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rankloom.ops.segment import segment_sum, sum_by_id


@given(st.lists(st.tuples(st.integers(-3, 5), st.integers(-9, 9), st.integers(-9, 9))))
def test_sums_the_values_of_equal_ids(rows: list[tuple[int, int, int]]) -> None:
    expected: dict[int, list[int]] = {}
    for one, *values in rows:
        pair = expected.setdefault(one, [0, 0])
        pair[:] = [a + b for a, b in zip(pair, values, strict=True)]
    ids = torch.tensor([row[0] for row in rows], dtype=torch.int64)
    values = torch.tensor([row[1:] for row in rows], dtype=torch.float64).view(-1, 2)
    unique, sums = sum_by_id(ids, values)
    assert unique.tolist() == sorted(expected)
    assert sums.tolist() == [expected[one] for one in sorted(expected)]


def test_nothing_sums_to_nothing() -> None:
    unique, sums = sum_by_id(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3))
    assert unique.shape == (0,)
    assert sums.shape == (0, 3)


def test_adds_in_the_order_of_the_rows(generator: torch.Generator) -> None:
    # In fp32 the order of adding shows in the last bits; 1e8 swallows what is added after it.
    ids = torch.tensor([7, 1, 7, 7])
    values = torch.tensor([[1.0], [5.0], [1e8], [1.0]])
    _, sums = sum_by_id(ids, values)
    assert sums.tolist() == [[5.0], [1e8]]
    ids = torch.randint(50, (5000,), generator=generator)
    values = torch.randn(5000, 8, generator=generator)
    first = sum_by_id(ids, values)
    for _ in range(3):
        again = sum_by_id(ids, values)
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])


@given(st.lists(st.lists(st.integers(-9, 9), max_size=4), min_size=1, max_size=5))
def test_sums_segments_the_empty_ones_to_zero(segments: list[list[int]]) -> None:
    values = torch.tensor([x for one in segments for x in one], dtype=torch.float64).view(-1, 1)
    lengths = torch.tensor([0, *map(len, segments)])
    sums = segment_sum(values, lengths.cumsum(0))
    assert sums.flatten().tolist() == [sum(one) for one in segments]


def test_the_gradient_of_a_segment_sum_goes_to_each_value() -> None:
    values = torch.zeros(3, 1, requires_grad=True)
    sums = segment_sum(values, torch.tensor([0, 2, 2, 3]))
    (sums * torch.tensor([[2.0], [5.0], [7.0]])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[2.0], [2.0], [7.0]]
