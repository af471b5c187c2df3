"""Python's values and NumPy arrays as columns, with every value checked; needs no Arrow.

Shapes: V values.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rankloom.data.columns import Array, Bools, Ints, offsets_of
from rankloom.data.hashing import Keys
from rankloom.data.id_rows import hashed_rows, vocabulary_rows
from rankloom.data.key_index import KeyIndex
from rankloom.data.texts import Texts
from rankloom.errors import DataError
from rankloom.schema import IdSource

MAX_INT64 = 2**63 - 1


@dataclass(frozen=True)
class PlainColumn:
    """Values of one column: of the user, of the context, or one for each candidate."""

    name: str
    values: Sequence[Any] | Array
    where: str
    """`user`, `context` or `candidates`."""
    parents: Ints | None = None
    """(n + 1,) offsets of the lists that the values were taken out of."""

    def __len__(self) -> int:
        return len(self.values)

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
        if isinstance(self.values, np.ndarray) and self.values.ndim == 2:
            count, length = self.values.shape
            return self._opened(np.full(count, length), self.values.reshape(-1))
        lengths, parts, problems = np.zeros(len(self), np.int64), [], np.zeros(len(self), bool)
        for at, value in enumerate(self.values):
            part = ([None] if null_is_one else []) if value is None else value
            if isinstance(part, np.ndarray) and part.ndim == 1:
                part = part.tolist()
            problems[at] = not isinstance(part, list | tuple)
            if not problems[at]:
                lengths[at] = len(part)
                parts.append(part)
        self.check(~problems, rule="must be a list", advice="Give a list of values.")
        return self._opened(lengths, [one for part in parts for one in part])

    def _opened(self, lengths: Ints, values: Sequence[Any] | Array) -> tuple[Ints, PlainColumn]:
        offsets = offsets_of(lengths)
        return offsets, replace(self, values=values, parents=offsets)

    def rows(self, source: IdSource, way: IdSource, index: KeyIndex | None) -> Ints:
        """Give each value's (V,) row of its table.

        Args:
            source: What the schema says of the column.
            way: What it says of the table.
            index: Of the table's vocabulary, if it has one.

        Raises:
            DataError: A value is no row of the table, is null where nothing stands for null, or
                has another type than the vocabulary's keys.
        """
        keys, is_null = self._keys(source.default)
        if way.num_embeddings is not None:
            if is_null is not None:
                self.check(~is_null, rule="has no value", advice="Give one.")
            is_fine = self._whole(keys)
            is_fine &= (keys >= 0) & (keys < way.num_embeddings)  # type: ignore[operator]
            rule = f"must be a whole number from 0 to {way.num_embeddings - 1}"
            self.check(is_fine, rule=rule, advice="Give the row of a known id.")
            rows: Ints = keys  # type: ignore[assignment]
            return rows
        if index is None:
            assert way.hash_buckets is not None
            return hashed_rows(keys, way.hash_buckets, is_null)
        is_known_type = index.is_empty or (is_null is not None and bool(is_null.all()))
        if not is_known_type and isinstance(keys, Texts) != index.is_text:
            kind = "a text" if index.is_text else "a whole number"
            self.check(
                np.zeros(len(self), bool) if is_null is None else is_null,
                rule=f"must be {kind}, as in the training log",
                advice="Cast it.",
            )
        if is_null is not None and is_null.all():
            keys = Texts.of([""] * len(self)) if index.is_text else np.zeros(len(self), np.int64)
        return vocabulary_rows(index, keys, is_null)

    def numbers(self, *, default: float | None = None, keep_missing: bool = False) -> Array:
        """Give (V,) float32.

        Args:
            default: Stands for null and NaN.
            keep_missing: Without a default, give NaN for null and NaN instead of an error.

        Raises:
            DataError: A value is no number, is infinite (in float32), or missing without a default.
        """
        values = self.values
        if not isinstance(values, np.ndarray):
            is_number = np.array(
                [v is None or isinstance(v, int | float | np.number | np.bool_) for v in values],
                bool,
            )
            self.check(is_number, rule="must be a number", advice="Cast it.")
            values = np.array([np.nan if v is None else v for v in values], np.float64)
        elif values.dtype.kind not in "biuf":
            self.check(np.zeros(len(self), bool), rule="must be a number", advice="Cast it.")
        with np.errstate(over="ignore"):
            numbers: Array = values.astype(np.float32)
        missing = np.isnan(numbers)
        self.check(
            np.isfinite(numbers) | missing, rule="must be finite (below 3.4e38)", advice="Clip it."
        )
        if default is not None:
            numbers[missing] = default
        elif not keep_missing:
            self.check(~missing, rule="has no number", advice="Give one.")
        return numbers

    def seconds(self) -> Ints:
        """Give (V,) whole seconds.

        Raises:
            DataError: A value is null or no whole number.
        """
        keys, is_null = self._keys(None)
        is_fine = self._whole(keys)
        if is_null is not None:
            is_fine &= ~is_null
        self.check(is_fine, rule="must be whole seconds", advice="Give a time, rounded down.")
        seconds: Ints = keys  # type: ignore[assignment]
        return seconds

    def check(self, is_fine: Bools, *, rule: str, advice: str) -> None:
        """Check that no value breaks a rule.

        Raises:
            DataError: One does; the first is named.
        """
        if is_fine.all():
            return
        bad = np.flatnonzero(~is_fine)
        first = int(bad[0])
        value = self.values[first]
        got = "null" if value is None else reprlib.repr(value)
        at = first
        if self.parents is not None:
            at = int(np.searchsorted(self.parents, first, side="right")) - 1
        place = f" in candidate {at}" if self.where == "candidates" else ""
        others = f" and {len(bad) - 1} more after it" if bad[1:].size else ""
        raise DataError(
            f"{self.where}: column {self.name!r} {rule}. Got {got}{place}{others}. {advice}"
        )

    def _keys(self, default: int | str | None) -> tuple[Keys, Bools | None]:
        """Give the values as whole numbers or as texts, and where there is none.

        Raises:
            DataError: They are neither.
        """
        values = self.values
        if isinstance(values, np.ndarray):
            if values.dtype.kind == "i" or (values.dtype.kind == "u" and values.dtype.itemsize < 8):
                return values.astype(np.int64), None
            values = values.tolist()
        filled = [default if value is None else value for value in values]
        is_null = np.fromiter((value is None for value in filled), bool, len(filled))
        nulls = is_null if is_null.any() else None
        if all(isinstance(v, str) for v in filled if v is not None) and not is_null.all():
            return Texts.of([str(value or "") for value in filled]), nulls
        is_key = np.array([v is None or _is_int64(v) for v in filled], bool)
        self.check(
            is_key,
            rule="must be a whole number or a text, the same in all values",
            advice="Cast it.",
        )
        return np.array([0 if value is None else value for value in filled], np.int64), nulls

    def _whole(self, keys: Keys) -> Bools:
        """Mark the whole numbers: all or none."""
        return np.full(len(self), not isinstance(keys, Texts))


def _is_int64(value: Any) -> bool:
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return is_whole and -MAX_INT64 - 1 <= value <= MAX_INT64
