"""Parquet files that are whole or absent, with RankLoom's own error when they cannot be written."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rankloom.atomic import replacing
from rankloom.errors import DataError


def write_parquet(table: pa.Table, path: Path, *, row_group_size: int = 1 << 20) -> None:
    """Write a table so that `path` never holds half of it, whatever happens meanwhile.

    Args:
        table: Its schema metadata is kept.
        path: Replaced when it exists; its folder is made when missing.
        row_group_size: Rows of a row group.

    Raises:
        DataError: The folder cannot be written to, or the disk is full.
    """
    try:
        with replacing(path) as temporary:
            pq.write_table(table, temporary, compression="zstd", row_group_size=row_group_size)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written. Got: {error}. "
            "Free space, or choose a folder that you may write to."
        ) from error
