"""The order in which a log's lines are read: a pure function of a few numbers.

A line is a request, or a row of a flat log. In epoch `e`

1. the row groups are permuted by a generator seeded with (seed, e);
2. the permuted stream of lines is divided among the ranks where each has its share of rows: every
   rank computes the same borders, so each line belongs to exactly one rank. Inside the row group
   that a border falls into, rows are taken to be spread evenly over lines, so no value is read;
3. a rank's stream is cut into buffers of the same number of lines, and each buffer is permuted by
   a generator seeded with (seed, e, rank, number of the buffer).

So what comes after a position depends on the position, the epoch, the log and these numbers only:
(epoch, position) is all that exact resume needs, and a restart reads from the first row group of
the buffer at hand. Without shuffling the order is that of the files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import NonNegativeInt, PositiveInt, model_validator

from rankloom.config import Config
from rankloom.config.problems import problem
from rankloom.data.columns import Ints
from rankloom.data.files import LogFiles, RowGroup, Segment


class Order(Config):
    """How lines are shuffled and divided among ranks."""

    shuffle: bool = True
    """Permute row groups, and lines within a buffer; without it, the order of the files."""
    buffer_rows: PositiveInt = 262_144
    """Rows shuffled with each other and held in memory; in a grouped log, about so many."""
    seed: NonNegativeInt = 0
    """Another seed gives another order."""
    rank: NonNegativeInt = 0
    """Number of this process."""
    world_size: PositiveInt = 1
    """Processes that share the log."""

    @model_validator(mode="after")
    def _rank_exists(self) -> Order:
        if self.rank >= self.world_size:
            raise problem(
                f"rank must be below world_size={self.world_size}. Got {self.rank}. "
                "Ranks count from 0."
            )
        return self


@dataclass(frozen=True)
class Stream:
    """The lines of one rank in one epoch, before they are shuffled within buffers."""

    segments: list[Segment]
    """In the order they are read in."""

    @property
    def num_lines(self) -> int:
        """Lines of all segments."""
        return sum(segment.stop - segment.start for segment in self.segments)

    def after(self, line: int) -> list[Segment]:
        """Give what is left when the first `line` lines are left out."""
        return _cut(self.segments, line, self.num_lines)


def stream_of(log: LogFiles, order: Order, *, epoch: int) -> Stream:
    """Give the lines that the order's rank reads in an epoch.

    Args:
        log: The whole log.
        order: Seed, rank and number of ranks.
        epoch: From 0 on.
    """
    groups = list(log.row_groups)
    if order.shuffle:
        permuted = np.random.default_rng([order.seed, epoch]).permutation(len(groups))
        groups = [groups[number] for number in permuted]
    segments = [Segment(group, 0, group.num_lines) for group in groups]
    first, stop = (_border(groups, rank, order.world_size) for rank in (order.rank, order.rank + 1))
    return Stream(_cut(segments, first, stop))


def _border(groups: list[RowGroup], rank: int, world_size: int) -> int:
    """Give the number of the first line of a rank's share."""
    rows_before = sum(group.num_rows for group in groups) * rank // world_size
    line = 0
    for group in groups:
        if rows_before <= group.num_rows:
            return line + rows_before * group.num_lines // max(group.num_rows, 1)
        rows_before -= group.num_rows
        line += group.num_lines
    return line


def _cut(segments: list[Segment], first: int, stop: int) -> list[Segment]:
    """Give the lines from `first` to `stop`, excluded, of a stream."""
    kept = []
    at = 0
    for segment in segments:
        length = segment.stop - segment.start
        start, end = max(first - at, 0), min(stop - at, length)
        if start < end:
            kept.append(Segment(segment.group, segment.start + start, segment.start + end))
        at += length
    return kept


def lines_per_buffer(log: LogFiles, order: Order) -> int:
    """Give the number of lines in a buffer: a function of the log and of `buffer_rows` only."""
    return max(1, order.buffer_rows * log.num_lines // max(log.num_rows, 1))


def order_in_buffer(order: Order, *, epoch: int, buffer: int, num_lines: int) -> Ints:
    """Give the order of the lines of one buffer.

    Args:
        order: Seed and rank.
        epoch: From 0 on.
        buffer: Its number in the rank's stream.
        num_lines: The lines it has.

    Returns:
        (num_lines,) line numbers within the buffer.
    """
    if not order.shuffle:
        return np.arange(num_lines)
    seed = [order.seed, epoch, order.rank, buffer]
    return np.random.default_rng(seed).permutation(num_lines)
