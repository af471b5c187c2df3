"""From Parquet files to batches: in a fixed order, shuffled, ahead of the consumer, resumable.

`order` says which line comes when. This module reads a rank's stream buffer by buffer, decodes it,
and cuts it into batches of whole requests: a batch closes before the request that would pass
`batch_size` rows; a single larger request is its own batch. Batches run across buffers, so all but
the last are full. A position is the number of lines of the rank's stream that are used up, empty
requests included; the batches from a position on depend on nothing before it.

Memory holds the decoded buffer, up to four chunks of row groups, and the batches read ahead.

    decoder = Decoder(schema, transforms)
    reader = LogReader("log/*.parquet", decoder, batch_size=4096, order=Order(seed=1))
    with reader.batches(epoch=0) as reads:
        for batch, position in reads:
            ...
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np

from rankloom.data.batch import Batch
from rankloom.data.columns import Block, Ints, join_blocks
from rankloom.data.files import CHUNK_ROWS, FileNames, Segment, check_files, read_lines
from rankloom.data.order import Order, lines_per_buffer, order_in_buffer, stream_of
from rankloom.data.plan import Decoder
from rankloom.data.raw import Origin
from rankloom.data.read_ahead import ReadAhead
from rankloom.data.sampling import NegativeSampling, count_kept_rows
from rankloom.data.tensors import to_batch
from rankloom.errors import ConfigError

logger = logging.getLogger(__name__)


class Read(NamedTuple):
    """A batch, and where to go on after it."""

    batch: Batch
    """Its tensors are views of a whole buffer; copy what is to be kept for long."""
    position: int
    """Lines of the rank's stream used up when this batch is."""


class Buffer(NamedTuple):
    """A decoded buffer, its lines in the order they are used in, none of them empty."""

    block: Block
    positions: Ints
    """(lines,) the position after each."""
    row_ends: Ints
    """(lines,) rows up to and with each."""

    def fit(self, first: int, room: int) -> int:
        """Give where to stop so that the lines from `first` on have at most `room` rows."""
        before = int(self.row_ends[first - 1]) if first else 0
        return int(np.searchsorted(self.row_ends, before + room, side="right"))


