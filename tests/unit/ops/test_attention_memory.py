"""No tensor of all pairs: every tensor that a pass makes is looked at."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.unit.ops.attention_cases import WEIGHTINGS
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rankloom.ops import Bias, Mask, Weighting
from rankloom.ops.attention.blocked import (
    Piece,
    backward,
    forward,
    history_pieces,
    reading_pieces,
)

LENGTH = 16_384


class Largest(TorchDispatchMode):
    """Remembers the most elements of any tensor that an operation allocated."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            made = [one.numel() for one in tree_leaves(result) if isinstance(one, Tensor)]
            self.elements = max([self.elements, *made])
        return result


def largest(
    pieces: list[Piece], weighting: Weighting, *, length: int, rows: int, bias: Bias | None = None
) -> int:
    """Run both passes; give the largest tensor's elements."""
    query, key = torch.ones(1, 2, rows, 4), torch.ones(1, 2, length, 4)
    bias, operands = bias or Bias(), (query, key, key)
    with Largest() as seen:
        out, log_sum = forward(*operands, pieces=pieces, bias=bias, weighting=weighting)
        backward(
            out,
            *operands,
            log_sum=log_sum,
            delta=(out * out).sum(dim=3),
            pieces=pieces,
            bias=bias,
            weighting=weighting,
        )
    return seen.elements


def of_history(mask: Mask, length: int, rows: int) -> list[Piece]:
    lengths = torch.tensor([length])
    seconds = torch.arange(length)[None]
    return history_pieces(mask, lengths=lengths, num_rows=rows, num_events=length, seconds=seconds)


@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda one: one.kind)
@pytest.mark.parametrize(
    ("mask", "rows"),
    [
        (Mask(window=64), LENGTH),
        (Mask(window=64, prefix=32, full_rows=8), LENGTH),
        (Mask(), 100),
        (Mask(window=64, prefix=32), 1000),
    ],
    ids=str,
)
def test_long_histories_hold_no_more_than_tiles(
    mask: Mask, rows: int, weighting: Weighting
) -> None:
    bias = Bias(torch.zeros(2, 128), torch.zeros(1, 16))
    seen = largest(of_history(mask, LENGTH, rows), weighting, length=LENGTH, rows=rows, bias=bias)
    # The operands are 2 heads of 4 numbers an event; a tile has at most 32 rows of full length.
    assert seen <= 64 * LENGTH
    assert seen < LENGTH * LENGTH / 200


def test_a_full_mask_holds_no_more_than_tiles() -> None:
    length = 4096
    pieces = of_history(Mask(), length, length)
    assert largest(pieces, WEIGHTINGS[1], length=length, rows=length) <= 64 * length


def test_reading_holds_no_more_than_tiles() -> None:
    pieces = reading_pieces(
        lengths=torch.tensor([LENGTH]), num_rows=500, num_events=LENGTH, seconds=None
    )
    seen = largest(pieces, WEIGHTINGS[0], length=LENGTH, rows=500)
    assert seen <= 64 * LENGTH < 500 * LENGTH
