"""A thread that writes what requests hand over, and never makes one wait or fail."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

Count = Callable[[str, int], None]
"""Takes what became of some lines, and how many: `Metrics.log_lines` of one log."""

WRITTEN, QUEUE_FULL, NO_SPACE, BAD_VALUES = "written", "queue_full", "not_writable", "bad_values"


class Background(Generic[T]):
    """Hands items to a function in a thread of its own, in the order they came in.

    The function is called several times a second, with or without items.

    Args:
        work: Takes the items that came in since its last call.
        name: Of the thread.
        max_size: Sum of the sizes of items that may wait; more are dropped.
        interval_s: Seconds between calls.
        count: Is told of dropped items.
    """

    def __init__(
        self,
        work: Callable[[list[T]], None],
        *,
        name: str,
        max_size: int,
        interval_s: float,
        count: Count,
    ) -> None:
        self._work, self._max_size, self._interval_s = work, max_size, interval_s
        self._count = count
        self._items: deque[tuple[T, int]] = deque()
        self._size = 0
        self._lock = threading.Lock()
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_closing(self) -> bool:
        """Whether nothing comes any more after what the function is given now."""
        return self._is_closing.is_set()

    def put(self, item: T, size: int = 1) -> None:
        """Hand over an item, or drop and count it if too much waits."""
        with self._lock:
            fits = self._size + size <= self._max_size and not self._is_closing.is_set()
            if fits:
                self._size += size
                self._items.append((item, size))
        if not fits:
            self._count(QUEUE_FULL, 1)

    def close(self, timeout_s: float = 5.0) -> bool:
        """Have the waiting items written; tell whether that came to an end in time."""
        self._is_closing.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        # Not woken by each item: a switch of threads costs a request more than its line.
        while not self._is_closing.wait(self._interval_s):
            self._run_once()
        self._run_once()

    def _run_once(self) -> None:
        items = self._taken()
        try:
            self._work(items)
        except Exception:
            # A mistake of ours: without this, it would end the log for good.
            logger.exception("%s: %d lines may be lost", self._thread.name, len(items))
            self._count(BAD_VALUES, len(items))

    def _taken(self) -> list[T]:
        with self._lock:
            items = [item for item, _ in self._items]
            self._items.clear()
            self._size = 0
        return items
