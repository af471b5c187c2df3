"""What all data sets share: finding files, reading compressed text and writing splits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from rankloom.data.atomic import write_parquet
from rankloom.data.datasets import local_folder
from rankloom.errors import DataError

# Small enough that shuffling over row groups mixes well on a data set of this size.
ROW_GROUP_SIZE = 16_384


def write_splits(splits: Mapping[str, pa.Table], folder: Path) -> dict[str, int]:
    """Write each split as `<folder>/<split>/part-0.parquet`.

    A run that is interrupted leaves splits out, never splits of two different runs together.

    Returns:
        Number of rows by split.

    Raises:
        DataError: The folder cannot be written to, or the disk is full.
    """
    paths = {name: folder / name / "part-0.parquet" for name in splits}
    for path in paths.values():
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(
                f"{path}: cannot be replaced. Got: {error}. Choose a folder that you may write to."
            ) from error
    for name, table in splits.items():
        write_parquet(table, paths[name], row_group_size=ROW_GROUP_SIZE)
    return {name: len(table) for name, table in splits.items()}


def read_bytes(path: Path) -> bytes:
    """Read a file, decompressed when its name ends in `.zst` or `.gz`.

    Raises:
        DataError: It cannot be read or decompressed.
    """
    compression = {".zst": "zstd", ".gz": "gzip"}.get(path.suffix)
    try:
        with pa.input_stream(str(path), compression=compression) as stream:
            return bytes(stream.read())
    except OSError as error:
        raise DataError(f"{path}: cannot be read. Got: {error}. Restore the file.") from error


def find_folder(*names: str, advice: str) -> Path:
    """Give the first of several folders that exists in `$RANKLOOM_DATA`.

    Args:
        names: Such as that of the official files, then that of a sample of them.
        advice: Ends the message.

    Raises:
        DataError: None does.
    """
    found = [folder for folder in map(local_folder, names) if folder is not None]
    if not found:
        folders = " or ".join(f"$RANKLOOM_DATA/{name}" for name in names)
        raise DataError(f"{names[0]}: the folder {folders} is absent. {advice}")
    return found[0]


def first_existing(folder: Path, names: tuple[str, ...], *, advice: str) -> Path:
    """Give the first of several file names that exists.

    Raises:
        DataError: None does; the message ends with `advice`.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder}: holds none of {', '.join(names)}. {advice}")
