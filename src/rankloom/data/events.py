"""Histories in Arrow: aligned lists of events become ids and time gaps; see `event_times`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from rankloom.data.columns import Array, Column, Ints, Key, Lists, Plain
from rankloom.data.decode import IdMapping
from rankloom.data.event_times import age_newest, gaps, newest, runs_backwards
from rankloom.data.raw import RawColumn, check_same_lengths


@dataclass(frozen=True)
class RawEvents:
    """The columns of one sequence feature, as they were read."""

    columns: Mapping[str, RawColumn]
    """Name within the sequence -> lists of ids."""
    time: RawColumn | None
    """Lists of whole seconds."""
    first_event: RawColumn | None
    """One absolute number per line."""
    event_time: RawColumn | None
    """The lines' own time in whole seconds."""


def decode_events(
    name: str, raw: RawEvents, *, max_length: int, mappings: Mapping[str, IdMapping]
) -> dict[Key, Column]:
    """Decode one sequence feature.

    Args:
        name: The feature's name.
        raw: Its columns; a null list is an empty history.
        max_length: Newest events kept.
        mappings: Name within the sequence -> how its ids become rows.

    Raises:
        DataError: Lists of one line differ in length, a time is null or earlier than the one
            before it, or an id is not allowed.
    """
    opened = {inner: column.lists() for inner, column in raw.columns.items()}
    first_inner = next(iter(opened))
    first_name, offsets = raw.columns[first_inner].name, opened[first_inner][0]
    for other_offsets, other in list(opened.values())[1:]:
        check_same_lengths(offsets, first_name, other_offsets, other)
    dropped, kept_offsets, kept = newest(offsets, max_length)
    values: dict[str, Array] = {}
    for inner, (_, entries) in opened.items():
        if kept is not None:
            entries = replace(
                entries,
                array=entries.array.take(pa.array(kept)),
                parents=(*entries.parents[:-1], kept_offsets),
            )
        values[f"columns/{inner}"] = mappings[inner].rows(entries)
    found: dict[Key, Column] = {}
    if raw.time is not None:
        seconds = _seconds(raw.time, offsets, first_name)
        for at, gap in gaps(seconds, offsets).items():
            values[f"times/{at}"] = gap if kept is None else gap.take(kept)
        if raw.event_time is not None:
            age = _age_newest(seconds, offsets, raw.event_time)
            found["age_newest", name] = Plain(age)
    found["sequences", name] = Lists(kept_offsets, values)
    found["first_event", name] = Plain(_first_event(raw.first_event, dropped))
    return found


def _seconds(time: RawColumn, offsets: Ints, first_name: str) -> Ints:
    """Give all events' times, checked to be in order within each line."""
    time_offsets, entries = time.lists()
    check_same_lengths(offsets, first_name, time_offsets, entries)
    if entries.array.null_count:
        raise entries.null_error(advice="Give each event a time in whole seconds.")
    seconds: Ints = entries.array.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    backwards = runs_backwards(seconds, offsets)
    if backwards.any():
        raise entries.error(
            backwards,
            rule="must not decrease within a history",
            advice="Sort each history by time in preparation, the newest event last.",
        )
    return seconds


def _age_newest(seconds: Ints, offsets: Ints, event_time: RawColumn) -> Array:
    if event_time.array.null_count:
        raise event_time.null_error(advice="Give each row a time in whole seconds.")
    now = event_time.array.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    return age_newest(seconds, offsets, now)


def _first_event(column: RawColumn | None, dropped: Ints) -> Ints:
    if column is None:
        return dropped
    if column.array.null_count:
        raise column.null_error(advice="Give the absolute number of the first listed event.")
    listed: Ints = column.array.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    return listed + dropped
