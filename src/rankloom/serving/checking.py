"""Verify an artifact beside a running server: in a process of its own, one thread, low priority."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rankloom.errors import ArtifactError, RankLoomError

TIMEOUT_S = 600.0


def check_apart(folder: Path, *, device: str) -> None:
    """Verify an artifact in another process.

    Raises:
        ArtifactError: It is damaged, or its golden requests are scored otherwise.
    """
    command = [sys.executable, "-m", "rankloom.serving.checking", str(folder), device]
    try:
        done = subprocess.run(  # noqa: S603 (our own module)
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        raise ArtifactError(
            f"{folder}: could not be verified within {TIMEOUT_S:.0f} s. Verify it by hand."
        ) from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ArtifactError("\n".join(lines[-20:]))


def main() -> None:
    """Verify the artifact that the command line names; its problem goes to standard error."""
    from rankloom.artifact.verify import verify

    folder, device = sys.argv[1:3]
    chosen: Any = device
    os.nice(10)
    try:
        verify(folder, device=chosen)
    except RankLoomError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
