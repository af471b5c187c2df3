"""From a feature's keys to the rows of its table.

Row 0 stands for a missing value (null), row 1 for a key that is not in the vocabulary, and the keys
follow from row 2 on, the most frequent first and equally frequent ones in ascending order. So the
same data give the same rows, however they were cut into files and chunks.

    builder = VocabularyBuilder(2)
    for chunk in column.chunks:
        builder.add(chunk)
    vocabulary = builder.build()
    rows = vocabulary.lookup(pa.array(["a", None, "never seen"]))
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rankloom.data.arrow_keys import keys_and_nulls, keys_of, normalize_keys
from rankloom.data.atomic import write_parquet
from rankloom.data.id_rows import FIRST_KEY_ROW, MISSING_ROW, UNKNOWN_ROW, vocabulary_rows
from rankloom.data.key_counter import KeyCounter
from rankloom.data.key_index import KeyIndex, build_key_index
from rankloom.errors import ConfigError, DataError

FORMAT_VERSION = 1
_METADATA_KEY = b"rankloom.vocabulary"

KeyType = Literal["int64", "string"]


class Vocabulary:
    """Maps keys to rows of a table.

    Args:
        keys: (K,) distinct integers or strings without nulls, in the order of their rows.
        counts: (K,) how often each was seen.

    Raises:
        DataError: The keys are of another type, repeat, or are null.
    """

    def __init__(self, keys: pa.Array, counts: npt.NDArray[np.int64]) -> None:
        self.keys = normalize_keys(keys, where="vocabulary")
        """(K,) int64 or large_string. Entry i has row i + 2."""
        self.counts = counts.astype(np.int64)
        """(K,) how often each key was seen."""
        if len(self.keys) != len(self.counts):
            raise DataError(
                f"vocabulary: needs one count for each key. Got {len(self.keys)} keys and "
                f"{len(self.counts)} counts. Build it again."
            )
        problems = self.keys.null_count, len(self.keys) - len(pc.unique(self.keys))
        if any(problems):
            raise DataError(
                f"vocabulary: keys must be distinct and not null. Got {problems[0]} nulls and "
                f"{problems[1]} repeated keys among {len(self.keys)}. Build it again."
            )

    @property
    def key_type(self) -> KeyType:
        """Tell whether the keys are integers or strings."""
        return "int64" if pa.types.is_int64(self.keys.type) else "string"

    @property
    def num_embeddings(self) -> int:
        """Count the table's rows, the two special ones included."""
        return FIRST_KEY_ROW + len(self.keys)

    @cached_property
    def digest(self) -> str:
        """Sha256 over the keys in order and their counts, in hexadecimal."""
        content = hashlib.sha256(f"{FORMAT_VERSION} {self.key_type} {len(self.keys)}\n".encode())
        if self.key_type == "int64":
            content.update(self.keys.to_numpy().astype("<i8").tobytes())
        else:
            lengths = pc.binary_length(self.keys).to_numpy().astype("<i8")
            content.update(lengths.tobytes())
            content.update(_string_bytes(self.keys))
        content.update(self.counts.astype("<i8").tobytes())
        return content.hexdigest()

    @cached_property
    def index(self) -> KeyIndex:
        """What finds the keys."""
        return build_key_index(keys_of(self.keys))

    def lookup(self, array: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
        """Give each value's row.

        Args:
            array: (V,) of the keys' type (integers of any width, strings of any storage, or a
                dictionary of one of them); nulls are allowed.

        Returns:
            (V,) row: 0 for null, 1 for an unknown key.

        Raises:
            DataError: The values are integers and the keys strings, or the other way round.
        """
        if isinstance(array, pa.ChunkedArray):
            parts = [self.lookup(chunk) for chunk in array.chunks]
            return np.concatenate(parts) if parts else np.empty(0, np.int64)
        if pa.types.is_dictionary(array.type):
            return self._lookup_dictionary(array)
        if pa.types.is_null(array.type):
            return np.full(len(array), MISSING_ROW, np.int64)
        values = normalize_keys(array, where="vocabulary")
        if len(self.keys):
            self._check_type(values)
        return vocabulary_rows(self.index, *keys_and_nulls(values))

    def _lookup_dictionary(self, array: pa.DictionaryArray) -> npt.NDArray[np.int64]:
        if len(array.dictionary) > len(array):
            return self.lookup(array.dictionary_decode())
        of_entry = np.append(self.lookup(array.dictionary), MISSING_ROW)
        # A null index is sent to the entry after the last one.
        entries = pc.fill_null(pc.cast(array.indices, pa.int64()), len(of_entry) - 1)
        indices: npt.NDArray[np.int64] = entries.to_numpy(zero_copy_only=False)
        return of_entry[indices]

    def _check_type(self, values: pa.Array) -> None:
        if values.type != self.keys.type:
            kinds = {pa.int64(): "integers", pa.large_string(): "strings"}
            raise DataError(
                f"vocabulary: its keys are {kinds[self.keys.type]}. Got {kinds[values.type]} to "
                "look up. Cast the column to the type it had when the vocabulary was built."
            )

    def rows_of(self, other: Vocabulary) -> npt.NDArray[np.int64]:
        """Find the row that each of this vocabulary's keys has in another one.

        Args:
            other: For instance the vocabulary of the checkpoint that a run starts from.

        Returns:
            (num_embeddings,) row in `other`, -1 for a key that it does not have. The two special
            rows are found in the special rows.

        Raises:
            DataError: One has integer keys and the other strings.
        """
        special = np.arange(FIRST_KEY_ROW)
        if len(self.keys) == 0:
            return special
        rows = other.lookup(self.keys)
        rows[rows == UNKNOWN_ROW] = -1
        return np.concatenate([special, rows])

    def grow(self, old: Vocabulary) -> Vocabulary:
        """Make the vocabulary that keeps the rows of an old one and appends this one's new keys.

        Args:
            old: Its keys keep their rows, also those which are not in this vocabulary.

        Returns:
            The old keys, then the new ones in this vocabulary's order. A key in both has this
            vocabulary's count.

        Raises:
            DataError: One has integer keys and the other strings.
        """
        if len(old.keys) == 0 or len(self.keys) == 0:
            return self if len(old.keys) == 0 else old
        new = self.rows_of(old)[FIRST_KEY_ROW:] < 0
        row_here = old.rows_of(self)[FIRST_KEY_ROW:]
        counts = np.where(row_here < 0, old.counts, self.counts[row_here - FIRST_KEY_ROW])
        keys = pa.concat_arrays([old.keys, self.keys.filter(pa.array(new))])
        return Vocabulary(keys, np.concatenate([counts, self.counts[new]]))

    def save(self, path: Path) -> None:
        """Write a Parquet file with the columns `key` and `count`, whole or not at all.

        Raises:
            DataError: The folder cannot be written to, or the disk is full.
        """
        about = {"format_version": FORMAT_VERSION, "digest": self.digest}
        table = pa.table({"key": self.keys, "count": self.counts})
        metadata = {_METADATA_KEY: json.dumps(about, sort_keys=True).encode()}
        write_parquet(table.replace_schema_metadata(metadata), path)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote.

        Raises:
            DataError: The file is missing, damaged, of a newer format or no vocabulary.
        """
        advice = "Build the vocabulary again, or restore the file."
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path}: cannot be read. Got: {error}. {advice}") from error
        version, digest = _read_about(table.schema, path=path)
        if version != FORMAT_VERSION:
            raise DataError(
                f"{path}: has vocabulary format {version}, this version of rankloom reads "
                f"{FORMAT_VERSION}. Use the version that wrote it, or build it again."
            )
        if table.column_names != ["key", "count"]:
            raise DataError(
                f"{path}: must have the columns key and count. Got {table.column_names}. {advice}"
            )
        vocabulary = cls(
            table["key"].combine_chunks(),
            table["count"].combine_chunks().to_numpy(zero_copy_only=False),
        )
        if vocabulary.digest != digest:
            raise DataError(
                f"{path}: its content does not match its digest. Got {vocabulary.digest}, the file "
                f"says {digest}. {advice}"
            )
        return vocabulary


class VocabularyBuilder:
    """Counts keys in bounded memory and makes a `Vocabulary` of the frequent ones.

    Several features share a table by adding to one builder.

    Args:
        min_count: A key seen less often is left out.
        max_size: Keep only so many keys, the most frequent.
        memory_keys: When more distinct keys are held, they go to temporary files; see `KeyCounter`.
        name: Named in errors, such as the table's name.
        folder: Where temporary files are made; the system's own place if not given.

    Raises:
        ConfigError: A limit is below 1.
    """

    def __init__(
        self,
        min_count: int = 1,
        *,
        max_size: int | None = None,
        memory_keys: int = 5_000_000,
        name: str = "vocabulary",
        folder: Path | None = None,
    ) -> None:
        limits = {"min_count": min_count, "max_size": max_size, "memory_keys": memory_keys}
        for option, limit in limits.items():
            if limit is not None and limit < 1:
                raise ConfigError(
                    f"{name}.{option}: must be positive. Got {limit}. Give 1 or more."
                )
        self._min_count = min_count
        self._max_size = max_size
        self._counter = KeyCounter(memory_keys=memory_keys, name=name, folder=folder)

    def add(self, array: pa.Array | pa.ChunkedArray) -> None:
        """Count an array's keys; lists count each of their elements, nulls are no keys.

        Args:
            array: Integers, strings, a dictionary of either, or lists of them.

        Raises:
            DataError: The keys are of another type, integers where there were strings before (or
                the other way round), or the temporary files cannot be written.
        """
        self._counter.add(array)

    def build(self) -> Vocabulary:
        """Make the vocabulary and remove the temporary files; may be called once.

        Raises:
            DataError: A temporary file cannot be read back.
        """
        keys, counts = self._counter.finish(min_count=self._min_count, max_size=self._max_size)
        return Vocabulary(keys, counts)


def _read_about(schema: pa.Schema, *, path: Path) -> tuple[int, str]:
    text = (schema.metadata or {}).get(_METADATA_KEY)
    if text is None:
        raise DataError(
            f"{path}: is a Parquet file, but no vocabulary. Got the columns {schema.names}. "
            "Give a file that a vocabulary was saved to."
        )
    try:
        about: dict[str, Any] = json.loads(text)
        return int(about["format_version"]), str(about["digest"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: its vocabulary metadata is damaged. Got {text!r}. "
            "Build the vocabulary again, or restore the file."
        ) from error


def _string_bytes(strings: pa.Array) -> memoryview:
    """View the UTF-8 bytes of a large_string array without nulls, without a copy."""
    _, offset_buffer, data_buffer = strings.buffers()
    if len(strings) == 0 or data_buffer is None:
        return memoryview(b"")
    first, last = np.frombuffer(offset_buffer, np.int64)[
        [strings.offset, strings.offset + len(strings)]
    ]
    return memoryview(data_buffer)[int(first) : int(last)]
