"""From keys to the rows of a table: what the reader and the scorer of single requests share.

A vocabulary's row 0 stands for a missing value, row 1 for a key that it does not have, and its keys
follow from row 2 on. A hashed table's row 0 stands for a missing value.

Shapes: V ids.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rankloom.data.hashing import Keys, hash_ids
from rankloom.data.key_index import KeyIndex

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
