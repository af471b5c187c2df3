"""Ids that vocabularies do not have, counted in decoded requests."""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from rankloom.data.columns import Array, Block, Key, Lists
from rankloom.data.id_rows import UNKNOWN_ROW
from rankloom.schema import Schema

_UNKNOWN = np.array(UNKNOWN_ROW)


class _IdsOf(NamedTuple):
    """Where a block has the ids of one column that a vocabulary turns into rows."""

    feature: str
    """`feature`, or `sequence.column`."""
    key: Key
    """Of the block's column."""
    inner: str
    """Name of the values if the column has lists."""
    is_row: bool
    """Whether each candidate has its own."""


def oov_counts(block: Block, schema: Schema) -> dict[str, int]:
    """Count the ids that vocabularies do not have; features without any are left out.

    Hashed tables, the unified one and tables of given rows know no unknown id. Of a history, the
    events that were kept are counted.

    Args:
        block: Decoded requests.
        schema: They were decoded by.

    Returns:
        `feature` or `sequence.column` -> ids.
    """
    places = _vocabulary_ids(schema)
    ids: list[Array] = []
    for place in places:
        column = (block.rows if place.is_row else block.requests)[place.key]
        ids.append(column.values[place.inner] if isinstance(column, Lists) else column.values)
    if not ids:
        return {}
    # Compared all at once: most of the time for a few hundred ids is that of the call.
    (unknown,) = (np.concatenate(ids) == _UNKNOWN).nonzero()
    ends = list(accumulate(map(len, ids)))
    counts = np.bincount(np.searchsorted(ends, unknown, side="right"), minlength=len(ids))
    return {place.feature: n for place, n in zip(places, counts.tolist(), strict=True) if n}


# A schema is equal only to itself; a server has one, or two while it changes to another.
@lru_cache(maxsize=2)
def _vocabulary_ids(schema: Schema) -> tuple[_IdsOf, ...]:
    tables = schema.tables()
    found = []
    for at in schema.id_columns():
        table = tables.get(at.table)
        if at.feature in schema.training_only or table is None or table.vocabulary is None:
            continue
        is_row = schema.features[at.feature].side in {"item", "cross"}
        if at.name is None:
            found.append(_IdsOf(at.feature, ("ids", at.feature), "ids", is_row))
        else:
            inner = f"columns/{at.name}"
            place = _IdsOf(f"{at.feature}.{at.name}", ("sequences", at.feature), inner, is_row)
            found.append(place)
    return tuple(found)
