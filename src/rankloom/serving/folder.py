"""A server's own folder in memory, for its socket and its processes' counts.

It goes with the server. One whose supervisor was killed is left behind, and removed by the next
server of the same user: a lock tells whether anyone still has it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 (a folder of our own is made in it)
PREFIX = "rankloom-"
LOCK = "supervisor.lock"


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """Give a new folder until the end, and remove those that nobody has any more."""
    parent = MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    _remove_abandoned(parent)
    # It has its name only once it is locked, so that no server takes it for abandoned.
    made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=parent))
    # Children do not inherit the lock: it ends with this process, however that ends.
    with (made / LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = made.rename(parent / made.name.removeprefix("."))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        # Others may remove it at the same time, and folders of other users or without a lock are
        # none of ours.
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid != os.geteuid():
                continue
            with (folder / LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
