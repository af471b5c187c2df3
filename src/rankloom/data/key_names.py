"""Names of the values that `Batch.keys` holds as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rankloom.data.arrow_keys import is_string, keys_of
from rankloom.data.decode import KEY_HASH_SEED, NULL_KEY
from rankloom.data.hashing import hash_keys

MAX_NAMES = 10_000
"""Distinct values kept; columns with more are no use as slices."""


def key_names(files: Sequence[Path], column: str) -> dict[int, str]:
    """Map the keys of a column of texts back to the texts.

    Args:
        files: Parquet files.
        column: Its name.

    Returns:
        Key -> text; for a column of numbers only null's name, the keys being the values.
    """
    names = {int(NULL_KEY): "(null)"}
    for path in files:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=[column]):
                values = batch.column(0)
                while pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
                    values = values.flatten()
                if not is_string(values.type):
                    return names
                texts = pc.drop_null(pc.unique(values))
                keys = hash_keys(keys_of(texts), seed=KEY_HASH_SEED).view(np.int64)
                names.update(zip(keys.tolist(), texts.to_pylist(), strict=True))
                if len(names) > MAX_NAMES:
                    return names
    return names
