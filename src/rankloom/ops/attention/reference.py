"""The definition that every path must equal: dense masks, small histories, tests only.

Shapes: B histories, H heads, M rows, L events, N candidates, d width of queries and keys, dv width
of values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rankloom.ops.attention.bias import Bias
from rankloom.ops.attention.mask import Mask, Weighting


def attend_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Mask,
    weighting: Weighting,
    lengths: Tensor | None = None,
    bias: Bias | None = None,
) -> Tensor:
    """Compute `attend` with a mask of (M, L) for each history."""
    num_rows, num_events = query.shape[2], key.shape[2]
    lengths = torch.full((len(key),), num_events) if lengths is None else lengths
    event_L = torch.arange(num_events)
    place_BM = (lengths - num_rows).clamp(min=0)[:, None] + torch.arange(num_rows)
    is_row_BM = place_BM < lengths[:, None]
    place_BM1, length_B11 = place_BM[:, :, None], lengths[:, None, None]
    distance_BML = place_BM1 - event_L
    sees_BML = event_L < length_B11
    if mask.causal:
        sees_BML = sees_BML & (distance_BML >= 0)
    if mask.window is not None:
        is_full_BM1 = place_BM1 >= length_B11 - mask.full_rows
        sees_BML = sees_BML & ((distance_BML < mask.window) | (event_L < mask.prefix) | is_full_BM1)
    sees_BML = sees_BML & is_row_BM[:, :, None]
    bias = bias or Bias()
    gap_BML = None
    if bias.seconds is not None:
        own_BM = bias.seconds.gather(1, place_BM.clamp(max=num_events - 1))
        gap_BML = own_BM[:, :, None] - bias.seconds[:, None]
    scores = weighting.scale * (query @ key.mT) + _bias(bias, distance_BML, gap_BML)
    return _weights(scores, sees_BML[:, None], weighting) @ value


def read_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    weighting: Weighting,
    lengths: Tensor | None = None,
    own: tuple[Tensor, Tensor] | None = None,
    bias: Bias | None = None,
) -> Tensor:
    """Compute `read` one candidate at a time: its own event is put behind the history."""
    num_events = key.shape[2]
    lengths = torch.full((len(key),), num_events) if lengths is None else lengths
    event_L = torch.arange(num_events)
    sees_BL = event_L < lengths[:, None]
    distance_BL = lengths[:, None] - event_L
    bias = bias or Bias()
    gap_BL = bias.seconds
    if own is not None:
        here = sees_BL.new_ones(len(key), 1)
        sees_BL = torch.cat((sees_BL, here), dim=1)
        distance_BL = torch.cat((distance_BL, torch.zeros_like(here, dtype=torch.int64)), dim=1)
        gap_BL = None if gap_BL is None else torch.cat((gap_BL, 0 * gap_BL[:, :1]), dim=1)
    outs = []
    for number in range(query.shape[2]):
        keys, values = key, value
        if own is not None:
            one = slice(number, number + 1)
            keys = torch.cat((key, own[0][:, :, one]), dim=2)
            values = torch.cat((value, own[1][:, :, one]), dim=2)
        added = _bias(bias, distance_BL[:, None], None if gap_BL is None else gap_BL[:, None])
        scores = weighting.scale * (query[:, :, number : number + 1] @ keys.mT) + added
        outs.append(_weights(scores, sees_BL[:, None, None], weighting) @ values)
    return torch.cat(outs, dim=2)


def _weights(scores: Tensor, sees: Tensor, weighting: Weighting) -> Tensor:
    if weighting.kind == "silu":
        return scores * torch.sigmoid(scores) / weighting.divisor * sees
    exponentials = (scores - scores.amax(dim=-1, keepdim=True)).exp() * sees
    total = exponentials.sum(dim=-1, keepdim=True)
    return exponentials / torch.where(total > 0, total, 1.0)


def _bias(bias: Bias, distance_BML: Tensor, gap_BML: Tensor | None) -> Tensor:
    added = torch.zeros(())
    if bias.positions is not None:
        index = distance_BML.clamp(0, bias.positions.shape[1] - 1)
        added = added + bias.positions[:, index].transpose(0, 1)
    if bias.times is not None:
        assert gap_BML is not None
        bucket = torch.log2(gap_BML.clamp(min=0).double() + 1).floor().long()
        index = bucket.clamp(max=bias.times.shape[1] - 1)
        added = added + bias.times[:, index].transpose(0, 1)
    return added
