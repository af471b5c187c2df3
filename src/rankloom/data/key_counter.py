"""Counting keys of any number in bounded memory."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rankloom.data.arrow_keys import keys_of, normalize_keys
from rankloom.data.hashing import hash_ids
from rankloom.errors import DataError

_NUM_PARTITIONS = 64
# Not the seed of any table's hash: partitions and buckets must be independent.
_PARTITION_SEED = 0x5F3759DF
_MIN_MERGE_KEYS = 1 << 16


class KeyCounter:
    """Counts keys chunk by chunk.

    When more than `memory_keys` distinct keys are held, they go to a temporary folder, split by a
    hash of the key; `finish` adds up one part after the other. So memory holds two or three times
    `memory_keys` keys and the result, not all keys that were ever seen, and the result is the same
    as without the detour.

    Args:
        memory_keys: Distinct keys held in memory.
        name: Named in errors.
        folder: Where the temporary folder is made; the system's own place if None.
    """

    def __init__(self, *, memory_keys: int, name: str, folder: Path | None) -> None:
        self._memory_keys = memory_keys
        self._name = name
        self._folder = folder
        self._key_type: pa.DataType | None = None
        self._merged: pa.Table | None = None
        self._pending: list[pa.Table] = []
        self._num_pending = 0
        self._spills: list[Path] = []
        self._spill_folder: Path | None = None
        self._remove_spills: weakref.finalize[..., KeyCounter] | None = None
        self._is_finished = False

    def add(self, array: pa.Array | pa.ChunkedArray) -> None:
        """Count an array's keys; lists count each of their elements, nulls are no keys.

        Args:
            array: Integers, strings, a dictionary of either, or lists of them.

        Raises:
            DataError: The keys are of another type, integers where there were strings before (or
                the other way round), or the temporary folder cannot be written to.
        """
        if self._is_finished:
            raise RuntimeError(f"{self._name}: all keys were counted; make a new builder")
        if isinstance(array, pa.ChunkedArray):
            for chunk in array.chunks:
                self.add(chunk)
            return
        while _is_list(array.type):
            array = array.flatten()
        if array.null_count == len(array):
            return
        is_encoded = pa.types.is_dictionary(array.type)
        values = array if is_encoded else normalize_keys(array, where=self._name)
        counted = pc.value_counts(values)
        keys = counted.field("values")
        if is_encoded:
            keys = normalize_keys(keys.dictionary_decode(), where=self._name)
        self._check_type(keys.type)
        table = pa.table({"key": keys, "count": counted.field("counts")})
        self._pending.append(table.filter(pc.field("key").is_valid()))
        self._num_pending += len(keys)
        num_merged = 0 if self._merged is None else len(self._merged)
        # Merging only when the new chunks outgrow what is merged costs each key a few merges.
        if self._num_pending > max(num_merged, min(self._memory_keys, _MIN_MERGE_KEYS)):
            self._merge()
            if self._merged is not None and len(self._merged) > self._memory_keys:
                self._spill()

    def finish(
        self, *, min_count: int, max_size: int | None
    ) -> tuple[pa.Array, npt.NDArray[np.int64]]:
        """Give the frequent keys and remove the temporary files; may be called once.

        Args:
            min_count: A key seen less often is left out.
            max_size: Keep only so many keys, the most frequent; all if None.

        Returns:
            keys: (K,) int64 or large_string, by count (descending), then by key (ascending, strings
                by their UTF-8 bytes). Of type int64 when there was no key.
            counts: (K,) int64.

        Raises:
            DataError: A temporary file cannot be written or read back.
        """
        if self._is_finished:
            raise RuntimeError(f"{self._name}: all keys were counted; keep the first result")
        self._is_finished = True
        try:
            self._merge()
            if self._spills:
                self._spill()
                partitions = (self._read_partition(part) for part in range(_NUM_PARTITIONS))
                parts = [_most_frequent(part, min_count, max_size) for part in partitions]
            elif self._merged is not None:
                parts = [self._merged]
            else:
                return pa.array([], pa.int64()), np.empty(0, np.int64)
            kept = _most_frequent(pa.concat_tables(parts), min_count, max_size)
        finally:
            self.close()
        return _one_array(kept["key"]), _one_array(kept["count"]).to_numpy()

    def close(self) -> None:
        """Remove the temporary files; `finish` does it by itself."""
        self._merged = None
        self._pending = []
        if self._remove_spills is not None:
            self._remove_spills()

    def _check_type(self, kind: pa.DataType) -> None:
        if self._key_type is None:
            self._key_type = kind
        if kind != self._key_type:
            before, now = (
                "integers" if pa.types.is_int64(each) else "strings"
                for each in (self._key_type, kind)
            )
            raise DataError(
                f"{self._name}: all keys of a table have one type. Got {now} after {before}. "
                "Cast the column to one type in all files."
            )

    def _merge(self) -> None:
        if self._pending:
            held = [] if self._merged is None else [self._merged]
            self._merged = _add_up([*held, *self._pending])
            self._pending, self._num_pending = [], 0

    def _spill(self) -> None:
        """Write what is merged as one file with a record batch for each partition, in order."""
        if self._merged is None:
            return
        counted, self._merged = self._merged.combine_chunks(), None
        keys = keys_of(_one_array(counted["key"]))
        partitions = hash_ids(keys, num_buckets=_NUM_PARTITIONS, seed=_PARTITION_SEED)
        order = np.argsort(partitions, kind="stable")
        edges = np.searchsorted(partitions[order], np.arange(_NUM_PARTITIONS + 1))
        batch = pa.RecordBatch.from_arrays(
            [_one_array(column).take(pa.array(order)) for column in counted.columns],
            schema=counted.schema,
        )
        try:
            path = self._temporary_folder() / f"{len(self._spills)}.arrow"
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as file:
                for start, end in itertools.pairwise(edges.tolist()):
                    file.write_batch(batch.slice(start, end - start))
        except OSError as error:
            raise DataError(
                f"{self._name}: temporary files cannot be written. Got: {error}. "
                "Free space, set TMPDIR to another disk, or raise memory_keys."
            ) from error
        self._spills.append(path)

    def _temporary_folder(self) -> Path:
        if self._spill_folder is None:
            made = tempfile.mkdtemp(prefix="rankloom-vocabulary-", dir=self._folder)
            self._spill_folder = Path(made)
            # Also when the counter is dropped unfinished, or the program ends by Ctrl-C.
            self._remove_spills = weakref.finalize(self, shutil.rmtree, made, ignore_errors=True)
        return self._spill_folder

    def _read_partition(self, partition: int) -> pa.Table:
        parts = []
        try:
            for path in self._spills:
                with pa.OSFile(str(path), "rb") as source, pa.ipc.open_file(source) as file:
                    parts.append(pa.Table.from_batches([file.get_batch(partition)]))
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{self._name}: temporary files cannot be read back. Got: {error}. Start again."
            ) from error
        return _add_up(parts)


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _add_up(tables: Iterable[pa.Table]) -> pa.Table:
    """Give each key once, with the sum of its counts."""
    summed = pa.concat_tables(tables).group_by("key").aggregate([("count", "sum")])
    return pa.table({"key": summed["key"], "count": summed["count_sum"]})


def _most_frequent(counted: pa.Table, min_count: int, max_size: int | None) -> pa.Table:
    frequent = counted.filter(pc.field("count") >= min_count)
    ordered = frequent.sort_by([("count", "descending"), ("key", "ascending")])
    return ordered.slice(0, max_size)


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole
