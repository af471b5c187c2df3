"""From keys to the rows of a table: what the reader and the scorer of single requests share.

A vocabulary's row 0 stands for a missing value, row 1 for a key that it does not have, and its keys
follow from row 2 on. A hashed table's row 0 stands for a missing value.

In the unified table, the n-th row of a value x of table t is, with the hashes of `hashing`,

    hash(x) % hash_buckets  under the seed  hash(t) under the seed n,   n = 0, 1, ...

where a text x is first replaced by its hash under seed 0; a missing value's row, the same for every
n, is hash_buckets + the place of t among the tables that the unified one keeps. A trained model
depends on this definition.

Shapes: V ids, K lookups a value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rankloom.data.hashing import Keys, hash_ids, hash_keys
from rankloom.data.key_index import KeyIndex
from rankloom.data.texts import Texts
from rankloom.schema import UNIFIED, IdSource, Schema

MISSING_ROW = 0
UNKNOWN_ROW = 1
FIRST_KEY_ROW = 2
FIRST_HASH_ROW = 1
ID_HASH_SEED = 0
"""Salt of `hash_buckets`: one for all, so features that share a table agree."""


def vocabulary_rows(
    index: KeyIndex, keys: Keys, is_missing: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.int64]:
    """Give each key's row of a table with a vocabulary.

    Args:
        index: Of the vocabulary's keys.
        keys: (V,) of their type; anything where one is missing.
        is_missing: (V,) or none, where no key is missing.
    """
    rows = np.full(len(keys), -1) if index.is_empty else index.find(keys)
    # Position -1 means unknown: it becomes row 1.
    rows += FIRST_KEY_ROW
    if is_missing is not None:
        rows[is_missing] = MISSING_ROW
    return rows


def hashed_rows(
    keys: Keys, num_buckets: int, is_missing: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.int64]:
    """Give each key's row of a hashed table.

    Args:
        keys: (V,); anything where one is missing.
        num_buckets: Of the table.
        is_missing: (V,) or none, where no key is missing.
    """
    rows = hash_ids(keys, num_buckets=num_buckets, seed=ID_HASH_SEED)
    rows += FIRST_HASH_ROW
    if is_missing is not None:
        rows[is_missing] = MISSING_ROW
    return rows


@dataclass(frozen=True)
class UnifiedRows:
    """How the values of one table become rows of the unified one."""

    seeds: tuple[int, ...]
    """(K,) one for each lookup."""
    hash_buckets: int
    """Rows that all tables share."""
    missing_row: int
    """The table's own row, for a missing value."""

    def rows(self, keys: Keys, is_missing: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.int64]:
        """Give each key's (V, K) rows.

        Args:
            keys: (V,); anything where one is missing.
            is_missing: (V,) or none, where no key is missing.
        """
        # A text is read once, however many lookups there are.
        words = hash_keys(keys, seed=ID_HASH_SEED) if isinstance(keys, Texts) else keys
        rows = np.empty((len(keys), len(self.seeds)), np.int64)
        for number, seed in enumerate(self.seeds):
            rows[:, number] = hash_ids(words, num_buckets=self.hash_buckets, seed=seed)
        if is_missing is not None:
            rows[is_missing] = self.missing_row
        return rows


Way = IdSource | UnifiedRows
"""How values become rows: as a table's definition says, or as the unified table does."""


def ways_of(schema: Schema) -> dict[str, Way]:
    """Give how the values of each table become rows."""
    ways: dict[str, Way] = dict(schema.tables())
    if schema.unified is not None:
        buckets = schema.unified.hash_buckets
        for place, (table, lookups) in enumerate(schema.unified_tables().items()):
            name = Texts.of([table])
            seeds = tuple(int(hash_keys(name, seed=number)[0]) for number in range(lookups))
            ways[table] = UnifiedRows(seeds, buckets, buckets + place)
    return ways


def unified_sizes(schema: Schema) -> dict[str, int]:
    """Give the unified table's number of rows; nothing if there is none."""
    kept = schema.unified_tables()
    if schema.unified is None or not kept:
        return {}
    return {UNIFIED: schema.unified.hash_buckets + len(kept)}
