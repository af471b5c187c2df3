"""One user and its candidates, given as plain values, as a batch: what scoring online decodes.

It gives what the reader gives for a line of a grouped log with the same values, to the bit, and
needs neither Arrow nor Parquet.

    decoder = RequestDecoder(schema, indexes)
    batch = decoder.decode({"user_id": 7}, {"item_id": [3, 5]}, {"hour": 20})

Shapes: N candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from rankloom.data.batch import Batch
from rankloom.data.columns import Array, Block, Column, Ints, Key, Lists, Plain
from rankloom.data.event_times import age_newest, gaps, newest, runs_backwards
from rankloom.data.key_index import KeyIndex
from rankloom.data.plain_values import PlainColumn
from rankloom.errors import DataError, did_you_mean, join_problems
from rankloom.schema import (
    DenseFeature,
    Feature,
    QuantileEncoding,
    Schema,
    SequenceFeature,
    Side,
    SparseFeature,
    VectorFeature,
)

Given = Mapping[str, Any]
PLACES: dict[Side, str] = {
    "user": "user",
    "context": "context",
    "item": "candidates",
    "cross": "candidates",
}
"""Side of a feature -> where its columns are given."""
MAX_CANDIDATES = 1_000_000


class RequestDecoder:
    """Decodes single requests as a schema says.

    Args:
        schema: The features.
        indexes: Table -> index of its vocabulary's keys.
    """

    def __init__(self, schema: Schema, indexes: Mapping[str, KeyIndex]) -> None:
        self.schema = schema
        self._indexes = dict(indexes)
        self._tables = schema.tables()
        self._columns = {(at.feature, at.name): at for at in schema.id_columns()}

    def decode(
        self,
        user: Given,
        candidates: Given | Sequence[Given],
        context: Given | None = None,
    ) -> Batch:
        """Decode one request.

        Args:
            user: Column -> value, of the features of side user.
            candidates: Column -> N values, of the features of side item and cross; or N mappings
                of column -> value.
            context: Column -> value, of the features of side context; and the event time.

        Returns:
            A batch of one request with N rows.

        Raises:
            DataError: Columns are missing, values are not allowed, or there is no candidate; all
                such at once. What no feature reads is ignored.
        """
        values = _Request.of(user, candidates, context)
        requests: dict[Key, Column] = {}
        rows: dict[Key, Column] = {}
        problems = []
        for is_row, decode_part in self._parts(values):
            try:
                (rows if is_row else requests).update(decode_part())
            except DataError as error:
                problems.append(str(error))
        if problems:
            problems = list(dict.fromkeys(problems))
            raise DataError(join_problems(problems, where="request" if problems[1:] else ""))
        offsets = np.array([0, values.num_candidates])
        block = Block(requests=requests, rows=rows, row_offsets=offsets, num_requests=1)
        return block.to_batch()

    def columns(self) -> dict[str, list[str]]:
        """List the columns that are read: those of `user`, `context` and `candidates`."""
        found: dict[str, list[str]] = {"user": [], "context": [], "candidates": []}
        for name, feature in self.schema.features.items():
            place = found[PLACES[feature.side]]
            place += [one for one in self._columns_of(name, feature) if one not in place]
        event_time = self.schema.roles.event_time
        has_times = any(one.time for one in self.schema.sequences.values())
        if event_time and has_times and event_time not in found["context"] + found["user"]:
            found["context"].append(event_time)
        return found

    def _columns_of(self, name: str, feature: Feature) -> list[str]:
        if isinstance(feature, SequenceFeature):
            further = [one for one in (feature.time, feature.first_event) if one]
            return [*(self._columns[name, inner].column for inner in feature.columns), *further]
        weights = feature.weights if isinstance(feature, SparseFeature) else None
        return [feature.column or name, *([weights] if weights else [])]

    def _parts(self, values: _Request) -> Iterator[tuple[bool, Callable[[], dict[Key, Column]]]]:
        """Give what there is to decode, and whether it has one entry per candidate."""
        for name, feature in self.schema.features.items():
            is_row = PLACES[feature.side] == "candidates"
            yield is_row, partial(self._feature, values, name, feature)

    def _feature(self, values: _Request, name: str, feature: Feature) -> dict[Key, Column]:
        if isinstance(feature, SequenceFeature):
            return self._sequence(values, name, feature)
        at = partial(values.column, PLACES[feature.side])
        column = at(feature.column or name)
        if isinstance(feature, SparseFeature):
            if feature.pooling is None:
                return {("ids", name): Plain(self._rows(name, None, column))}
            offsets, entries = column.lists(null_is_one=True)
            found: dict[str, Array] = {"ids": self._rows(name, None, entries)}
            if feature.weights:
                weight_offsets, weights = at(feature.weights).lists(null_is_one=True)
                _check_same_lengths(offsets, column.name, weight_offsets, weights)
                found["weights"] = weights.numbers(default=1.0)
            return {("ids", name): Lists(offsets, found)}
        if isinstance(feature, DenseFeature):
            keep_missing = isinstance(feature.encode, QuantileEncoding)
            numbers = column.numbers(default=feature.default, keep_missing=keep_missing)
            return {("numbers", name): Plain(numbers)}
        assert isinstance(feature, VectorFeature)
        return {("vectors", name): Plain(_vectors(column, feature))}

    def _rows(self, name: str, inner: str | None, column: PlainColumn) -> Ints:
        at = self._columns[name, inner]
        return column.rows(at.source, self._tables[at.table], self._indexes.get(at.table))

    def _sequence(self, values: _Request, name: str, feature: SequenceFeature) -> dict[Key, Column]:
        at = partial(values.column, PLACES[feature.side])
        opened = {inner: at(self._columns[name, inner].column).lists() for inner in feature.columns}
        offsets, first = next(iter(opened.values()))
        for other_offsets, other in opened.values():
            _check_same_lengths(offsets, first.name, other_offsets, other)
        dropped, kept_offsets, kept = newest(offsets, feature.max_length)
        found: dict[str, Array] = {}
        for inner, (_, entries) in opened.items():
            rows = self._rows(name, inner, entries)
            found[f"columns/{inner}"] = rows if kept is None else rows[kept]
        columns: dict[Key, Column] = {}
        if feature.time is not None:
            time_offsets, times = at(feature.time).lists()
            _check_same_lengths(offsets, first.name, time_offsets, times)
            seconds = times.seconds()
            times.check(
                ~runs_backwards(seconds, offsets),
                rule="must not decrease within a history",
                advice="Sort it by time, the newest event last.",
            )
            for key, gap in gaps(seconds, offsets).items():
                found[f"times/{key}"] = gap if kept is None else gap[kept]
            if self.schema.roles.event_time is not None:
                now = values.event_time(self.schema.roles.event_time).seconds()
                columns["age_newest", name] = Plain(age_newest(seconds, offsets, now))
        columns["sequences", name] = Lists(kept_offsets, found)
        listed = at(feature.first_event).seconds() if feature.first_event else 0
        columns["first_event", name] = Plain(listed + dropped)
        return columns


class _Request:
    """The values of one request, by place and column."""

    def __init__(self, places: Mapping[str, Given], num_candidates: int) -> None:
        self._places = places
        self.num_candidates = num_candidates

    @classmethod
    def of(
        cls, user: Given, candidates: Given | Sequence[Given], context: Given | None
    ) -> _Request:
        problems = [
            f"{where}: must be a mapping of columns to values. Got {type(given).__name__}."
            for where, given in (("user", user), ("context", context or {}))
            if not isinstance(given, Mapping)
        ]
        if not isinstance(candidates, Mapping):
            is_list = isinstance(candidates, Sequence) and all(
                isinstance(one, Mapping) for one in candidates
            )
            if not is_list:
                problems.append(
                    "candidates: must be a mapping of columns to lists, or a list of mappings. Got "
                    f"{type(candidates).__name__}."
                )
            else:
                candidates = _transposed(candidates)
        if problems:
            raise DataError(join_problems(problems, where="request" if problems[1:] else ""))
        assert isinstance(candidates, Mapping)
        lengths = {name: _length(values) for name, values in candidates.items()}
        counts = {one for one in lengths.values() if one is not None}
        if len(counts) != 1 or None in lengths.values():
            raise DataError(
                "candidates: every column needs a list, all of one length. Got "
                + (", ".join(f"{name}: {n}" for name, n in lengths.items()) or "no column")
                + ". Give one value for each candidate."
            )
        count = counts.pop()
        if not 0 < count <= MAX_CANDIDATES:
            raise DataError(f"candidates: must be 1 to {MAX_CANDIDATES}. Got {count}.")
        places = {"user": user, "context": context or {}, "candidates": candidates}
        return cls(places, count)

    def column(self, place: str, name: str) -> PlainColumn:
        """Give a column.

        Raises:
            DataError: It is missing.
        """
        given = self._places[place]
        if name not in given:
            raise DataError(
                f"{place}: column {name!r} is missing.{did_you_mean(name, given)} "
                "Give its value, or None where there is none."
            )
        values = given[name] if place == "candidates" else [given[name]]
        return PlainColumn(name, values, place)

    def event_time(self, name: str) -> PlainColumn:
        """Give the request's time, which may stand in the context or with the user."""
        return self.column("user" if name in self._places["user"] else "context", name)