class LogReader:
    """Reads a log as batches.

    Args:
        files: Paths or glob patterns; their headers are checked.
        decoder: What to make of the columns.
        batch_size: Rows of a batch, at most, unless one request has more.
        order: Shuffling, and this process's share; without one, all lines as they are stored.
        sampling: Negatives that are left out; a request whose rows all are is left out too.
        with_slots: Whether batches have `slots`.
        read_ahead: Batches made ahead by a thread.

    Raises:
        DataError: A file is missing, empty or no Parquet.
        SchemaError: Columns are missing or of the wrong type.
        ConfigError: `batch_size` or `read_ahead` is below 1.
    """

    def __init__(
        self,
        files: FileNames,
        decoder: Decoder,
        *,
        batch_size: int,
        order: Order | None = None,
        sampling: NegativeSampling | None = None,
        with_slots: bool = False,
        read_ahead: int = 4,
    ) -> None:
        for name, value in {"batch_size": batch_size, "read_ahead": read_ahead}.items():
            if value < 1:
                raise ConfigError(f"{name}: must be positive. Got {value}. Give 1 or more.")
        self.log = check_files(
            files,
            decoder.schema,
            layout=decoder.layout,
            with_labels=decoder.with_labels,
            training=decoder.training,
            keys=decoder.keys,
            transforms=decoder.transforms,
        )
        self.decoder = decoder
        self.batch_size = batch_size
        # Nothing is mixed there, so a buffer is as small as what is decoded at a time.
        self.order = order or Order(shuffle=False, buffer_rows=CHUNK_ROWS)
        self.sampling = sampling
        self._file_numbers = {str(path): number for number, path in enumerate(self.log.paths)}
        self.with_slots = with_slots
        self.read_ahead = read_ahead
        self._has_reported_empty = False

    @property
    def num_rows(self) -> int:
        """Rows of the whole log, from the headers; exact if no request is empty."""
        return self.log.num_rows

    @cached_property
    def rows_per_epoch(self) -> int:
        """Rows of an epoch; with sampling the mean, for which labels are read once.

        Raises:
            DataError: With sampling: a file cannot be read, or a label is not allowed.
        """
        if self.sampling is None:
            return self.num_rows
        return count_kept_rows(self.log, self.decoder, self.sampling)

    @property
    def num_requests(self) -> int:
        """Requests of the whole log, empty ones included."""
        return self.log.num_lines

    def batches(self, epoch: int, position: int = 0) -> ReadAhead[Read]:
        """Read one epoch, or what is left of it.

        Args:
            epoch: From 0 on; each has its own order.
            position: Of the last batch used; 0 for the whole epoch.

        Returns:
            An iterator; close it (or use `with`) when it is not read to its end.

        Raises:
            ConfigError: `epoch` or `position` is negative.
            DataError: While iterating: a file cannot be read, or holds a value that is not allowed.
        """
        for name, value in {"epoch": epoch, "position": position}.items():
            if value < 0:
                raise ConfigError(f"{name}: must not be negative. Got {value}. Give 0 or more.")
        return ReadAhead(
            lambda is_stopped: self._make(epoch, position, is_stopped), size=self.read_ahead
        )

    def _make(self, epoch: int, position: int, is_stopped: Callable[[], bool]) -> Iterator[Read]:
        buffers = self._buffers(epoch, position, is_stopped)
        for block, end in cut_buffers(buffers, self.batch_size):
            batch = to_batch(block)
            yield Read(batch.with_slots() if self.with_slots else batch, end)

    def _buffers(
        self, epoch: int, position: int, is_stopped: Callable[[], bool]
    ) -> Iterator[Buffer]:
        size = lines_per_buffer(self.log, self.order)
        stream = stream_of(self.log, self.order, epoch=epoch)
        number = position // size
        segments = stream.after(number * size)
        for parts in self._parts(segments, size, is_stopped, epoch=epoch):
            counts = np.concatenate([part.num_rows_of_each() for part in parts])
            order = order_in_buffer(self.order, epoch=epoch, buffer=number, num_lines=len(counts))
            first = number * size
            positions = np.arange(first + 1, first + len(counts) + 1)
            kept = (positions > position) & (counts[order] > 0)
            order, positions = order[kept], positions[kept]
            number += 1
            if len(order):
                is_as_stored = not self.order.shuffle and len(order) == len(counts)
                row_ends = np.cumsum(counts[order])
                yield Buffer(
                    join_blocks(parts, None if is_as_stored else order), positions, row_ends
                )

    def _parts(
        self, segments: list[Segment], size: int, is_stopped: Callable[[], bool], *, epoch: int
    ) -> Iterator[list[Block]]:
        """Decode the stream in parts that have `size` lines together; the last may have fewer.

        The parts are the consumer's: it may empty the list.
        """
        parts: list[Block] = []
        held = num_empty = 0
        columns = self.decoder.columns
        # Arrow decodes the next chunk while this thread works on the one at hand.
        with ReadAhead(lambda _: read_lines(segments, columns), size=2) as chunks:
            for batch, origin in chunks:
                at = 0
                while at < len(batch):
                    if is_stopped():
                        return
                    piece = batch.slice(at, size - held)
                    block = self.decoder.decode(piece, origin.moved(at))
                    num_empty += int(np.count_nonzero(block.num_rows_of_each() == 0))
                    parts.append(self._sampled(block, origin.moved(at), epoch=epoch))
                    at += len(piece)
                    held += len(piece)
                    if held == size:
                        yield parts
                        parts, held = [], 0
        if parts:
            yield parts
        if num_empty and not self._has_reported_empty:
            self._has_reported_empty = True
            logger.warning("%d requests without candidates were left out", num_empty)

    def _sampled(self, block: Block, origin: Origin, *, epoch: int) -> Block:
        if self.sampling is None:
            return block
        file = self._file_numbers[origin.name]
        return self.sampling.apply(block, epoch=epoch, file=file, first_line=origin.first_line)


def cut_buffers(buffers: Iterator[Buffer], batch_size: int) -> Iterator[tuple[Block, int]]:
    """Cut a stream of buffers into blocks of whole requests, across the buffers' borders.

    Yields:
        A block of at most `batch_size` rows, or of one request; and the position after it.
    """
    pending: list[Block] = []
    room, position = batch_size, 0
    for buffer in buffers:
        at, num_lines = 0, len(buffer.positions)
        while at < num_lines:
            stop = buffer.fit(at, room)
            if not pending:
                stop = max(stop, at + 1)  # a request larger than a batch is its own
            if stop > at:
                pending.append(buffer.block.cut(at, stop))
                room -= pending[-1].num_rows
                position = int(buffer.positions[stop - 1])
            at = stop
            if at < num_lines or room <= 0:
                yield join_blocks(pending), position
                room = batch_size
        # Copied, so that the buffer is not held while the next one is read.
        pending = [block.copy() for block in pending]
    if pending:
        yield join_blocks(pending), position
