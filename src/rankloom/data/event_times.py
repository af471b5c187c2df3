"""Which events of a history are kept, and the time differences of its events.

Only the newest `max_length` events are kept, and `first_event` advances by what was dropped, so an
event's absolute number does not depend on `max_length`. Gaps are taken before anything is dropped:
`gap_previous` of the first kept event is the gap to the event before it although that one is gone,
and 0 only for the first listed one. So a longer history changes no event's gap.

Shapes: n histories, V events of all of them, V' kept ones.
"""

from __future__ import annotations

import numpy as np

from rankloom.data.columns import Array, Bools, Ints, expand_ranges, offsets_of


def newest(offsets: Ints, max_length: int) -> tuple[Ints, Ints, Ints | None]:
    """Choose the events that are kept.

    Args:
        offsets: (n + 1,), from 0 on.
        max_length: Of each history.

    Returns:
        dropped: (n,) events that each history loses.
        kept_offsets: (n + 1,) of what is left.
        kept: (V',) their positions among all, or none where all are kept.
    """
    lengths = np.diff(offsets)
    dropped = np.maximum(lengths - max_length, 0)
    if not dropped.any():
        return dropped, offsets, None
    left = lengths - dropped
    return dropped, offsets_of(left), expand_ranges(offsets[:-1] + dropped, left)


def runs_backwards(seconds: Ints, offsets: Ints) -> Bools:
    """Mark the (V,) events that are older than the one before them in their history."""
    backwards = np.zeros(len(seconds), np.bool_)
    # Compared and not subtracted: a difference may wrap.
    backwards[1:] = seconds[1:] < seconds[:-1]
    backwards[_first_entries(offsets)] = False
    return backwards


def gaps(seconds: Ints, offsets: Ints) -> dict[str, Array]:
    """Give each event's (V,) seconds since the event before it, and until the newest one."""
    previous = np.diff(seconds, prepend=seconds[:1])
    previous[_first_entries(offsets)] = 0
    lengths = np.diff(offsets)
    last = np.repeat(seconds[offsets[1:][lengths > 0] - 1], lengths[lengths > 0])
    return {
        "gap_previous": previous.astype(np.float32),
        "gap_newest": (last - seconds).astype(np.float32),
    }


def age_newest(seconds: Ints, offsets: Ints, now: Ints) -> Array:
    """Give (n,) float32: how old each newest event is at the (n,) present; 0 without events."""
    has_events = np.diff(offsets) > 0
    age = np.zeros(len(now), np.float32)
    # A log may list events at the row's own second, or clocks may differ: never negative.
    age[has_events] = np.maximum(now[has_events] - seconds[offsets[1:][has_events] - 1], 0)
    return age


def _first_entries(offsets: Ints) -> Ints:
    """Give the positions of the first entries of the lists that have any."""
    return offsets[:-1][np.diff(offsets) > 0]
