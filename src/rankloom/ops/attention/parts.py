"""The pairs of a mask as disjoint parts, each cut into tiles of rows and the events they see.

- `Dense`: rows against one run of events, up to each row's limit;
- `Band`: blocks of rows against the events of their windows, many blocks at once.

A part keeps rows and events in buffers of its own shape; a tile says where in them it stands.

Shapes: B histories, H heads, M rows, L events, G blocks of m rows, W events of a block's windows,
n events of a tile; b, g: those of a tile. Tensors of one number a row have width 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

TILE_ELEMENTS = 1 << 18
"""Scores of a tile: they stay in the cache of one core."""
DENSE_ROWS = (32, 64)
"""Rows of a dense tile, least and most."""
BAND_ROWS = (16, 64)
"""Rows of a block of a band. A block of m rows reads K1 + m events; a small one is a slow
product."""


@dataclass(frozen=True)
class Tile:
    """Some rows and the events they are compared with."""

    batch: slice
    groups: slice
    rows: slice
    events: slice
    """Of the part's buffer of events."""
    hidden: Tensor
    """(b or 1, 1, g or 1, m, n) bool. True where the row does not see the event."""

    def visible(self, dtype: torch.dtype) -> Tensor:
        """Give 1 where the row sees the event, else 0.

        A product with it, or a sum with its logarithm, costs a tenth of what filling by a mask of
        bools does on a CPU.
        """
        return (~self.hidden).to(dtype)

    def of_rows(self, buffer: Tensor) -> Tensor:
        """View the tile's rows (b, H, g, m, ...) of a buffer (B, H, G, m, ...)."""
        return of_batch(buffer, self.batch)[:, :, self.groups, self.rows]


class Part(Protocol):
    """Pairs of rows and events that are computed together."""

    def rows(self, x: Tensor) -> Tensor:
        """Put (B, H, M, d) rows into a buffer (B, H, G, m, d)."""

    def from_rows(self, buffer: Tensor) -> Tensor:
        """Undo `rows`."""

    def events(self, x: Tensor) -> Tensor:
        """Put (B, H, L, d) events into a buffer."""

    def add_events(self, buffer: Tensor, x: Tensor) -> None:
        """Add what a buffer of events holds to (B, H, L, d)."""

    def take(self, buffer: Tensor, tile: Tile) -> Tensor:
        """Give the tile's events (b, H, g, n, d)."""

    def give(self, buffer: Tensor, tile: Tile, x: Tensor) -> None:
        """Add (b, H, g, n, d) to the tile's events."""

    def distances(self, tile: Tile) -> Tensor:
        """Give p - j, (b or 1, g or 1, m, n)."""

    def tiles(self, num_heads: int) -> Iterator[Tile]:
        """Cut the part into tiles; each row stands in one."""


def of_batch(x: Tensor, batch: slice) -> Tensor:
    """Take some histories' values, or the one that all share."""
    return x if len(x) == 1 else x[batch]


