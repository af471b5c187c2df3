"""What the attention ops count: the pairs of their masks, two products each way.

As torch counts its own attention: a pair is counted whether or not causality hides it, a backward
pass is five products, the scores once more among them, and a multiply-add is two. Blocks at the
edge of a window compute up to a third more than is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

import rankloom.ops.attention.attend  # noqa: F401 (registers an operation)
import rankloom.ops.attention.read  # noqa: F401 (registers an operation)
from rankloom.ops.attention.mask import Mask

Shape = Sequence[int]


def _products(query: Shape, value: Shape, pairs: int) -> int:
    """Count scores and weighted sums."""
    return 2 * query[0] * query[1] * pairs * (query[3] + value[3])


def _products_back(query: Shape, value: Shape, pairs: int) -> int:
    """Count the scores again, and the gradients of weights, values, queries and keys."""
    return 2 * query[0] * query[1] * pairs * (3 * query[3] + 2 * value[3])


def _pairs(query: Shape, key: Shape, options: Sequence[Any]) -> int:
    causal, window, prefix, full_rows = options[:4]
    mask = Mask(causal=causal, window=window, prefix=prefix, full_rows=full_rows)
    return mask.num_pairs(query[2], key[2])


@register_flop_formula(torch.ops.rankloom.attend)
def attend_flops(query: Shape, key: Shape, value: Shape, *others: Any, **_: Any) -> int:
    """Count `attend`."""
    return _products(query, value, _pairs(query, key, others[4:]))


@register_flop_formula(torch.ops.rankloom.attend_backward)
def attend_backward_flops(
    _gradient: Shape, query: Shape, key: Shape, value: Shape, *others: Any, **_: Any
) -> int:
    """Count the backward pass of `attend`."""
    return _products_back(query, value, _pairs(query, key, others[6:]))


@register_flop_formula(torch.ops.rankloom.read)
def read_flops(
    query: Shape, key: Shape, value: Shape, _lengths: Any, own_key: Shape | None, *_: Any, **__: Any
) -> int:
    """Count `read`; a candidate's own event is one more."""
    return _products(query, value, query[2] * (key[2] + (own_key is not None)))


@register_flop_formula(torch.ops.rankloom.read_backward)
def read_backward_flops(
    _gradient: Shape,
    query: Shape,
    key: Shape,
    value: Shape,
    _out: Shape,
    _log_sum: Shape,
    _lengths: Any,
    own_key: Shape | None,
    *_: Any,
    **__: Any,
) -> int:
    """Count the backward pass of `read`."""
    return _products_back(query, value, query[2] * (key[2] + (own_key is not None)))
