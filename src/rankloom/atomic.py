"""Files and folders that are whole or absent: written elsewhere, then renamed; digests of files."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to; rename it to `path` when the block ends well.

    The folder is made when missing. When the block fails, `path` is as it was and the temporary
    file is gone.

    Args:
        path: Replaced when it exists.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; rename it to `path` when the block ends well.

    When the block fails, nothing of it stays.

    Args:
        path: Absent, or an empty folder.
    """
    # Absolute: `.` has no name.
    place = Path(os.path.abspath(path))  # noqa: PTH100 (a link stays a link)
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        temporary.replace(place)
        sync(place.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_occupied(path: Path) -> bool:
    """Say whether a path is a file, or a folder that holds something."""
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def write_text(path: Path, text: str) -> None:
    """Write a text file that is whole or absent."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sync(path: Path) -> None:
    """Have the system write a file or folder to its disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_digest(path: Path) -> str:
    """Give the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
