"""Which columns a store may fill, and where nothing stands for null."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from rankloom.schema import (
    DenseFeature,
    Feature,
    QuantileEncoding,
    Schema,
    SequenceFeature,
    SparseFeature,
    VectorFeature,
)


@dataclass(frozen=True)
class Fillable:
    """The columns that features of one side read."""

    columns: tuple[str, ...]
    """In the order of the features."""
    without_default: Mapping[str, str]
    """Column -> feature that declares nothing for null."""
    together: Mapping[str, frozenset[str]]
    """Column -> columns that only make sense with it: of one history, or ids and their weights."""

    def wanted(self, held: Collection[str], given: Collection[str]) -> list[str]:
        """List the columns to fill.

        Args:
            held: Columns that the store has.
            given: Columns that the client sent. It sends all of a history or none of it: events of
                both would not be the same ones.
        """
        return [
            name
            for name in self.columns
            if name in held and not any(one in given for one in self.together[name])
        ]


def fillable(schema: Schema, side: Literal["user", "item"]) -> Fillable:
    """List what a store may fill of one side; the user's id and the event time are the client's."""
    never = {schema.roles.event_time, schema.roles.user}
    needs: dict[str, str | None] = {}
    groups: list[frozenset[str]] = []
    for name, feature in schema.features.items():
        if feature.side != side or name in schema.training_only:
            continue
        read = {c: n for c, n in columns_of(schema, name, feature).items() if c not in never}
        for column, needs_value in read.items():
            needs[column] = needs.get(column) or (name if needs_value else None)
        groups.append(frozenset(read))
    return Fillable(
        tuple(needs),
        {column: name for column, name in needs.items() if name is not None},
        {column: _joined(column, groups) for column in needs},
    )


def columns_of(schema: Schema, name: str, feature: Feature) -> dict[str, bool]:
    """Give the columns of a feature -> whether null is an error there."""
    if isinstance(feature, SequenceFeature):
        # A null history is an empty one, of which nothing was dropped.
        columns = [at.column for at in schema.id_columns() if at.feature == name]
        columns += [one for one in (feature.time, feature.first_event) if one]
        return dict.fromkeys(columns, False)
    column = feature.column or name
    if isinstance(feature, DenseFeature):
        buckets = isinstance(feature.encode, QuantileEncoding)
        return {column: feature.default is None and not buckets}
    if isinstance(feature, VectorFeature):
        return {column: feature.default is None}
    assert isinstance(feature, SparseFeature)
    at = next(one for one in schema.id_columns() if one.feature == name)
    way = schema.tables().get(at.table)
    as_rows = at.lookups is None and way is not None and way.num_embeddings is not None
    weights = {feature.weights: False} if feature.weights else {}
    return {column: as_rows and feature.default is None, **weights}


def _joined(column: str, groups: list[frozenset[str]]) -> frozenset[str]:
    """Give the columns that a column belongs with, also by way of others."""
    found = frozenset([column])
    while True:
        wider = found.union(*(group for group in groups if group & found))
        if wider == found:
            return found
        found = wider
