"""Whether stored items are what an artifact reads, and whether each of them can be scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa

from rankloom.data.key_index import KeyIndex
from rankloom.data.request import RequestDecoder
from rankloom.data.uses import check_types, feature_uses
from rankloom.errors import DataError, SchemaError, join_problems
from rankloom.schema import Schema
from rankloom.serving.store.items import ItemStore

ITEMS_AT_ONCE = 8192


def check_fit(store: ItemStore, schema: Schema) -> None:
    """Check that the columns have the types that an artifact reads.

    Raises:
        SchemaError: Some have not; all such are named.
    """
    uses = [one for one in feature_uses(schema) if one.is_row and one.column in store.columns]
    problems = check_types(store.schema, uses, "flat")
    if problems:
        raise SchemaError(join_problems(problems, where=str(store.folder)))


def check_items(
    store: ItemStore,
    ids: pa.Array,
    schema: Schema,
    indexes: Mapping[str, KeyIndex],
    *,
    report: Callable[[str, int, int], None] = lambda *_: None,
) -> None:
    """Check that every item is found and can be scored, by the very code that serves it.

    Args:
        store: All items.
        ids: (K,) of them.
        schema: Of the artifact.
        indexes: Table -> index of its vocabulary's keys.
        report: Is told how far it is.

    Raises:
        DataError: One cannot; it is named.
    """
    decoder = RequestDecoder(_only_of(store, schema), indexes)

    def decode(first: int, stop: int) -> None:
        some = ids[first:stop].to_pylist()
        found = store.look_up(some, store.columns)
        assert found.is_missing is None
        decoder.decode({}, {store.item: some, **found.columns})

    for first in range(0, len(ids), ITEMS_AT_ONCE):
        stop = min(first + ITEMS_AT_ONCE, len(ids))
        try:
            decode(first, stop)
        except DataError:
            while stop - first > 1:
                middle = (first + stop) // 2
                try:
                    decode(first, middle)
                    first = middle
                except DataError:
                    stop = middle
            try:
                decode(first, stop)
            except DataError as error:
                problem = str(error).replace(" in candidate 0", "").removeprefix("candidates: ")
                raise DataError(f"item {ids[first].as_py()!r}: {problem}") from None
            raise
        report("checking items", stop, len(ids))


def _only_of(store: ItemStore, schema: Schema) -> Schema:
    """Give a schema of the features that read nothing but the store and the ids."""
    tables = schema.tables()
    way_of = {at.feature: tables.get(at.table) for at in schema.id_columns() if at.name is None}
    read = {store.item, *store.columns}
    ways = ("num_embeddings", "vocabulary", "hash_buckets")
    features = {}
    for name, feature in schema.features.items():
        weights = getattr(feature, "weights", None) or store.item
        if feature.side != "item" or name in schema.training_only:
            continue
        if not {feature.column or name, weights} <= read:
            continue
        # A table may be defined by a feature that is left out.
        way = way_of.get(name)
        update = {key: getattr(way, key) for key in ways} if way is not None else {}
        features[name] = feature.model_copy(update=update)
    return Schema.unchecked(features, roles=schema.roles, tasks={}, unified=schema.unified)