def _transposed(candidates: Sequence[Given]) -> Given:
    """Give columns of values; a column that one mapping lacks is left out."""
    shared = set(candidates[0]) if candidates else set()
    for one in candidates:
        shared &= one.keys()
    return {
        name: [one[name] for one in candidates]
        for name in (candidates or [{}])[0]
        if name in shared
    }


def _length(values: Any) -> int | None:
    is_list = isinstance(values, list | tuple | np.ndarray) and np.ndim(values[:0]) > 0
    return len(values) if is_list else None


def _check_same_lengths(offsets: Ints, name: str, other_offsets: Ints, other: PlainColumn) -> None:
    if not np.array_equal(offsets, other_offsets):
        at = int(np.flatnonzero(np.diff(offsets) != np.diff(other_offsets))[0])
        place = f" in candidate {at}" if other.where == "candidates" else ""
        raise DataError(
            f"{other.where}: column {other.name!r} must have lists as long as {name!r}. Got "
            f"{np.diff(other_offsets)[at]} entries beside {np.diff(offsets)[at]}{place}."
        )


def _vectors(column: PlainColumn, feature: VectorFeature) -> Array:
    """Give (n, dim) float32."""
    offsets, entries = column.lists()
    is_null = np.array([value is None for value in column.values], bool)
    if feature.default != "zeros":
        column.check(~is_null, rule="has no value", advice="Give a vector.")
    column.check(
        (np.diff(offsets) == feature.dim) | is_null,
        rule=f"must have {feature.dim} numbers",
        advice="Give a vector of the width it was trained with.",
    )
    vectors = np.zeros((len(column), feature.dim), np.float32)
    vectors[~is_null] = entries.numbers().reshape(-1, feature.dim)
    return vectors
