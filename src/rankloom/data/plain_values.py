"""Python's values and NumPy arrays as columns, with every value checked; needs no Arrow.

Shapes: V values.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any, TypeGuard

import numpy as np

from rankloom.data.columns import Array, Bools, Ints, offsets_of
from rankloom.data.hashing import Keys
from rankloom.data.id_rows import UnifiedRows, Way, hashed_rows, vocabulary_rows
from rankloom.data.key_index import KeyIndex
from rankloom.data.plain_lists import Ragged, as_list, shown
from rankloom.data.texts import Texts
from rankloom.errors import DataError
from rankloom.schema import IdSource

_INT64 = range(-(2**63), 2**63)
# A hash takes a value's 64 bits, whichever way they are meant.
_ANY_64_BITS = range(-(2**63), 2**64)
_WORD = 2**64 - 1
_MAX_FLOAT32 = 3.4e38
_FINITE = "must be finite (below 3.4e38)"
_NUMBERS_OR_NULL = frozenset({int, float, bool, NoneType})


@dataclass(frozen=True)
class PlainColumn:
    """Values of one column: of the user, of the context, or one for each candidate."""

    name: str
    values: Sequence[Any] | Array | Texts | Ragged
    where: str
    """`user`, `context` or `candidates`."""
    parents: Ints | None = None
    """(n + 1,) offsets of the lists that the values were taken out of."""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def is_null(self) -> Bools:
        """(V,) whether there is none."""
        if _has_no_objects(self.values):
            return np.zeros(len(self), np.bool_)
        return np.fromiter((v is None for v in as_list(self.values)), np.bool_, len(self))

    def lists(self, *, null_is_one: bool = False) -> tuple[Ints, PlainColumn]:
        """Open the lists.

        Args:
            null_is_one: Whether none instead of a list holds one null; else it is empty.

        Returns:
            offsets: (V + 1,), from 0 on.
            entries: The values of all lists.

        Raises:
            DataError: A value is no list.
        """
        values = self.values
        if isinstance(values, Ragged):
            return values.offsets, replace(self, values=values.values, parents=values.offsets)
        if isinstance(values, np.ndarray) and values.ndim == 2:
            count, length = values.shape
            return self._opened(np.full(count, length), values.reshape(-1))
        if len(values) == 1 and _is_one_list(values[0]):
            # A user's column, such as a history: it stays the array that it is.
            return self._opened(np.array([len(values[0])]), values[0])
        if not _types(values) <= {list, tuple}:
            for_null = [None] if null_is_one else []
            values = [for_null if one is None else as_list(one) for one in as_list(values)]
            is_list = [isinstance(one, list | tuple) for one in values]
            self.check(is_list, rule="must be a list", advice="Give a list of values.")
        lengths = np.fromiter(map(len, values), np.int64, len(values))
        return self._opened(lengths, list(itertools.chain.from_iterable(values)))

    def _opened(
        self, lengths: Ints, values: Sequence[Any] | Array | Texts
    ) -> tuple[Ints, PlainColumn]:
        offsets = offsets_of(lengths)
        return offsets, replace(self, values=values, parents=offsets)

    def take(self, kept: Ints, offsets: Ints) -> PlainColumn:
        """Give some entries of lists.

        Args:
            kept: Their positions.
            offsets: (n + 1,) of the lists that are left.
        """
        values = self.values
        if isinstance(values, np.ndarray):
            return replace(self, values=values[kept], parents=offsets)
        if isinstance(values, Texts):
            return replace(self, values=values.take(kept), parents=offsets)
        return replace(self, values=[values[at] for at in kept.tolist()], parents=offsets)

    def rows(self, source: IdSource, way: Way, index: KeyIndex | None) -> Ints:
        """Give each value's (V,) row of its table, or (V, K) rows of the unified one.

        Args:
            source: What the schema says of the column.
            way: Of the table.
            index: Of the table's vocabulary, if it has one.

        Raises:
            DataError: A value is no row of the table, is null where nothing stands for null, or
                has another type than the vocabulary's keys.
        """
        if not isinstance(way, UnifiedRows) and way.num_embeddings is not None:
            known = _known_rows(self.values, way.num_embeddings)
            if known is not None:
                return known
        is_null = None
        if NoneType in _types(self.values):
            if source.default is not None:
                filled = [source.default if v is None else v for v in as_list(self.values)]
                return replace(self, values=filled).rows(source, way, index)
            is_null = self.is_null
        if isinstance(way, UnifiedRows):
            return way.rows(self._keys(is_null, None), is_null)
        if way.num_embeddings is not None:
            if is_null is not None:
                self.check(~is_null, rule="has no value", advice="Give one.")
            rule = f"must be a whole number from 0 to {way.num_embeddings - 1}"
            advice = "Give the row of a known id."
            rows = self._integers(None, _INT64, rule=rule, advice=advice)
            self.check((rows >= 0) & (rows < way.num_embeddings), rule=rule, advice=advice)
            return rows
        if way.hash_buckets is not None:
            return hashed_rows(self._keys(is_null, None), way.hash_buckets, is_null)
        assert index is not None
        is_text = None if index.is_empty else index.is_text
        return vocabulary_rows(index, self._keys(is_null, is_text), is_null)

    def numbers(self, *, default: float | None = None, keep_missing: bool = False) -> Array:
        """Give (V,) float32.

        Args:
            default: Stands for null and NaN.
            keep_missing: Without a default, give NaN for null and NaN instead of an error.

        Raises:
            DataError: A value is no number, is infinite (in float32), or missing without a default.
        """
        with np.errstate(over="ignore"):
            numbers: Array = self._read_numbers().astype(np.float32)
        is_finite = np.isfinite(numbers)
        if is_finite.all():
            return numbers
        missing = np.isnan(numbers)
        self.check(is_finite | missing, rule=_FINITE, advice="Clip it.")
        if default is not None:
            numbers[missing] = default
        elif not keep_missing:
            self.check(~missing, rule="has no number", advice="Give one.")
        return numbers

    def whole_numbers(self, *, rule: str, advice: str) -> Ints:
        """Give (V,) whole numbers.

        Args:
            rule: What errors say of one that is none, such as `must be whole seconds`.
            advice: What to do then, as a sentence.

        Raises:
            DataError: A value is null or no whole number of 64 bits.
        """
        return self._integers(None, _INT64, rule=rule, advice=advice)

    def check(self, is_fine: Bools | Sequence[bool], *, rule: str, advice: str) -> None:
        """Check that no value breaks a rule.

        Raises:
            DataError: One does; the first is named.
        """
        fine = np.asarray(is_fine, np.bool_)
        if fine.all():
            return
        bad = np.flatnonzero(~fine)
        first = at = int(bad[0])
        if self.parents is not None:
            at = int(np.searchsorted(self.parents, first, side="right")) - 1
        place = f" in candidate {at}" if self.where == "candidates" else ""
        others = f" and {len(bad) - 1} more after it" if bad[1:].size else ""
        got = shown(self.values[first])
        raise DataError(
            f"{self.where}: column {self.name!r} {rule}. Got {got}{place}{others}. {advice}"
        )

    def _keys(self, is_null: Bools | None, is_text: bool | None) -> Keys:
        """Give the values as texts or as whole numbers; anything where there is none.

        Args:
            is_null: (V,) or none, where no value is null.
            is_text: Which of the two; without it, what the first value is.

        Raises:
            DataError: They are otherwise.
        """
        kind, allowed = "a text" if is_text else "a whole number of 64 bits", _INT64
        rule = f"must be {kind}, as in the training log"
        if is_text is None:
            is_text = isinstance(next((v for v in self.values if v is not None), None), str)
            rule = "must be a text or a whole number of 64 bits, the same in all values"
            allowed = _ANY_64_BITS
        if is_text:
            return self._texts(is_null, rule=rule)
        return self._integers(is_null, allowed, rule=rule, advice="Cast it.")

    def _texts(self, is_null: Bools | None, *, rule: str) -> Texts:
        if isinstance(self.values, Texts):
            return self.values
        values = as_list(self.values)
        if is_null is not None:
            values = ["" if value is None else value for value in values]
        if not _types(values) <= {str}:
            self.check([isinstance(v, str) for v in values], rule=rule, advice="Cast it.")
        try:
            return Texts.of(values)
        except UnicodeEncodeError:
            is_whole = [not any("\ud800" <= one <= "\udfff" for one in v) for v in values]
            rule = "must be a text that UTF-8 can hold, without half a surrogate pair"
            self.check(is_whole, rule=rule, advice="Decode it anew.")
            raise

    def _integers(self, is_null: Bools | None, allowed: range, *, rule: str, advice: str) -> Ints:
        values = self.values
        if _is_array_of(values, "iu"):
            if allowed is _INT64 and values.dtype == np.uint64:
                self.check(values <= _INT64[-1], rule=rule, advice=advice)
            return values.astype(np.int64)
        values = as_list(values)
        if is_null is not None:
            values = [0 if value is None else value for value in values]
        if _types(values) == {int}:
            try:
                return np.array(values, np.int64)
            except OverflowError:
                # One is beyond int64: it may be allowed all the same.
                pass
        self.check([_is_whole(value, allowed) for value in values], rule=rule, advice=advice)
        return np.array([int(value) & _WORD for value in values], np.uint64).view(np.int64)

    def _read_numbers(self) -> Array:
        """Give (V,) numbers of some type, the one that Arrow gives such values; NaN for null."""
        if _is_array_of(self.values, "biuf"):
            values: Array = self.values
            return values
        values = as_list(self.values)
        types = _types(values)
        if not types <= _NUMBERS_OR_NULL:
            is_number = [value is None or _is_number(value) for value in values]
            self.check(is_number, rule="must be a number", advice="Cast it.")
        # Whole numbers keep all their digits; beside null they are float64.
        if NoneType not in types:
            numbers = np.array(values)
            if numbers.dtype.kind in "biuf":
                return numbers
        try:
            return np.array(values, np.float64)
        except OverflowError:
            is_finite = [value is None or not abs(value) > _MAX_FLOAT32 for value in values]
            self.check(is_finite, rule=_FINITE, advice="Clip it.")
            raise


def _known_rows(values: Sequence[Any] | Array | Texts | Ragged, count: int) -> Ints | None:
    """Give values of the usual types as rows of a table of so many, if all are; else none.

    It takes a third of the time that looking at every type takes, and a request has many columns.
    """
    if isinstance(values, np.ndarray):
        if type(values) is not np.ndarray or values.ndim != 1 or values.dtype != np.int64:
            return None
        rows = values.astype(np.int64)
        # As unsigned numbers, negative ones are beyond every table.
        return rows if (rows.view(np.uint64) < count).all() else None
    if len(values) == 1 and type(value := values[0]) is int and 0 <= value < count:
        return np.array([value], np.int64)
    return None


def _is_one_list(value: Any) -> bool:
    return isinstance(value, Texts) or (isinstance(value, np.ndarray) and value.ndim == 1)


def _has_no_objects(values: Any) -> bool:
    return type(values) is np.ndarray and values.dtype.kind != "O"


def _types(values: Sequence[Any] | Array | Texts | Ragged) -> set[type]:
    """Give the types of all values; none for an array that holds no objects."""
    if isinstance(values, np.ndarray) and _has_no_objects(values):
        return {values.dtype.type}
    return {str} if isinstance(values, Texts) else set(map(type, as_list(values)))


def _is_array_of(values: Any, kinds: str) -> TypeGuard[Array]:
    """Tell whether these are V values of such kinds; a masked array has nulls besides."""
    return type(values) is np.ndarray and values.ndim == 1 and values.dtype.kind in kinds


def _is_whole(value: Any, allowed: range) -> bool:
    is_number = isinstance(value, int | np.integer)
    return is_number and not isinstance(value, bool | np.timedelta64) and int(value) in allowed


def _is_number(value: Any) -> bool:
    kinds = int | float | np.integer | np.floating | np.bool_
    return isinstance(value, kinds) and not isinstance(value, np.timedelta64)
