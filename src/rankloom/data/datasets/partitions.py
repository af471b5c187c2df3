"""Tables larger than memory, divided by a hash of a key, so that a part at a time can be joined."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rankloom.data.arrow_keys import keys_of
from rankloom.data.hashing import hash_ids

# Not the seed of any table's hash: partitions and buckets must be independent.
_SEED = 0x3C6EF372
_BYTES_OF_TEXT = 1 << 26
# Each partition is a file that is open while the source is read.
_MAX_PARTITIONS = 256
_PACKED = {".gz", ".zst"}
_PACKED_RATIO = 5


def count_partitions(paths: Collection[Path]) -> int:
    """Choose how many parts let each fit in memory, from the sizes of the text files."""
    sizes = (
        path.stat().st_size * (_PACKED_RATIO if path.suffix in _PACKED else 1) for path in paths
    )
    return min(1 + sum(sizes) // _BYTES_OF_TEXT, _MAX_PARTITIONS)


class Partitions:
    """The parts of one table; rows with the same key are in the same part, in order of arrival.

    Args:
        folder: Made; holds a file for each part.
        key: Column of integers or strings without nulls.
        count: Parts. Two tables with the same keys and count have matching parts.
    """

    def __init__(self, folder: Path, *, key: str, count: int) -> None:
        folder.mkdir()
        self._key = key
        self._paths = [folder / f"{number}.arrow" for number in range(count)]

    def __iter__(self) -> Iterator[pa.Table]:
        """Give one part after the other."""
        for path in self._paths:
            with pa.OSFile(str(path), "rb") as source, pa.ipc.open_stream(source) as stream:
                part = stream.read_all()
            yield part.combine_chunks()

    def fill(
        self,
        pieces: Iterable[pa.RecordBatch],
        *,
        see: Callable[[pa.RecordBatch], None] | None = None,
    ) -> Partitions:
        """Write all pieces, which have the same columns; called once.

        Args:
            pieces: At least one.
            see: Called with each.

        Raises:
            OSError: The disk is full.
        """
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with ExitStack() as files:
            writers: list[pa.RecordBatchStreamWriter] = []
            for piece in pieces:
                if not writers:
                    sinks = [
                        files.enter_context(pa.OSFile(str(path), "wb")) for path in self._paths
                    ]
                    writers = [
                        files.enter_context(pa.ipc.new_stream(sink, piece.schema, options=options))
                        for sink in sinks
                    ]
                if see is not None:
                    see(piece)
                self._divide(piece, writers)
        return self

    def _divide(self, piece: pa.RecordBatch, writers: Sequence[pa.RecordBatchStreamWriter]) -> None:
        parts = hash_ids(keys_of(piece.column(self._key)), num_buckets=len(writers), seed=_SEED)
        order = np.argsort(parts, kind="stable")
        divided = piece.take(pa.array(order))
        edges = np.searchsorted(parts[order], np.arange(len(writers) + 1))
        for writer, (start, stop) in zip(writers, itertools.pairwise(edges.tolist()), strict=True):
            if stop > start:
                writer.write_batch(divided.slice(start, stop - start))


def left_join(table: pa.Table, other: pa.Table, *, key: str, other_key: str) -> pa.Table:
    """Add the columns of `other` to the rows of `table`; nulls where it has no such key.

    Args:
        table: Keeps its order.
        other: The first row of each key counts.
        key: Column of `table`.
        other_key: Column of `other`, which is not added.
    """
    place = pc.index_in(table[key], value_set=one_array(other[other_key]))
    for name in other.column_names:
        if name != other_key:
            table = table.append_column(name, other[name].take(place))
    return table


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """Put a column's chunks, if any, behind each other."""
    whole = column.combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole
