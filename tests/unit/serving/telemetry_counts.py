"""What became of a log's lines, and waiting for it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable


class Counts(Counter[str]):
    """Counts what a log tells of its lines."""

    def __call__(self, result: str, count: int) -> None:
        self[result] += count


def until(is_so: Callable[[], object]) -> None:
    """Wait for something that a log's thread does."""
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)
