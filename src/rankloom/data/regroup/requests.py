"""Which request each row of a flat log belongs to, found outside of memory.

A request is known by the number of its first row in the log. One pass over the key column cuts the
log into runs of rows with equal keys. Runs are divided into buckets by their keys' hashes, on disk;
within a bucket, those of one hash belong to one request. What is kept of a run, where it starts and
where its request does, is mapped from disk, so that memory does not grow with the log.

Integers have no collisions of hashes. Two texts with one hash would be taken for one request: the
caller checks that the key is constant within each, and tries another seed if it is not.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rankloom.data.arrow_keys import is_string, keys_of
from rankloom.data.columns import Ints
from rankloom.data.files import CHUNK_ROWS
from rankloom.data.hashing import hash_keys
from rankloom.data.raw import RawColumn
from rankloom.data.regroup.log import Log
from rankloom.errors import SchemaError

BUCKET_RUNS = 1 << 22
"""Runs of keys that are sorted in memory at a time, about."""
MAX_BUCKETS = 256


@dataclass(frozen=True)
class Requests:
    """The requests of a log's rows."""

    starts: Ints
    """(runs,) first row of each run of equal keys, mapped from disk."""
    first_rows: Ints
    """(runs,) first row of the request that each run belongs to, mapped from disk."""
    num_rows: int
    """Rows of the log."""
    num_requests: int
    """Requests."""

    @property
    def is_contiguous(self) -> bool:
        """Whether the rows of each request follow each other."""
        return self.num_requests == len(self.starts)

    def of_rows(self, start: int, stop: int) -> Ints:
        """Give the (stop - start,) first rows of the requests of some rows."""
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        last = int(np.searchsorted(self.starts, stop, side="left"))
        borders = np.append(np.maximum(self.starts[first:last], start), stop)
        return np.repeat(np.asarray(self.first_rows[first:last]), np.diff(borders))

    def runs(self) -> Iterator[tuple[Ints, Ints]]:
        """Give the first rows of the requests of all runs, and the runs' lengths, in pieces."""
        for at in range(0, len(self.starts), BUCKET_RUNS):
            starts = np.asarray(self.starts[at : at + BUCKET_RUNS + 1])
            if at + BUCKET_RUNS >= len(self.starts):
                starts = np.append(starts, self.num_rows)
            yield np.asarray(self.first_rows[at : at + BUCKET_RUNS]), np.diff(starts)


def find_requests(
    log: Log, by: str, folder: Path, *, seed: int = 0, report: Callable[[int], None]
) -> Requests:
    """Find the request of each row.

    Args:
        log: Flat, with at least one row.
        by: The column whose equal values make a request.
        folder: An empty one, for files that are as large as 24 bytes a run.
        seed: Of the hash.
        report: Told of the rows read so far.

    Raises:
        SchemaError: The column is of a type that names no request.
        DataError: A row has no key, or a file cannot be read.
    """
    num_buckets = min(-(-log.num_lines // BUCKET_RUNS), MAX_BUCKETS)
    paths = [folder / f"bucket-{number}" for number in range(num_buckets)]
    with ExitStack() as stack:
        runs = _Runs(
            (stack.enter_context((folder / "starts").open("wb"))),
            [stack.enter_context(path.open("wb")) for path in paths],
        )
        done = 0
        for batch, origin in log.batches([by], CHUNK_ROWS):
            runs.add(_hashes(RawColumn(by, batch.column(0), origin), seed))
            done += len(batch)
            report(done)
    # A copy, since writing to a mapped file without blocks of its own kills on a full disk.
    shutil.copyfile(folder / "starts", folder / "first-rows")
    starts = np.memmap(folder / "starts", np.int64, "r")
    first_rows = np.memmap(folder / "first-rows", np.int64, "r+")
    num_requests = 0
    for path in paths:
        hashes, numbers = np.fromfile(path, np.uint64).reshape(-1, 2).T
        path.unlink()
        num_requests += _join_runs(hashes, numbers.astype(np.int64), starts, first_rows)
    return Requests(starts, first_rows, log.num_lines, num_requests)


def check_key_type(log: Log, by: str) -> None:
    """Check that the values of a column can name requests.

    Raises:
        SchemaError: They are neither whole numbers nor texts nor times.
    """
    kind = log.schemas[0].field(by).type
    leaf = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_integer(leaf) or is_string(leaf) or _is_time(leaf)):
        raise SchemaError(
            f"{log.paths[0]}: column {by!r} must hold whole numbers, texts or times to name "
            f"requests. Got {kind}. Give another column, or cast it."
        )


class _Runs:
    """Writes where runs start, and their hashes to the buckets."""

    def __init__(self, starts: BinaryIO, buckets: list[BinaryIO]) -> None:
        self.starts, self.buckets = starts, buckets
        self.num_rows = self.num_runs = 0
        self.last: npt.NDArray[np.uint64] = np.empty(0, np.uint64)

    def add(self, hashes: npt.NDArray[np.uint64]) -> None:
        """Go on with the hashes of the next (n,) rows."""
        is_new = np.ones(len(hashes), np.bool_)
        is_new[1:] = hashes[1:] != hashes[:-1]
        if len(self.last):
            is_new[:1] = hashes[:1] != self.last
        rows = np.flatnonzero(is_new)
        self.starts.write((rows + self.num_rows).data)
        pairs = np.empty((len(rows), 2), np.uint64)
        pairs[:, 0] = hashes[rows]
        pairs[:, 1] = np.arange(self.num_runs, self.num_runs + len(rows))
        bucket = (pairs[:, 0] % np.uint64(len(self.buckets))).astype(np.int64)
        for number in np.unique(bucket):
            self.buckets[number].write(pairs[bucket == number].data)
        self.num_rows += len(hashes)
        self.num_runs += len(rows)
        self.last = hashes[-1:]


def _hashes(raw: RawColumn, seed: int) -> npt.NDArray[np.uint64]:
    array = raw.array
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if array.null_count:
        raise raw.null_error(
            rule="names the request, and must have a value", advice="Fill it, or drop such rows."
        )
    if _is_time(array.type):
        array = array.view(pa.int32() if array.type.bit_width == 32 else pa.int64())
    return hash_keys(keys_of(array), seed=seed)


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_temporal(kind) and not pa.types.is_interval(kind))


def _join_runs(hashes: npt.NDArray[np.uint64], runs: Ints, starts: Ints, first_rows: Ints) -> int:
    """Fill in the requests' first rows for the runs of one bucket; give how many requests."""
    if not len(runs):
        return 0
    order = np.argsort(hashes)
    hashes, runs = hashes[order], runs[order]
    borders = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1]))
    first_runs = np.minimum.reduceat(runs, borders)
    of_run = np.repeat(starts[first_runs], np.diff(np.append(borders, len(runs))))
    first_rows[runs] = of_run
    return len(borders)
