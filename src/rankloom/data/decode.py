"""From Arrow columns to table rows, numbers and vectors, with every value checked.

Nothing here loops over rows. A column without nulls is not copied unless its type must change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rankloom.data.arrow_keys import keys_and_nulls
from rankloom.data.columns import Bools, Ints, Lists, Plain
from rankloom.data.hashing import hash_keys
from rankloom.data.id_rows import UnifiedRows, Way, hashed_rows
from rankloom.data.raw import RawColumn, check_same_lengths
from rankloom.data.texts import Texts
from rankloom.data.vocabulary import Vocabulary
from rankloom.errors import DataError

Floats = npt.NDArray[np.float32]

KEY_HASH_SEED = 0
"""Salt by which texts become keys of evaluation."""
NULL_KEY = np.iinfo(np.int64).min
"""Key of evaluation that stands for null."""


@dataclass(frozen=True)
class IdMapping:
    """How the values of one column become rows of its table."""

    way: Way
    """Of the table."""
    default: int | str | None
    """Value that stands for null in this column."""
    vocabulary: Vocabulary | None
    """Of the table, if it has one."""

    def rows(self, raw: RawColumn) -> Ints:
        """Give each value's row: (n,), or (n, K) rows of the unified table.

        Raises:
            DataError: A value is no row of the table, is null where nothing stands for null, or
                has another type than the vocabulary's keys.
        """
        filled = fill_default(raw, self.default)
        if isinstance(self.way, UnifiedRows):
            return self.way.rows(*keys_and_nulls(filled.array))
        if self.way.num_embeddings is not None:
            return _rows_as_they_are(filled, self.way.num_embeddings)
        if self.vocabulary is not None:
            try:
                return self.vocabulary.lookup(filled.array)
            except DataError as error:
                raise DataError(
                    f"{raw.origin.name}: column {raw.name!r} does not fit its {error}"
                ) from error
        assert self.way.hash_buckets is not None
        keys, is_null = keys_and_nulls(filled.array)
        return hashed_rows(keys, self.way.hash_buckets, is_null)


def fill_default(raw: RawColumn, default: int | str | None) -> RawColumn:
    """Replace nulls by the default, where there is one.

    Raises:
        DataError: The default has another type than the column.
    """
    if default is None or not raw.array.null_count:
        return raw
    try:
        scalar = pa.scalar(default, raw.array.type)
    except (pa.ArrowException, OverflowError, TypeError) as error:
        raise DataError(
            f"{raw.origin.name}: column {raw.name!r} is {raw.array.type}, its default is of "
            f"another type. Got {default!r}. Set a default of the column's type."
        ) from error
    return replace(raw, array=pc.fill_null(raw.array, scalar))


def _rows_as_they_are(raw: RawColumn, num_embeddings: int) -> Ints:
    if raw.array.null_count:
        raise raw.null_error(
            advice="Set a default, or use a vocabulary or hash_buckets, which have a row for it."
        )
    values: npt.NDArray[Any] = raw.array.to_numpy(zero_copy_only=False)
    if values.dtype.itemsize == 8:
        # Seen as unsigned, a negative value is too large as well: one pass finds both.
        unsigned = values.view(np.uint64)
        if len(unsigned) and unsigned.max() >= num_embeddings:
            raise _outside(raw, unsigned >= np.uint64(num_embeddings), num_embeddings)
        return values.view(np.int64)
    rows: Ints = values.astype(np.int64)
    if len(rows) and (rows.min() < 0 or rows.max() >= num_embeddings):
        raise _outside(raw, (rows < 0) | (rows >= num_embeddings), num_embeddings)
    return rows


def _outside(raw: RawColumn, bad: Bools, num_embeddings: int) -> DataError:
    return raw.error(
        bad,
        rule=f"must be a whole number from 0 to {num_embeddings - 1}",
        advice="Raise num_embeddings, or use a vocabulary or hash_buckets.",
    )


def decode_sparse(raw: RawColumn, weights: RawColumn | None, *, mapping: IdMapping) -> Lists:
    """Decode several ids a row.

    Args:
        raw: Lists of ids; a null list stands for one missing id.
        weights: Lists of one weight per id, if the feature has weights.
        mapping: How ids become rows.

    Raises:
        DataError: An id or weight is not allowed, or the lists' lengths differ.
    """
    offsets, entries = raw.lists_with_null()
    values: dict[str, npt.NDArray[Any]] = {"ids": mapping.rows(entries)}
    if weights is not None:
        # The weight of the id that stands for a null list is 1.
        weight_offsets, weight_entries = weights.lists_with_null()
        check_same_lengths(offsets, raw.name, weight_offsets, weight_entries)
        values["weights"] = decode_numbers(weight_entries, default=1.0)
    return Lists(offsets, values)


def decode_numbers(
    raw: RawColumn, *, default: float | None = None, keep_missing: bool = False
) -> Floats:
    """Give numbers as float32.

    Args:
        raw: (n,) numbers or booleans.
        default: Stands for null and NaN.
        keep_missing: Without a default, give NaN for null and NaN instead of an error.

    Raises:
        DataError: A number is infinite (in float32), or missing without a default.
    """
    array = raw.array
    if default is not None and array.null_count and pa.types.is_floating(array.type):
        # Arrow fills nulls three times faster than NumPy finds and replaces their NaN below.
        array = pc.fill_null(array, pa.scalar(default, array.type))
    values = to_float32(read_numbers(array))
    finite = np.isfinite(values)
    if finite.all():
        return values
    missing = np.isnan(values)
    infinite = ~(finite | missing)
    if infinite.any():
        raise raw.error(
            infinite,
            rule="must be finite (below 3.4e38)",
            advice="Clip or drop such values in preparation.",
        )
    if default is not None:
        values[missing] = default
    elif not keep_missing:
        raise raw.error(missing, rule="has no number", advice="Set a default, or fill it.")
    return values


def read_numbers(array: pa.Array) -> npt.NDArray[Any]:
    """Give (n,) numbers of some type, perhaps Arrow's own memory; NaN for null."""
    if pa.types.is_boolean(array.type) or pa.types.is_float16(array.type):
        array = pc.cast(array, pa.float32())
    elif pa.types.is_decimal(array.type):
        array = pc.cast(array, pa.float64())
    numbers: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return numbers


