"""User states that were computed, kept within a number of bytes; the oldest used go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """What knows its size."""

    @property
    def num_bytes(self) -> int:
        """Bytes that it holds."""
        ...


S = TypeVar("S", bound=Sized)


@dataclass
class CacheCounts:
    """What the cache has seen since it began."""

    hits: int = 0
    """States found."""
    misses: int = 0
    """States not found."""
    evictions: int = 0
    """States given up for others."""
    too_large: int = 0
    """States larger than the whole cache, not kept."""


class UserStates(Generic[S]):
    """A cache bounded by bytes; not thread-safe.

    Args:
        max_bytes: Of all states together; 0 keeps none.

    Example:
        >>> states = UserStates(0)
        >>> states.get("anyone") is None, states.counts.misses
        (True, 1)
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self.counts = CacheCounts()
        self._states: OrderedDict[Hashable, S] = OrderedDict()

    def __len__(self) -> int:
        return len(self._states)

    def get(self, key: Hashable) -> S | None:
        """Give a state, which is then the newest used, or none."""
        state = self._states.get(key)
        if state is None:
            self.counts.misses += 1
            return None
        self.counts.hits += 1
        self._states.move_to_end(key)
        return state

    def put(self, key: Hashable, state: S) -> None:
        """Keep a state; others go until there is room."""
        old = self._states.pop(key, None)
        if old is not None:
            self.num_bytes -= old.num_bytes
        if state.num_bytes > self.max_bytes:
            self.counts.too_large += 1
            return
        self._states[key] = state
        self.num_bytes += state.num_bytes
        while self.num_bytes > self.max_bytes:
            _, gone = self._states.popitem(last=False)
            self.num_bytes -= gone.num_bytes
            self.counts.evictions += 1

    def clear(self) -> None:
        """Forget all states: they are of another artifact."""
        self._states.clear()
        self.num_bytes = 0
