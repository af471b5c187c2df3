"""Attention over histories that stand one after the other, and the way to padding and back.

Shapes: V values of all histories, B histories, H heads, L of the longest, d width of queries and
keys, dv width of values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rankloom.ops.attention.attend import attend
from rankloom.ops.attention.bias import Bias
from rankloom.ops.attention.mask import Mask, Weighting
from rankloom.ops.segment import segment_index


def attend_jagged(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    *,
    max_length: int,
    mask: Mask,
    weighting: Weighting,
    bias: Bias | None = None,
) -> Tensor:
    """Compute `attend` for whole histories without padding between them.

    They are padded to the longest for the work itself, so histories of like lengths belong in one
    batch. Its shapes depend on data: within a network, which hoist captures, histories are padded.

    Args:
        query: (V, H, d). All histories' events, one history after the other.
        key: (V, H, d).
        value: (V, H, dv).
        offsets: (B + 1,) int64. History b owns `query[offsets[b]:offsets[b + 1]]`.
        max_length: L, at least the longest history.
        mask: What an event sees.
        weighting: Of scores.
        bias: Added to the scores; its `seconds` are (V,).

    Returns:
        (V, H, dv) in the dtype of `query`.
    """
    if bias is not None and bias.seconds is not None:
        bias = bias._replace(seconds=padded(bias.seconds, offsets, max_length))
    heads_first = [padded(x, offsets, max_length).transpose(1, 2) for x in (query, key, value)]
    out = attend(*heads_first, mask=mask, weighting=weighting, lengths=offsets.diff(), bias=bias)
    return unpadded(out.transpose(1, 2), offsets, len(query))


def padded(values: Tensor, offsets: Tensor, max_length: int) -> Tensor:
    """Give (B, L, ...): each history's values, then zeros.

    Args:
        values: (V, ...).
        offsets: (B + 1,) int64.
        max_length: L, at least the longest history.
    """
    places = _places(offsets, len(values), max_length)
    flat = values.new_zeros((len(offsets) - 1) * max_length, *values.shape[1:])
    x: Tensor = flat.index_copy(0, places, values).unflatten(0, (-1, max_length))
    return x


def unpadded(x: Tensor, offsets: Tensor, num_values: int) -> Tensor:
    """Undo `padded`.

    Args:
        x: (B, L, ...).
        offsets: (B + 1,) int64.
        num_values: V.
    """
    return x.flatten(0, 1).index_select(0, _places(offsets, num_values, x.shape[1]))


def _places(offsets: Tensor, num_values: int, max_length: int) -> Tensor:
    """Give the place (V,) of each value among the padded ones."""
    history = segment_index(offsets, num_values)
    within = torch.arange(num_values, device=offsets.device) - offsets[history]
    return history * max_length + within
