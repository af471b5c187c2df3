"""Attention tile by tile, forward and backward, in plain tensor operations on any device.

What a row sees is a union of disjoint parts (`parts.py`). Softmax over the union is put together
from each part's result and the logarithm of its sum of exponentials; the backward pass makes each
tile's weights again from the logarithm of the whole sum, so nothing larger than a tile is kept.
Everything is computed in at least fp32.

Shapes: B histories, H heads, M rows, L events, d width of queries and keys, dv width of values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rankloom.ops.attention.bias import (
    Bias,
    add_gradient,
    add_looked_up,
    distance_buckets,
    time_buckets,
)
from rankloom.ops.attention.mask import Mask, Weighting
from rankloom.ops.attention.parts import Band, Dense, Part, Tile


class Seconds(NamedTuple):
    """Times whose difference is a pair's."""

    rows: Tensor
    """(B, M)."""
    events: Tensor
    """(B, L)."""


@dataclass(frozen=True)
class Piece:
    """A part of what is seen, and whose it is."""

    part: Part
    index: Tensor | None
    """(B, F). The rows that it is about; None: all."""
    seconds: Seconds | None
    """Of these rows, and of all events."""


class Gradients(NamedTuple):
    """Of the operands, in the dtype of computing."""

    query: Tensor
    key: Tensor
    value: Tensor
    positions: Tensor | None
    times: Tensor | None


def history_pieces(
    mask: Mask, *, lengths: Tensor, num_rows: int, num_events: int, seconds: Tensor | None
) -> list[Piece]:
    """Divide what the newest rows of histories see.

    Args:
        mask: What an event sees.
        lengths: (B,) int64.
        num_rows: M: row t is the t-th of a history's last M events.
        num_events: L.
        seconds: (B, L).
    """
    count = len(lengths)
    starts = (lengths - num_rows).clamp(min=0)
    if num_rows >= num_events:
        starts = starts.new_zeros(1)
    positions = starts[:, None] + torch.arange(num_rows, device=lengths.device)
    times = None
    if seconds is not None:
        index = positions.clamp(max=num_events - 1).expand(count, -1)
        times = Seconds(seconds.gather(1, index), seconds)
    mask = mask.within(num_rows, num_events)

    def dense(places: Tensor, limits: Tensor, first: int, stop: int) -> Dense:
        return Dense(positions=places, limits=limits, first=first, stop=stop, num_histories=count)

    if mask.window is None:
        limits = positions if mask.causal else (lengths - 1)[:, None].expand(-1, num_rows)
        return [Piece(dense(positions, limits, 0, num_events), None, times)]
    band = Band(
        starts=starts,
        window=mask.window,
        num_rows=num_rows,
        num_events=num_events,
        num_histories=count,
    )
    pieces = [Piece(band, None, times)]
    before = positions - mask.window
    if mask.prefix:
        oldest = dense(positions, before, 0, min(mask.prefix, num_events))
        pieces.append(Piece(oldest, None, times))
    if mask.full_rows:
        kept = lengths.clamp(max=num_rows)
        index = (kept - mask.full_rows).clamp(min=0)[:, None]
        index = index + torch.arange(mask.full_rows, device=lengths.device)
        places = positions.expand(count, -1).gather(1, index)
        rest = dense(places, places - mask.window, mask.prefix, num_events)
        if times is not None:
            times = Seconds(times.rows.gather(1, index), times.events)
        pieces.append(Piece(rest, index, times))
    return pieces


