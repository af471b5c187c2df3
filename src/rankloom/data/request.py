"""One user and its candidates, given as plain values, as a batch: what scoring online decodes.

It gives what the reader gives for a line of a grouped log with the same values, to the bit, and
needs neither Arrow nor Parquet, and torch for tensors only.

    decoder = RequestDecoder(schema, indexes)
    batch = decoder.decode({"user_id": 7}, {"item_id": [3, 5]}, {"hour": 20})

Shapes: N candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rankloom.data.columns import Array, Block, Column, Ints, Key, Lists, Plain
from rankloom.data.event_times import age_newest, gaps, newest, runs_backwards
from rankloom.data.id_rows import ways_of
from rankloom.data.key_index import KeyIndex
from rankloom.data.plain_lists import is_list, shown
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

if TYPE_CHECKING:
    from rankloom.data.batch import Batch

Given = Mapping[str, Any]
PLACES: dict[Side, str] = {
    "user": "user",
    "context": "context",
    "item": "candidates",
    "cross": "candidates",
}
"""Side of a feature -> where its columns are given."""
TIME_PLACES = ("user", "context")
"""Where the event time may stand; the first that has it counts."""
MAX_CANDIDATES = 1_000_000

SECONDS = {"rule": "must be whole seconds", "advice": "Give a time, rounded down."}

_Read = tuple[tuple[str, ...], str]
"""The places where a column may stand, and its name."""


class RequestDecoder:
    """Decodes single requests as a schema says.

    Args:
        schema: The features.
        indexes: Table -> index of its vocabulary's keys.
    """

    def __init__(self, schema: Schema, indexes: Mapping[str, KeyIndex]) -> None:
        self.schema = schema
        self._indexes = dict(indexes)
        self._ways = ways_of(schema)
        self._id_columns = {(at.feature, at.name): at for at in schema.id_columns()}
        self._reads = {name: self._reads_of(name, one) for name, one in schema.features.items()}
        self._defaults = {
            name: one.training_only.serving_default
            for name, one in schema.training_only.items()
            if one.training_only is not None
        }
        self._columns = read = self.columns()
        refused = [(name, schema.features[name]) for name in self._defaults]
        self._refused = [
            (PLACES[one.side], one.column or name, self._defaults[name])
            for name, one in refused
            if (one.column or name) not in read[PLACES[one.side]]
        ]

    def decode(
        self,
        user: Given,
        candidates: Given | Sequence[Given],
        context: Given | None = None,
    ) -> Batch:
        """Decode one request to tensors; see `decode_block`."""
        # An HTTP front end decodes requests and has no torch.
        from rankloom.data.tensors import to_batch

        return to_batch(self.decode_block(user, candidates, context))

    def decode_block(
        self,
        user: Given,
        candidates: Given | Sequence[Given],
        context: Given | None = None,
    ) -> Block:
        """Decode one request.

        Args:
            user: Column -> value, of the features of side user.
            candidates: Column -> N values, of the features of side item and cross; or N mappings
                of column -> value.
            context: Column -> value, of the features of side context; and the event time.

        Returns:
            A block of one request with N rows. It shares no memory with what is given.

        Raises:
            DataError: Columns are missing, values are not allowed, there is no candidate, or a
                training-only feature's column is given; all such at once. What no feature reads is
                ignored.
        """
        values = _Request(user, candidates, context, read=self._columns["candidates"])
        requests: dict[Key, Column] = {}
        rows: dict[Key, Column] = {}
        problems = [*values.problems, *self._not_asked_for(values)]
        for name, feature in self.schema.features.items():
            is_row = PLACES[feature.side] == "candidates"
            missing = values.missing(self._reads[name])
            problems += missing
            if missing or (is_row and not values.num_candidates):
                # Without a number of candidates, `values.problems` says why there is none.
                continue
            try:
                (rows if is_row else requests).update(self._feature(values, name, feature))
            except DataError as error:
                problems.append(str(error))
        _refuse(problems)
        offsets = np.array([0, values.num_candidates])
        return Block(requests=requests, rows=rows, row_offsets=offsets, num_requests=1)

    def columns(self) -> dict[str, list[str]]:
        """List the columns that are read: those of `user`, `context` and `candidates`."""
        found: dict[str, dict[str, None]] = {"user": {}, "context": {}, "candidates": {}}
        times = []
        for reads in self._reads.values():
            for places, column in reads:
                if len(places) == 1:
                    found[places[0]][column] = None
                else:
                    times.append(column)
        for column in times:
            if column not in found["user"]:
                found["context"][column] = None
        return {place: list(columns) for place, columns in found.items()}

    def _not_asked_for(self, values: _Request) -> list[str]:
        """List the given columns that only training-only features read."""
        return [
            f"{place}: column {column!r} is of a training-only feature, for which scoring takes "
            f"{shown(default)}. Leave it out."
            for place, column, default in self._refused
            if values.has(place, column)
        ]

    def _reads_of(self, name: str, feature: Feature) -> list[_Read]:
        """List what a feature reads; the event time may stand at either of two places."""
        if name in self.schema.training_only:
            return []
        place = (PLACES[feature.side],)
        if not isinstance(feature, SequenceFeature):
            weights = feature.weights if isinstance(feature, SparseFeature) else None
            return [(place, one) for one in (feature.column or name, weights) if one]
        columns = [self._id_columns[name, inner].column for inner in feature.columns]
        columns += [one for one in (feature.time, feature.first_event) if one]
        reads: list[_Read] = [(place, column) for column in columns]
        if feature.time and self.schema.roles.event_time:
            reads.append((TIME_PLACES, self.schema.roles.event_time))
        return reads

    def _feature(self, values: _Request, name: str, feature: Feature) -> dict[Key, Column]:
        if isinstance(feature, SequenceFeature):
            return self._sequence(values, name, feature)
        at = partial(values.column, (PLACES[feature.side],))
        if name in self._defaults:
            column = values.constant(PLACES[feature.side], name, self._defaults[name])
        else:
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
        at = self._id_columns[name, inner]
        return column.rows(at.source, self._ways[at.table], self._indexes.get(at.table))

    def _sequence(self, values: _Request, name: str, feature: SequenceFeature) -> dict[Key, Column]:
        at = partial(values.column, (PLACES[feature.side],))
        opened = {
            inner: at(self._id_columns[name, inner].column).lists() for inner in feature.columns
        }
        offsets, first = next(iter(opened.values()))
        for other_offsets, other in opened.values():
            _check_same_lengths(offsets, first.name, other_offsets, other)
        dropped, kept_offsets, kept = newest(offsets, feature.max_length)
        found: dict[str, Array] = {}
        for inner, (_, entries) in opened.items():
            left = entries if kept is None else entries.take(kept, kept_offsets)
            found[f"columns/{inner}"] = self._rows(name, inner, left)
        columns: dict[Key, Column] = {}
        if feature.time is not None:
            time_offsets, times = at(feature.time).lists()
            _check_same_lengths(offsets, first.name, time_offsets, times)
            seconds = times.whole_numbers(**SECONDS)
            times.check(
                ~runs_backwards(seconds, offsets),
                rule="must not decrease within a history",
                advice="Sort it by time, the newest event last.",
            )
            for key, gap in gaps(seconds, offsets).items():
                found[f"times/{key}"] = gap if kept is None else gap[kept]
            if self.schema.roles.event_time is not None:
                now = values.column(TIME_PLACES, self.schema.roles.event_time)
                age = age_newest(seconds, offsets, now.whole_numbers(**SECONDS))
                columns["age_newest", name] = Plain(age)
        columns["sequences", name] = Lists(kept_offsets, found)
        if feature.first_event is not None:
            dropped = dropped + at(feature.first_event).whole_numbers(
                rule="must be a whole number",
                advice="Give the absolute number of the first listed event.",
            )
        columns["first_event", name] = Plain(dropped)
        return columns


class _Request:
    """The values of one request, by place and column.

    Args:
        user: Column -> value.
        candidates: Column -> N values, or N mappings of column -> value.
        context: Column -> value, or none.
        read: Columns of the candidates that are read.

    Raises:
        DataError: What is given is of other types.
    """

    def __init__(
        self,
        user: Given,
        candidates: Given | Sequence[Given],
        context: Given | None,
        *,
        read: Sequence[str],
    ) -> None:
        wide = {"user": user, "context": {} if context is None else context}
        problems = [
            f"{where}: must be a mapping of columns to values. Got {shown(given)}. Give a dict."
            for where, given in wide.items()
            if not isinstance(given, Mapping)
        ]
        if not _are_candidates(candidates):
            problems.append(
                "candidates: must be a mapping of columns to lists, or a list of mappings. Got "
                f"{shown(candidates)}. Give one, such as {{'item': [3, 5]}}."
            )
        _refuse(problems)
        self._given = {**wide, "candidates": candidates}
        self._lacking: dict[str, int] = {}
        if not isinstance(candidates, Mapping):
            candidates = self._transposed(candidates, read)
        self._places: dict[str, Given] = {**wide, "candidates": candidates}
        self.num_candidates = 0
        """N, or 0 where the candidates are wrong."""
        self.problems = self._count_candidates(candidates, read)
        """What is wrong with all candidates."""

    def _transposed(self, candidates: Sequence[Given], read: Sequence[str]) -> Given:
        """Give columns of values; one that a candidate lacks is left out, and remembered."""
        columns: dict[str, Any] = {}
        for name in read or (candidates[0] if candidates else ()):
            try:
                columns[name] = [one[name] for one in candidates]
            except KeyError:
                lacking = [name not in one for one in candidates]
                self._lacking[name] = lacking.index(True)
        return columns

    def _count_candidates(self, candidates: Given, read: Sequence[str]) -> list[str]:
        # If nothing is read of the candidates, any column tells how many there are.
        columns = {name: candidates[name] for name in read or candidates if name in candidates}
        problems = [
            f"candidates: column {name!r} must be a list of one value for each candidate. Got "
            f"{shown(values)}. Give a list."
            for name, values in columns.items()
            if not is_list(values)
        ]
        lengths = {name: len(values) for name, values in columns.items() if is_list(values)}
        counts = set(lengths.values())
        if len(counts) > 1:
            got = ", ".join(f"{name}: {length}" for name, length in lengths.items())
            problems.append(
                f"candidates: all columns must have one length. Got {got}. "
                "Give one value for each candidate."
            )
        elif not counts and not problems:
            problems += self.missing([(("candidates",), name) for name in read])
        if problems:
            return problems
        count = counts.pop() if counts else 0
        if not 0 < count <= MAX_CANDIDATES:
            problems.append(
                f"candidates: their number must be 1 to {MAX_CANDIDATES}. Got {count}. "
                "Give at least one, or ask several times."
            )
        else:
            self.num_candidates = count
        return problems

    def missing(self, reads: Sequence[_Read]) -> list[str]:
        """List the columns that are missing, a line each."""
        problems = []
        for places, name in reads:
            if any(name in self._places[place] for place in places):
                continue
            given = [self._places[place] for place in places]
            at = f" in candidate {self._lacking[name]}" if name in self._lacking else ""
            names = [one for place in given for one in place if isinstance(one, str)]
            problems.append(
                f"{' or '.join(places)}: column {name!r} is missing{at}."
                f"{did_you_mean(name, names)} Give its value, or None where there is none."
            )
        return problems

    def column(self, places: tuple[str, ...], name: str) -> PlainColumn:
        """Give a column that is not missing."""
        place = places[0]
        if len(places) > 1:
            place = next(one for one in places if name in self._places[one])
        values = self._places[place][name]
        return PlainColumn(name, values if place == "candidates" else [values], place)

    def constant(self, place: str, name: str, value: Any) -> PlainColumn:
        """Give a column that has one value everywhere, whatever is given."""
        count = self.num_candidates if place == "candidates" else 1
        return PlainColumn(name, [value] * count, place)

    def has(self, place: str, name: str) -> bool:
        """Tell whether a column is given, be it for some candidates only."""
        given = self._given[place]
        return name in given if isinstance(given, Mapping) else any(name in one for one in given)


def _are_candidates(given: Any) -> bool:
    if isinstance(given, Mapping):
        return True
    is_list = isinstance(given, Sequence) and not isinstance(given, str | bytes)
    return is_list and all(isinstance(one, Mapping) for one in given)


def _refuse(problems: list[str]) -> None:
    """Raise all problems as one error, each once.

    Raises:
        DataError: There is a problem.
    """
    if problems:
        problems = list(dict.fromkeys(problems))
        raise DataError(join_problems(problems, where="request" if problems[1:] else ""))


def _check_same_lengths(offsets: Ints, name: str, other_offsets: Ints, other: PlainColumn) -> None:
    if not np.array_equal(offsets, other_offsets):
        at = int(np.flatnonzero(np.diff(offsets) != np.diff(other_offsets))[0])
        place = f" in candidate {at}" if other.where == "candidates" else ""
        raise DataError(
            f"{other.where}: column {other.name!r} must have lists as long as {name!r}. Got "
            f"{np.diff(other_offsets)[at]} entries beside {np.diff(offsets)[at]}{place}. "
            "Give one entry of each."
        )


def _vectors(column: PlainColumn, feature: VectorFeature) -> Array:
    """Give (n, dim) float32."""
    offsets, entries = column.lists()
    lengths, is_null = np.diff(offsets), column.is_null
    if feature.default != "zeros":
        column.check(~is_null, rule="has no value", advice="Give a vector.")
    column.check(
        (lengths == feature.dim) | is_null,
        rule=f"must have {feature.dim} numbers",
        advice="Give a vector of the width it was trained with.",
    )
    numbers = entries.numbers().reshape(-1, feature.dim)
    if not is_null.any():
        return numbers
    vectors = np.zeros((len(column), feature.dim), np.float32)
    vectors[~is_null] = numbers
    return vectors
