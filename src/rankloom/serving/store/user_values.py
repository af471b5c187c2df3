"""From what Redis holds of a user to columns that can be scored, whatever it holds.

Every value is checked here against its feature, so that a damaged one is read as null instead of
failing in the client's name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np

from rankloom.data.key_index import KeyIndex
from rankloom.data.texts import Texts
from rankloom.schema import (
    DenseFeature,
    Feature,
    IdColumn,
    Schema,
    SequenceFeature,
    SparseFeature,
    VectorFeature,
)
from rankloom.serving.store.fillable import Fillable, fillable
from rankloom.serving.store.user_layout import DamagedError, split_history, typed

_INT64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_FLOAT32 = Annotated[float, msgspec.Meta(ge=-3.4e38, le=3.4e38)]
_NUMBER = _INT64 | _FLOAT32 | bool

_read_object = typed(dict[str, msgspec.Raw])
_NULL = msgspec.Raw(b"null")


@dataclass(frozen=True)
class FoundUser:
    """What is known of one user."""

    values: Mapping[str, Any]
    """Column -> value as a client would send it."""
    num_damaged: int
    """Values and histories that were damaged; they are null."""


class UserValues:
    """Knows which columns users have, and what each may hold.

    Args:
        schema: Of the artifact.
        indexes: Table -> index of its vocabulary's keys, which says of what type ids are.
    """

    def __init__(self, schema: Schema, indexes: Mapping[str, KeyIndex]) -> None:
        self.fillable: Fillable = fillable(schema, "user")
        known = set(self.fillable.columns)
        features = {
            name: one
            for name, one in schema.features.items()
            if one.side == "user" and name not in schema.training_only
        }
        self._checks: dict[str, list[Any]] = {}
        self._sequences: list[SequenceFeature] = []
        self._columns_of: list[list[str]] = []
        self._weighted: list[tuple[str, str]] = []
        ids = {(at.feature, at.name): at for at in schema.id_columns()}
        for name, feature in features.items():
            found = _checks(schema, indexes, ids, name, feature)
            for column, check in found.items():
                if column in known:
                    self._checks.setdefault(column, []).append(check)
            if isinstance(feature, SequenceFeature):
                self._sequences.append(feature)
                self._columns_of.append([column for column in found if column in known])
            elif isinstance(feature, SparseFeature) and feature.weights:
                self._weighted.append((feature.column or name, feature.weights))
        self.histories = frozenset(one for columns in self._columns_of for one in columns)
        """Columns that are appended to."""
        self.first_events = frozenset(one.first_event for one in self._sequences if one.first_event)
        """Columns that are not stored, as they follow from the histories."""

    def decode(
        self, wanted: Sequence[str], text: bytes | None, histories: Mapping[str, bytes | None]
    ) -> FoundUser | None:
        """Give the values of a user.

        Args:
            wanted: The columns.
            text: The user's object; empty if there is none, none if it is too long or no text.
            histories: Column -> its text, likewise.

        Returns:
            None where nothing at all is known of the user.
        """
        if text == b"" and all(one == b"" for one in histories.values()):
            return None
        values: dict[str, Any] = dict.fromkeys(wanted)
        values.update((name, 0) for name in wanted if name in self.first_events)
        plain = [one for one in wanted if one not in histories and one not in self.first_events]
        num_damaged = self._fill_plain(values, plain, text)
        num_damaged += self._fill_histories(values, histories)
        return FoundUser(values, num_damaged)

    def _fill_plain(self, values: dict[str, Any], names: Sequence[str], text: bytes | None) -> int:
        if text == b"" or not names:
            return 0
        try:
            found = _read_object(text if text is not None else b"")
        except DamagedError:
            return 1
        num_damaged = 0
        for name in names:
            try:
                values[name] = _checked(self._checks[name], found.get(name, _NULL))
            except DamagedError:
                num_damaged += 1
        for ids, weights in self._weighted:
            if not {ids, weights} <= values.keys():
                continue
            if _length(values[ids]) != _length(values[weights]):
                values[ids] = values[weights] = None
                num_damaged += 1
        return num_damaged

    def _fill_histories(self, values: dict[str, Any], texts: Mapping[str, bytes | None]) -> int:
        lists: dict[str, list[Any]] = {}
        dropped: dict[str, int] = {}
        bad: set[str] = set()
        for name, text in texts.items():
            try:
                if text is None:
                    raise DamagedError
                dropped[name], events = split_history(text)
                lists[name] = _checked(self._checks[name], events)
            except DamagedError:
                bad.add(name)
        bad = self._spoiled(lists, dropped, bad)
        values.update((name, _packed(one)) for name, one in lists.items() if name not in bad)
        for sequence, columns in zip(self._sequences, self._columns_of, strict=True):
            if sequence.first_event in values and not bad.intersection(columns):
                values[sequence.first_event] = dropped[columns[0]]
        return sum(1 for columns in self._columns_of if bad.intersection(columns))

    def _spoiled(
        self, lists: Mapping[str, list[Any]], dropped: Mapping[str, int], bad: Collection[str]
    ) -> set[str]:
        """Name the columns of histories that hold a damaged one, or do not fit each other."""
        spoiled = set(bad)
        for sequence, columns in zip(self._sequences, self._columns_of, strict=True):
            if columns[0] not in lists and columns[0] not in bad:
                continue
            is_whole = not spoiled.intersection(columns)
            if is_whole:
                is_whole = len({(len(lists[one]), dropped[one]) for one in columns}) == 1
                times = lists[sequence.time] if sequence.time else []
                # Sorting a sorted list is one pass.
                is_whole &= times == sorted(times)
            if not is_whole:
                spoiled.update(*(self.fillable.together[one] for one in columns))
        return spoiled


def _checks(
    schema: Schema,
    indexes: Mapping[str, KeyIndex],
    ids: Mapping[tuple[str, str | None], IdColumn],
    name: str,
    feature: Feature,
) -> dict[str, Any]:
    """Give the stored columns of a feature -> what decodes each."""
    column = feature.column or name
    if isinstance(feature, SequenceFeature):
        found = {
            ids[name, inner].column: typed(*_id_lists(schema, indexes, ids[name, inner]))
            for inner in feature.columns
        }
        return {**found, feature.time: typed(list[_INT64])} if feature.time else found
    if isinstance(feature, DenseFeature):
        return {column: typed(_NUMBER | None)}
    if isinstance(feature, VectorFeature):
        sized = msgspec.Meta(min_length=feature.dim, max_length=feature.dim)
        return {column: typed(Annotated[list[_NUMBER], sized] | None)}
    assert isinstance(feature, SparseFeature)
    at = ids[name, None]
    if feature.pooling is None:
        return {column: typed(*(kind | None for kind in _id_kinds(schema, indexes, at)))}
    found = {column: typed(*(kind | None for kind in _id_lists(schema, indexes, at)))}
    weights = typed(list[_NUMBER | None] | None)
    return {**found, feature.weights: weights} if feature.weights else found


def _id_lists(schema: Schema, indexes: Mapping[str, KeyIndex], at: IdColumn) -> list[Any]:
    way = None if at.lookups is not None else schema.tables().get(at.table)
    as_rows = way is not None and way.num_embeddings is not None
    kinds = _id_kinds(schema, indexes, at)
    if as_rows and at.source.default is None:
        return [list[kind] for kind in kinds]  # type: ignore[valid-type]
    return [list[kind | None] for kind in kinds]  # type: ignore[valid-type]


def _id_kinds(schema: Schema, indexes: Mapping[str, KeyIndex], at: IdColumn) -> list[Any]:
    """List the types that a column's ids may be of, the same for all of a list."""
    way = None if at.lookups is not None else schema.tables().get(at.table)
    if way is not None and way.num_embeddings is not None:
        return [Annotated[int, msgspec.Meta(ge=0, le=way.num_embeddings - 1)]]
    index = indexes.get(at.table)
    if index is None or index.is_empty:
        return [_INT64, str]
    return [str if index.is_text else _INT64]


def _checked(checks: Sequence[Any], text: Any) -> Any:
    """Decode a value that several features may read."""
    value, *_ = [check(text) for check in checks]
    return value


def _packed(values: list[Any]) -> Any:
    """Give a history as an array, which costs nothing on its further way; with null it is none."""
    try:
        if values and isinstance(values[0], int):
            return np.array(values, np.int64)
        return Texts.of(values) if values else values
    except TypeError:
        return values


def _length(values: list[Any] | None) -> int:
    """Count the entries of a list; none stands for one null."""
    return 1 if values is None else len(values)