def reading_pieces(
    *, lengths: Tensor, num_rows: int, num_events: int, seconds: Tensor | None
) -> list[Piece]:
    """Give what rows that stand behind a history see: all of it."""
    limits = (lengths - 1)[:, None].expand(-1, num_rows)
    dense = Dense(
        positions=limits + 1,
        limits=limits,
        first=0,
        stop=num_events,
        num_histories=len(lengths),
    )
    times = None
    if seconds is not None:
        times = Seconds(seconds.new_zeros(len(seconds), num_rows), -seconds)
    return [Piece(dense, None, times)]


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    pieces: list[Piece],
    bias: Bias,
    weighting: Weighting,
) -> tuple[Tensor, Tensor]:
    """Weigh the events that each row sees.

    Args:
        query: (B, H, M, d).
        key: (B, H, L, d).
        value: (B, H, L, dv).
        pieces: What rows see.
        bias: Tables; times stand in the pieces.
        weighting: Of scores.

    Returns:
        out: (B, H, M, dv), in at least fp32. Zero for a row that sees nothing.
        log_sum: (B, H, M). Logarithm of the sum of exponentials, -inf for a row that sees nothing;
            of size 0 for SiLU.
    """
    query, key, value, bias = _prepared(query, key, value, bias, weighting)
    is_softmax = weighting.kind == "softmax"
    out = value.new_zeros((*query.shape[:3], value.shape[3]))
    log_sum = query.new_full(query.shape[:3], -torch.inf) if is_softmax else query.new_empty(0)
    for piece in pieces:
        index = piece.index
        own_query = query if index is None else take_rows(query, index)
        own, own_log_sum = _forward_piece(own_query, key, value, piece, bias, weighting)
        if not is_softmax:
            out = out.add_(own) if index is None else add_rows(out, index, own)
        elif index is None:
            out, log_sum = merge(out, log_sum, own, own_log_sum)
        else:
            before = take_rows(out, index), take_rows(log_sum[..., None], index)[..., 0]
            merged, merged_log_sum = merge(*before, own, own_log_sum)
            put_rows(out, index, merged)
            put_rows(log_sum[..., None], index, merged_log_sum[..., None])
    return out, log_sum


def merge(
    out: Tensor, log_sum: Tensor, other: Tensor, other_log_sum: Tensor
) -> tuple[Tensor, Tensor]:
    """Put softmax over two disjoint sets together.

    Args:
        out: (..., dv). The values weighted over one set.
        log_sum: (...). The logarithm of its sum of exponentials.
        other: (..., dv). Over the other set.
        other_log_sum: (...).
    """
    total = torch.logaddexp(log_sum, other_log_sum)
    finite = total.masked_fill(total == -torch.inf, 0.0)
    share = (log_sum - finite).exp_()[..., None]
    other_share = (other_log_sum - finite).exp_()[..., None]
    return (out * share).addcmul_(other, other_share), total


def backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    log_sum: Tensor,
    delta: Tensor,
    pieces: list[Piece],
    bias: Bias,
    weighting: Weighting,
) -> Gradients:
    """Differentiate `forward`.

    Args:
        gradient: (B, H, M, dv). Of `out`; zero for rows that see nothing.
        query: (B, H, M, d).
        key: (B, H, L, d).
        value: (B, H, L, dv).
        log_sum: (B, H, M). Of the whole softmax; +inf for rows that see nothing. Unused for SiLU.
        delta: (B, H, M). Sum of gradient * out. Unused for SiLU.
        pieces: What rows see.
        bias: Tables.
        weighting: Of scores.
    """
    query, key, value, bias = _prepared(query, key, value, bias, weighting)
    gradient = gradient.to(query.dtype)
    given = Gradients(
        torch.zeros_like(query),
        torch.zeros_like(key),
        torch.zeros_like(value),
        None if bias.positions is None else torch.zeros_like(bias.positions),
        None if bias.times is None else torch.zeros_like(bias.times),
    )
    row_values = [gradient, query]
    if weighting.kind == "softmax":
        row_values += [log_sum[..., None], delta[..., None]]
    for piece in pieces:
        index = piece.index
        own = [one if index is None else take_rows(one, index) for one in row_values]
        grad_query = _backward_piece(own, key, value, piece, bias, weighting, given)
        if index is None:
            given.query.add_(grad_query)
        else:
            add_rows(given.query, index, grad_query)
    given.query.mul_(weighting.scale)
    given.value.div_(weighting.divisor)
    return given


def take_rows(x: Tensor, index: Tensor) -> Tensor:
    """Give the rows (B, H, F, d) of (B, H, M, d) that (B, F) names."""
    return x.gather(2, _like(index, x))


