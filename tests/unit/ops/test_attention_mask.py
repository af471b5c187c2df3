"""Descriptions: what they count, and which make no sense."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rankloom.errors import ConfigError
from rankloom.ops import Bias, Mask, Weighting, attend, read
from rankloom.ops.attention import time_buckets
from rankloom.ops.flops import flop_counter

SOFTMAX = Weighting(kind="softmax", scale=0.5)


@pytest.mark.parametrize(
    ("mask", "pairs"),
    [
        (Mask(), 100 * 100),
        (Mask(window=10), 100 * 10),
        (Mask(window=10, prefix=5), 100 * 15),
        (Mask(window=10, prefix=5, full_rows=2), 98 * 15 + 2 * 100),
        (Mask(window=100), 100 * 100),
        (Mask(window=10, full_rows=100), 100 * 100),
        (Mask(window=60, prefix=50), 100 * 100),
    ],
)
def test_pairs_follow_the_mask(mask: Mask, pairs: int) -> None:
    assert mask.num_pairs(100, 100) == pairs


def test_the_newest_rows_see_the_whole_history() -> None:
    assert Mask().num_pairs(8, 100) == 800


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, r"Mask.window: an event sees itself at least. Got 0"),
        ({"prefix": 3}, r"Mask.prefix: widens a window, and there is none. Got 3"),
        ({"full_rows": 3}, r"Mask.full_rows: widens a window"),
        ({"window": 4, "prefix": -1}, r"Mask.prefix: counts events. Got -1"),
        ({"window": 4, "causal": False}, r"Mask.causal: a window reaches back only"),
    ],
)
def test_a_mask_that_says_nothing_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Mask(**options)  # type: ignore[arg-type]


def test_all_mistakes_of_a_mask_are_named() -> None:
    with pytest.raises(ConfigError, match=r"2 mistakes:(.|\n)*prefix(.|\n)*full_rows"):
        Mask(prefix=1, full_rows=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "relu", "scale": 1.0}, "Weighting.kind: is unknown. Got 'relu'"),
        ({"kind": "silu", "scale": 1.0, "divisor": 0.0}, "Weighting.divisor: must be positive"),
        ({"kind": "silu", "scale": float("nan")}, "Weighting.scale: must be positive"),
        ({"kind": "softmax", "scale": 1.0, "divisor": 2.0}, "softmax weights sum to one"),
    ],
)
def test_a_weighting_of_bad_numbers_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Weighting(**options)  # type: ignore[arg-type]


def test_a_bias_needs_times_and_a_past() -> None:
    x, table = torch.ones(1, 1, 2, 4), torch.ones(1, 3)
    with pytest.raises(ConfigError, match=r"attend.bias: a table of times needs `seconds`"):
        attend(x, x, x, mask=Mask(), weighting=SOFTMAX, bias=Bias(times=table))
    with pytest.raises(ConfigError, match=r"read.bias: a table of times needs `seconds`"):
        read(x, x, x, weighting=SOFTMAX, bias=Bias(times=table))
    with pytest.raises(ConfigError, match=r"has no entry for events to come"):
        attend(x, x, x, mask=Mask(causal=False), weighting=SOFTMAX, bias=Bias(table))


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_time_buckets_double(dtype: torch.dtype) -> None:
    seconds = torch.tensor([-5, 0, 1, 2, 3, 6, 7, 86_400, 10**9], dtype=dtype)
    # Bucket c begins at 2^c - 1 seconds; 86,401 lies between 2^16 and 2^17.
    assert time_buckets(seconds, 20).tolist() == [0, 0, 1, 1, 2, 2, 3, 16, 19]


def count(mask: Mask, length: int, *, rows: int | None = None) -> tuple[int, int]:
    """Give the FLOPs of a forward and of a backward pass."""
    x = torch.ones(1, 2, length, 8, requires_grad=True)
    query = x if rows is None else x[:, :, -rows:]
    with flop_counter() as there:
        out = attend(query, x, x, mask=mask, weighting=SOFTMAX)
    with flop_counter() as back:
        out.sum().backward()
    return there.get_total_flops(), back.get_total_flops()


def test_flops_of_a_window_grow_with_the_length() -> None:
    mask = Mask(window=8, prefix=4, full_rows=2)
    short, middle, long = (count(mask, length) for length in (64, 128, 256))
    growth = [
        [b - a for a, b in zip(*pair, strict=True)] for pair in ((short, middle), (middle, long))
    ]
    # Twice the added length costs twice as much: a line.
    assert [2 * one for one in growth[0]] == growth[1]
    # A pair costs two products of width 8, and five on the way back; 14 pairs an event.
    assert growth[0] == [2 * 2 * 64 * 14 * 16, 2 * 2 * 64 * 14 * 40]


def test_flops_of_a_full_mask_are_those_of_torchs_attention() -> None:
    x = torch.ones(1, 2, 64, 8, requires_grad=True)
    with flop_counter() as counter:
        torch.nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True).sum().backward()
    assert sum(count(Mask(), 64)) == counter.get_total_flops()


def test_flops_of_the_newest_rows_are_those_of_their_pairs() -> None:
    assert count(Mask(), 64, rows=4)[0] * 16 == count(Mask(), 64)[0]


def test_flops_of_a_read_count_the_candidate_itself() -> None:
    key = torch.ones(1, 2, 10, 8)
    query: Tensor = torch.ones(1, 2, 3, 8, requires_grad=True)
    with flop_counter() as counter:
        read(query, key, key, weighting=SOFTMAX, own=(query, query)).sum().backward()
    assert counter.get_total_flops() == 2 * 2 * 3 * 11 * (16 + 40)