def to_float32(numbers: npt.NDArray[Any]) -> Floats:
    """Give a new array, infinite where float32 overflows."""
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)


def decode_vectors(raw: RawColumn, *, dim: int, zeros_for_null: bool) -> Plain:
    """Give (n, dim) float32.

    Raises:
        DataError: A vector has another width, is null without a default, or is not finite.
    """
    offsets, entries = raw.lists()
    lengths, is_null = np.diff(offsets), np.zeros(len(raw), np.bool_)
    if raw.array.null_count:
        if not zeros_for_null:
            raise raw.null_error(advice="Set default: zeros, or fill it.")
        is_null = raw.array.is_null().to_numpy(zero_copy_only=False)
    wrong = (lengths != dim) & ~is_null
    if wrong.any():
        raise raw.error(
            wrong, rule=f"must have {dim} numbers", advice="Set dim to the vectors' width."
        )
    numbers = decode_numbers(entries).reshape(-1, dim)
    if not is_null.any():
        return Plain(numbers)
    vectors = np.zeros((len(raw), dim), np.float32)
    vectors[~is_null] = numbers
    return Plain(vectors)


def decode_keys(raw: RawColumn) -> Ints:
    """Give keys of evaluation: whole numbers as they are, texts hashed, `NULL_KEY` for null."""
    array = raw.array
    if pa.types.is_boolean(array.type):
        array = pc.cast(array, pa.int8())
    values, is_null = keys_and_nulls(array)
    if isinstance(values, Texts):
        keys: Ints = hash_keys(values, seed=KEY_HASH_SEED).view(np.int64)
    else:
        keys = values.astype(np.int64)
    if is_null is not None:
        keys[is_null] = NULL_KEY
    return keys
