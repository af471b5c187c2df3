"""Numbers of one process in a file that other processes read, and that outlives the process.

A number is eight aligned bytes of a memory map, so changing one costs no system call, a reader
sees it whole, and a process that is killed loses nothing. The one that takes its place goes on in
the same file. All of the file's space is taken when it is made: a disk that fills up later cannot
hurt.

Layout, in 64-bit words of this machine's byte order:

    "RLCELLS1"  words in use  process id  record  record ...
    record: bytes of the key, cells, key in UTF-8 (padded with zero bytes to whole words), cells
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

from rankloom.errors import ConfigError

logger = logging.getLogger(__name__)

FILE_BYTES = 1 << 20
SUFFIX = ".cells"
MAGIC = int.from_bytes(b"RLCELLS1", "little")
USED, PROCESS, FIRST_RECORD = 1, 2, 3


class Cells:
    """Named series of float64 numbers, each zero at first.

    Args:
        memory: The file's map.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._words = memoryview(memory).cast("Q")
        self._numbers = memoryview(memory).cast("d")
        self._is_full = False
        if self._words[0] != MAGIC:
            self._words[USED] = FIRST_RECORD
            self._words[0] = MAGIC
        self._words[PROCESS] = os.getpid()
        self._places = {
            key: (first, count) for key, first, count in records(self._words, self._memory)
        }

    @classmethod
    def private(cls) -> Cells:
        """Make cells that only this process can read."""
        return cls(mmap.mmap(-1, FILE_BYTES))

    @classmethod
    def claim(cls, folder: Path, process: str) -> Cells:
        """Open the file of a process, or make it.

        Args:
            folder: Of all processes of one server; made when missing.
            process: The process's name. While another one of that name lives, a number is added.

        Raises:
            ConfigError: The file cannot be written.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            number, name = 1, process
            while (memory := _claimed(folder / f"{name}{SUFFIX}")) is None:
                number += 1
                name = f"{process}-{number}"
        except OSError as error:
            raise ConfigError(
                f"{folder}: the metrics cannot be kept there. Got: {error}. "
                "Free space, or choose a folder that you may write to."
            ) from error
        return cls(memory)

    def series(self, key: str, count: int) -> memoryview[float]:
        """Give (count,) numbers, as they stand; where there is no space, numbers of our own.

        Args:
            key: Names them.
            count: The same each time.
        """
        first, found = self._places.get(key) or (self._append(key, count), count)
        if first is None or found != count:
            return memoryview(bytearray(8 * count)).cast("d")
        return self._numbers[first : first + count]

    def read(self) -> dict[str, list[float]]:
        """Give the numbers of all series."""
        return {
            key: list(self._numbers[first : first + count])
            for key, (first, count) in self._places.items()
        }

    def _append(self, key: str, count: int) -> int | None:
        encoded = key.encode()
        start = self._words[USED]
        first = start + 2 + -(-len(encoded) // 8)
        if first + count > len(self._words):
            if not self._is_full:
                self._is_full = True
                logger.warning("metrics: no space for further series; they are left out")
            return None
        self._words[start], self._words[start + 1] = len(encoded), count
        at = 8 * (start + 2)
        self._memory[at : at + len(encoded)] = encoded
        # Last: a process killed before this leaves the record out.
        self._words[USED] = first + count
        self._places[key] = (first, count)
        return first


def read_file(path: Path) -> tuple[int, dict[str, list[float]]]:
    """Read another process's file.

    Returns:
        The process's id and its series; nothing of a file that is being made.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < FILE_BYTES:
            return 0, {}
        memory = mmap.mmap(file.fileno(), FILE_BYTES, access=mmap.ACCESS_READ)
    with memory, memoryview(memory) as raw, raw.cast("Q") as words, raw.cast("d") as numbers:
        if words[0] != MAGIC:
            return 0, {}
        found = {
            key: list(numbers[first : first + count])
            for key, first, count in records(words, memory)
        }
        return words[PROCESS], found


def records(words: memoryview[int], memory: mmap.mmap) -> Iterator[tuple[str, int, int]]:
    """Go through a file's records.

    Args:
        words: All of the file as unsigned words.
        memory: The same.

    Yields:
        Key, word of the first cell, number of cells.
    """
    at, used = FIRST_RECORD, min(words[USED], len(words))
    while at < used:
        length, count = words[at], words[at + 1]
        first = at + 2 + -(-length // 8)
        yield memory[8 * (at + 2) : 8 * (at + 2) + length].decode(), first, count
        at = first + count


def _claimed(path: Path) -> mmap.mmap | None:
    """Map a file that no living process has; none if one has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # The map keeps the lock, and the system gives it back however the process ends.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Written to without space, a map ends the process.
        os.posix_fallocate(descriptor, 0, FILE_BYTES)
        return mmap.mmap(descriptor, FILE_BYTES)
    except BlockingIOError:
        return None
    finally:
        os.close(descriptor)