def put_rows(x: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """Replace rows, in place."""
    return x.scatter_(2, _like(index, x), rows)


def add_rows(x: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """Add to rows, in place."""
    return x.scatter_add_(2, _like(index, x), rows)


def _like(index: Tensor, x: Tensor) -> Tensor:
    return index[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])


def _prepared(
    query: Tensor, key: Tensor, value: Tensor, bias: Bias, weighting: Weighting
) -> tuple[Tensor, Tensor, Tensor, Bias]:
    """Bring operands into the dtype of computing, with constant factors taken in once a row."""
    wide = torch.promote_types(query.dtype, torch.float32)
    tables = [None if one is None else one.to(wide) for one in bias[:2]]
    query = query.to(wide).mul(weighting.scale).contiguous()
    key = key.to(wide).contiguous()
    value = value.to(wide).div(weighting.divisor).contiguous()
    return query, key, value, Bias(*tables)


def _forward_piece(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    piece: Piece,
    bias: Bias,
    weighting: Weighting,
) -> tuple[Tensor, Tensor]:
    part = piece.part
    rows, keys, values = part.rows(query), part.events(key), part.events(value)
    out = rows.new_zeros((*rows.shape[:4], value.shape[3]))
    log_sum = rows.new_full((*rows.shape[:4], 1), -torch.inf)
    scorer = _Scorer(piece, bias)
    for tile in part.tiles(query.shape[1]):
        scores, _ = scorer(tile.of_rows(rows), part.take(keys, tile), tile)
        visible = tile.visible(scores.dtype)
        if weighting.kind == "silu":
            weights = F.silu(scores, inplace=True).mul_(visible)
            tile.of_rows(out).copy_(weights @ part.take(values, tile))
            continue
        scores.add_(visible.log_())
        peak = scores.amax(dim=-1, keepdim=True)
        peak.masked_fill_(peak == -torch.inf, 0.0)
        weights = scores.sub_(peak).exp_()
        total = weights.sum(dim=-1, keepdim=True)
        tile.of_rows(log_sum).copy_(total.log().add_(peak))
        # A row that sees nothing here has weights of zero.
        total.masked_fill_(total == 0, 1.0)
        tile.of_rows(out).copy_((weights @ part.take(values, tile)).div_(total))
    return part.from_rows(out), part.from_rows(log_sum)[..., 0]


def _backward_piece(
    row_values: list[Tensor],
    key: Tensor,
    value: Tensor,
    piece: Piece,
    bias: Bias,
    weighting: Weighting,
    given: Gradients,
) -> Tensor:
    """Add to the gradients of events and tables; give that of the piece's rows."""
    part = piece.part
    gradients, rows, *statistics = [part.rows(one) for one in row_values]
    keys, values = part.events(key), part.events(value)
    grad_rows, grad_keys = torch.zeros_like(rows), torch.zeros_like(keys)
    grad_values = torch.zeros_like(values)
    scorer = _Scorer(piece, bias)
    for tile in part.tiles(key.shape[1]):
        own_rows, own_keys = tile.of_rows(rows), part.take(keys, tile)
        own_gradients = tile.of_rows(gradients)
        scores, indices = scorer(own_rows, own_keys, tile)
        grad_weights = own_gradients @ part.take(values, tile).mT
        visible = tile.visible(scores.dtype)
        if weighting.kind == "silu":
            weights = F.silu(scores).mul_(visible)
            grad_scores = torch.ops.aten.silu_backward(grad_weights.mul_(visible), scores)
        else:
            log_sum, delta = (tile.of_rows(one) for one in statistics)
            weights = scores.sub_(log_sum).add_(visible.log_()).exp_()
            grad_scores = grad_weights.sub_(delta).mul_(weights)
        part.give(grad_values, tile, weights.mT @ own_gradients)
        part.give(grad_keys, tile, grad_scores.mT @ own_rows)
        tile.of_rows(grad_rows).copy_(grad_scores @ own_keys)
        for table, place in zip((given.positions, given.times), indices, strict=True):
            if table is not None and place is not None:
                add_gradient(table, grad_scores, place)
    part.add_events(grad_keys, given.key)
    part.add_events(grad_values, given.value)
    return part.from_rows(grad_rows)


class _Scorer:
    """Computes the scores of tiles, biases included."""

    def __init__(self, piece: Piece, bias: Bias) -> None:
        part, seconds = piece.part, piece.seconds
        self.part, self.bias = part, bias
        self.rows, self.events = None, None
        if seconds is not None and bias.times is not None:
            self.rows = part.rows(seconds.rows[:, None, :, None])
            self.events = part.events(seconds.events[:, None, :, None])

    def __call__(
        self, query: Tensor, key: Tensor, tile: Tile
    ) -> tuple[Tensor, tuple[Tensor | None, Tensor | None]]:
        """Give (b, H, g, m, n) scores, and which entry of each table was added to each."""
        scores = query @ key.mT
        positions, times = None, None
        if self.bias.positions is not None:
            table = self.bias.positions
            positions = distance_buckets(self.part.distances(tile), table.shape[1])
            add_looked_up(scores, table, positions)
        if self.rows is not None and self.events is not None and self.bias.times is not None:
            rows, events = tile.of_rows(self.rows), self.part.take(self.events, tile)
            times = time_buckets((rows - events.mT)[:, 0], self.bias.times.shape[1])
            add_looked_up(scores, self.bias.times, times)
        return scores, (positions, times)
