"""The rows of a flat log so that those of each request follow each other.

Where they do so already, they are read as they stand. Otherwise rows are divided into parts on
disk by where their request begins, each part small enough to be sorted in memory; the parts follow
each other in the order of requests, so nothing has to be merged. Requests come in the order of
their first rows, the rows of each in the order they had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from rankloom.data.columns import Ints
from rankloom.data.regroup.log import Log
from rankloom.data.regroup.requests import Requests

PART_BYTES = 1 << 27
"""Arrow's memory of a part that is sorted at a time, about."""
MAX_PARTS = 500
"""Files that are open at a time."""
NUM_BINS = 1 << 16


@dataclass(frozen=True)
class Piece:
    """Some rows, those of a request behind each other."""

    batch: pa.RecordBatch
    first_rows: Ints
    """(rows,) number of the first row, in the log, of each row's request."""

    def cut(self, first: int, stop: int) -> Piece:
        """View some rows."""
        return Piece(self.batch.slice(first, stop - first), self.first_rows[first:stop])

    def starts(self) -> Ints:
        """Give where requests begin, the first row among them."""
        is_new = np.append(True, self.first_rows[1:] != self.first_rows[:-1])
        return np.flatnonzero(is_new)


class Rows(Protocol):
    """Rows that can be gone through again and again."""

    def pieces(self, columns: Sequence[str]) -> Iterator[Piece]:
        """Give some columns of all rows; a request may go on in the next piece."""


@dataclass(frozen=True)
class RowsInPlace:
    """The rows of a log whose requests are contiguous."""

    log: Log
    requests: Requests
    chunk_rows: int

    def pieces(self, columns: Sequence[str]) -> Iterator[Piece]:
        """Give some columns of all rows; a request may go on in the next piece."""
        at = 0
        for batch, _ in self.log.batches(columns, self.chunk_rows):
            yield Piece(batch, self.requests.of_rows(at, at + len(batch)))
            at += len(batch)


class RowsBroughtTogether:
    """The rows of a log whose requests are not contiguous, arranged on disk.

    Args:
        log: Is read once, here.
        requests: Of its rows.
        folder: An empty one; what is written there has the size of the log in Arrow, compressed.
        chunk_rows: Rows of a piece, at most.
        part_rows: Rows of a part, about.
        report: Told of the rows written so far.
    """

    def __init__(
        self,
        log: Log,
        requests: Requests,
        folder: Path,
        *,
        chunk_rows: int,
        part_rows: int,
        report: Callable[[int], None],
    ) -> None:
        self.names = log.names
        self.chunk_rows = chunk_rows
        part_of_bin = _parts_of_bins(requests, max(part_rows, -(-log.num_lines // MAX_PARTS)))
        num_parts = int(part_of_bin[-1]) + 1
        self.paths = [folder / f"part-{number}.arrow" for number in range(num_parts)]
        # The requests' first rows stand in a last column, whatever the others are called.
        schema = log.schemas[0].remove_metadata().append(pa.field("", pa.int64()))
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        at = 0
        with ExitStack() as stack:
            writers = [
                stack.enter_context(pa.ipc.new_stream(str(path), schema, options=options))
                for path in self.paths
            ]
            for batch, _ in log.batches(self.names, chunk_rows):
                first_rows = requests.of_rows(at, at + len(batch))
                arrays = [*batch.columns, pa.array(first_rows)]
                whole = pa.RecordBatch.from_arrays(arrays, schema=schema)
                parts = part_of_bin[_bin(first_rows, requests.num_rows)]
                for part in np.unique(parts):
                    rows = np.flatnonzero(parts == part)
                    is_all = len(rows) == len(parts)
                    writers[part].write_batch(whole if is_all else whole.take(pa.array(rows)))
                at += len(batch)
                report(at)

    def pieces(self, columns: Sequence[str]) -> Iterator[Piece]:
        """Give some columns of all rows; a request may go on in the next piece."""
        fields = [self.names.index(name) for name in columns]
        options = pa.ipc.IpcReadOptions(included_fields=[*fields, len(self.names)])
        for path in self.paths:
            with pa.ipc.open_stream(str(path), options=options) as reader:
                table = reader.read_all().combine_chunks()
            first_rows = table.column(table.num_columns - 1).to_numpy()
            rows = table.select(list(columns))
            order = np.argsort(first_rows, kind="stable")
            for at in range(0, len(order), self.chunk_rows):
                chosen = order[at : at + self.chunk_rows]
                taken = rows.take(pa.array(chosen)).combine_chunks()
                for batch in taken.to_batches():
                    yield Piece(batch, first_rows[chosen])


def _bin(first_rows: Ints, num_rows: int) -> Ints:
    return first_rows * min(NUM_BINS, num_rows) // num_rows


def _parts_of_bins(requests: Requests, part_rows: int) -> Ints:
    """Divide the range of first rows into parts of about equally many rows of the log.

    Returns:
        (bins,) the part of each bin of first rows, non-decreasing.
    """
    num_bins = min(NUM_BINS, requests.num_rows)
    rows = np.zeros(num_bins, np.int64)
    for first_rows, lengths in requests.runs():
        bins = _bin(first_rows, requests.num_rows)
        rows += np.bincount(bins, weights=lengths, minlength=num_bins).astype(np.int64)
    # Bins after the last row belong to its part.
    before = np.minimum(np.cumsum(rows) - rows, requests.num_rows - 1)
    _, parts = np.unique(before // part_rows, return_inverse=True)
    return np.asarray(parts, np.int64)


def whole_requests(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Cut pieces where requests begin, so that each has whole requests only."""
    held: list[Piece] = []
    for piece in pieces:
        starts = piece.starts()
        goes_on = bool(held) and held[0].first_rows[0] == piece.first_rows[0]
        first = 0
        if goes_on:
            first = int(starts[1]) if len(starts) > 1 else len(piece.first_rows)
            held.append(piece.cut(0, first))
        if first == len(piece.first_rows):
            continue
        if held:
            yield _joined(held)
        last = int(starts[-1])
        if first < last:
            yield piece.cut(first, last)
        held = [piece.cut(last, len(piece.first_rows))]
    if held:
        yield _joined(held)


def _joined(pieces: list[Piece]) -> Piece:
    if len(pieces) == 1:
        return pieces[0]
    table = pa.Table.from_batches([piece.batch for piece in pieces]).combine_chunks()
    return Piece(table.to_batches()[0], np.concatenate([piece.first_rows for piece in pieces]))