class Dense:
    """Rows against a run of events.

    Args:
        positions: (B or 1, M) int64. Place of each row among the events.
        limits: (B or 1, M) int64. The newest event that each row sees.
        first: The oldest event that any row sees.
        stop: The end of those that any sees.
        num_histories: B.
    """

    def __init__(
        self, *, positions: Tensor, limits: Tensor, first: int, stop: int, num_histories: int
    ) -> None:
        self.positions, self.limits = positions, limits
        self.first, self.stop, self.num_histories = first, stop, num_histories

    def rows(self, x: Tensor) -> Tensor:
        """View (B, H, M, d) as one block."""
        return x[:, :, None]

    def from_rows(self, buffer: Tensor) -> Tensor:
        """Undo `rows`."""
        return buffer[:, :, 0]

    def events(self, x: Tensor) -> Tensor:
        """View (B, H, L, d) as one block."""
        return x[:, :, None]

    def add_events(self, buffer: Tensor, x: Tensor) -> None:
        """Add what a buffer of events holds."""
        x += buffer[:, :, 0]

    def take(self, buffer: Tensor, tile: Tile) -> Tensor:
        """Give the tile's events."""
        return of_batch(buffer, tile.batch)[:, :, :, tile.events]

    def give(self, buffer: Tensor, tile: Tile, x: Tensor) -> None:
        """Add to the tile's events."""
        buffer[tile.batch, :, :, tile.events] += x

    def distances(self, tile: Tile) -> Tensor:
        """Give p - j."""
        position = of_batch(self.positions, tile.batch)[:, None, tile.rows, None]
        return position - _arange(tile.events.start, tile.events.stop, position)

    def tiles(self, num_heads: int) -> Iterator[Tile]:
        """Cut rows into blocks that fit, each against the events up to its furthest limit."""
        least, most = DENSE_ROWS
        width = max(1, self.stop - self.first)
        step = min(max(TILE_ELEMENTS // (num_heads * width), least), most)
        num_rows = self.positions.shape[1]
        for start in range(0, num_rows, step):
            rows = slice(start, min(start + step, num_rows))
            limits = self.limits[:, rows]
            stop = min(self.stop, int(limits.max()) + 1) if limits.numel() else 0
            if stop <= self.first:
                continue
            events = slice(self.first, stop)
            cost = num_heads * (rows.stop - start) * (stop - self.first)
            for batch in _slices(self.num_histories, max(1, TILE_ELEMENTS // cost)):
                limit = of_batch(limits, batch)[:, None, None, :, None]
                hidden = _arange(events.start, events.stop, limit) > limit
                yield Tile(batch, slice(0, 1), rows, events, hidden)


class Band:
    """Rows against the `window` events up to themselves.

    Args:
        starts: (B or 1,) int64. Place of each history's first row among its events; 0 where all
            events are rows.
        window: K1.
        num_rows: M.
        num_events: L.
        num_histories: B.
    """

    def __init__(
        self, *, starts: Tensor, window: int, num_rows: int, num_events: int, num_histories: int
    ) -> None:
        least, most = BAND_ROWS
        self.block = min(max(window // 4, least), most)
        self.before = -(-(window - 1) // self.block)
        """Blocks before its own that a block sees."""
        self.width = (self.before + 1) * self.block
        self.num_blocks = -(-num_rows // self.block)
        self.num_rows, self.num_events, self.num_histories = num_rows, num_events, num_histories
        self.is_aligned = num_rows >= num_events
        """Whether row t is event t."""
        place = _arange(0, (self.num_blocks + self.before) * self.block, starts)
        self.places = starts[:, None] - self.before * self.block + place
        """(B or 1, (G + before) * m). Which event stands where in the buffer; negative: none."""
        row = _arange(0, self.block, starts)[:, None] + self.before * self.block
        self.distance = row - _arange(0, self.width, starts)
        """(m, W). It is the same in every block."""
        self.outside = (self.distance < 0) | (self.distance >= window)

    def rows(self, x: Tensor) -> Tensor:
        """Cut (B, H, M, d) into blocks; zeros fill the last."""
        padding = self.num_blocks * self.block - self.num_rows
        blocks: Tensor = F.pad(x, (0, 0, 0, padding)).unflatten(2, (self.num_blocks, self.block))
        return blocks

    def from_rows(self, buffer: Tensor) -> Tensor:
        """Undo `rows`."""
        return buffer.flatten(2, 3)[:, :, : self.num_rows]

    def events(self, x: Tensor) -> Tensor:
        """Put events where the blocks find theirs side by side."""
        if self.is_aligned:
            front = self.before * self.block
            behind = self.places.shape[1] - front - self.num_events
            return F.pad(x, (0, 0, front, behind))
        return x.gather(2, self._index(x))

    def add_events(self, buffer: Tensor, x: Tensor) -> None:
        """Add what a buffer of events holds."""
        if self.is_aligned:
            front = self.before * self.block
            x += buffer[:, :, front : front + self.num_events]
        else:
            x.scatter_add_(2, self._index(x), buffer)

    def _index(self, x: Tensor) -> Tensor:
        place = self.places.clamp(0, self.num_events - 1)[:, None, :, None]
        return place.expand(len(x), x.shape[1], -1, x.shape[3])

    def take(self, buffer: Tensor, tile: Tile) -> Tensor:
        """Give each block's events: those of neighbouring blocks overlap."""
        run = of_batch(buffer, tile.batch)[:, :, tile.events]
        return run.unfold(2, self.width, self.block).mT.contiguous()

    def give(self, buffer: Tensor, tile: Tile, x: Tensor) -> None:
        """Add to each block's events."""
        run = buffer[tile.batch, :, tile.events].unflatten(2, (-1, self.block))
        count = x.shape[2]
        for number, piece in enumerate(x.split(self.block, dim=3)):
            run[:, :, number : number + count] += piece

    def distances(self, tile: Tile) -> Tensor:
        """Give p - j."""
        del tile
        return self.distance[None, None]

    def tiles(self, num_heads: int) -> Iterator[Tile]:
        """Take as many blocks as fit."""
        fitting = max(1, TILE_ELEMENTS // (num_heads * self.block * self.width))
        for groups in _slices(self.num_blocks, fitting):
            stop = (groups.stop + self.before) * self.block
            events = slice(groups.start * self.block, stop)
            for batch in _slices(
                self.num_histories, max(1, fitting // (groups.stop - groups.start))
            ):
                hidden = self.outside[None, None, None]
                is_none = of_batch(self.places, batch)[:, events] < 0
                if is_none.any():
                    is_none = is_none.unfold(1, self.width, self.block)
                    hidden = hidden | is_none[:, None, :, None]
                yield Tile(batch, groups, slice(None), events, hidden)


def _arange(start: int, stop: int, like: Tensor) -> Tensor:
    return torch.arange(start, stop, device=like.device)


def _slices(count: int, step: int) -> Iterator[slice]:
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
