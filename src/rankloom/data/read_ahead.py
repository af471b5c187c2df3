"""Making items in a thread while the consumer works on earlier ones."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, Self, TypeVar

T = TypeVar("T")

_JOIN_TIMEOUT_S = 60.0


class _Channel(Generic[T]):
    """A bounded queue that either side can end."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._is_stopped = False
        self._is_finished = False
        self._error: BaseException | None = None

    def is_stopped(self) -> bool:
        return self._is_stopped

    def put(self, item: T) -> bool:
        """Wait for a free place; false when the consumer wants no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopped or len(self._items) < self._size)
            if self._is_stopped:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def finish(self, error: BaseException | None) -> None:
        with self._changed:
            self._is_finished = True
            self._error = error
            self._changed.notify_all()

    def get(self) -> T:
        """Wait for an item; what came before an error is handed out first."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._is_finished or self._is_stopped)
            if self._items and not self._is_stopped:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            error, self._error = self._error, None
            if error is not None and not self._is_stopped:
                raise error
            raise StopIteration

    def stop(self) -> None:
        with self._changed:
            self._is_stopped = True
            self._items.clear()
            self._changed.notify_all()


class ReadAhead(Iterator[T]):
    """Iterates over items that a thread makes ahead.

    An error in the thread is raised where its item would have come. `close`, the end of a `with`
    block, dropping the iterator and the end of the program stop the thread.

    Args:
        make: Called in the thread with a function that tells whether to stop early; gives the
            items. Long work between two items should ask that function now and then.
        size: Finished items held at most.

    Example:
        >>> list(ReadAhead(lambda is_stopped: iter(range(3)), size=2))
        [0, 1, 2]
    """

    def __init__(self, make: Callable[[Callable[[], bool]], Iterator[T]], *, size: int) -> None:
        channel: _Channel[T] = _Channel(size)
        # The thread knows the channel only: were it to know the iterator, dropping the iterator
        # would not end it. As a daemon it cannot hold up the program's end, where the finalizer
        # stops it before the interpreter goes.
        thread = threading.Thread(
            target=_fill, args=(channel, make), name="rankloom-read-ahead", daemon=True
        )
        self._channel = channel
        self._stop = weakref.finalize(self, _stop, channel, thread)
        thread.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        return self._channel.get()

    def close(self) -> None:
        """Stop the thread and wait for its end; further items are dropped."""
        self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _fill(channel: _Channel[T], make: Callable[[Callable[[], bool]], Iterator[T]]) -> None:
    try:
        for item in make(channel.is_stopped):
            if not channel.put(item):
                break
    # Whatever it is, the consumer must hear of it: it would wait for ever.
    except BaseException as error:  # noqa: BLE001
        channel.finish(error)
    else:
        channel.finish(None)


def _stop(channel: _Channel[T], thread: threading.Thread) -> None:
    channel.stop()
    if thread is not threading.current_thread():
        thread.join(_JOIN_TIMEOUT_S)
