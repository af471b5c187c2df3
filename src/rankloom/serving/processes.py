"""What all processes of a server have in common; needs no torch.

The supervisor hands each child its settings as JSON on the command line, and the reading end of a
pipe: when that ends, the supervisor is gone, however it went, and the child ends too.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TypeVar

from rankloom.config import Config

SWITCH_INTERVAL_S = 5e-4
"""Longest that one thread keeps Python from the other: a tenth of Python's own value."""
C = TypeVar("C", bound=Config)


def child_command(module: str, settings: Config, parent_fd: int) -> list[str]:
    """Give the command line of a child."""
    return [sys.executable, "-m", module, str(parent_fd), settings.model_dump_json()]


def settings_of_child(kind: type[C]) -> C:
    """Read this child's settings, and end it when its parent does."""
    parent_fd, text = sys.argv[1:3]
    settings = kind.model_validate_json(text)
    threading.Thread(target=_end_with_parent, args=(int(parent_fd),), daemon=True).start()
    return settings


def ready_file(folder: Path, number: int) -> Path:
    """Give the file that a front end makes when it can answer."""
    return folder / f"front-{number}.ready"


def set_up_log(process: str) -> None:
    """Write log lines of warnings and worse, and of the server's own affairs, to standard error."""
    logging.basicConfig(
        format=f"%(asctime)s {process} %(levelname)s %(message)s", level=logging.WARNING
    )
    logging.getLogger("rankloom").setLevel(logging.INFO)


def share_python() -> None:
    """Let a long computation in one thread hold up the others, such as the event loop, little."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def _end_with_parent(fd: int) -> None:
    # Nothing is ever written: reading ends when the other end is closed.
    os.read(fd, 1)
    os.kill(os.getpid(), signal.SIGTERM)
