"""Histories, event by event: later than the row, out of order, unaligned, holding the row's item.

Shapes: L lines, n rows, V events of all lines.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rankloom.data.columns import Bools, Ints
from rankloom.data.event_times import runs_backwards
from rankloom.data.inspection.chunk import Chunk
from rankloom.data.inspection.coded import Coded
from rankloom.data.inspection.event_lists import History
from rankloom.data.inspection.findings import Finding, share
from rankloom.data.inspection.names import hint, is_same_name
from rankloom.data.inspection.shape import Shape
from rankloom.data.raw import list_lengths

MAX_OWN_SHARE = 0.5
"""Share of rows whose newest event is their own item, from which on no habit explains it."""
MIN_OWN_RATIO = 10
"""How many times more often positive rows have it than negative ones, where that gives it away."""


class HistoryCheck:
    """Counts what is wrong in one history.

    Args:
        history: Its columns.
        shape: Of the log.
    """

    def __init__(self, history: History, shape: Shape) -> None:
        self.history = history
        self._shape = shape
        self.item_column = _item_column(history, shape)
        """Column whose events are items, as the row's own item is."""
        self.lines = self.with_events = self.null_times = 0
        self.late = self.late_events = self.largest_lead = 0
        self.equal = 0
        """Lines with an event at the very second of the row."""
        self.unsorted = self.newest_first = 0
        self.unaligned: dict[str, int] = {}
        # Rows that have events, and those whose newest one is the row's item: by the label's sign.
        self.checked: Ints = np.zeros(2, np.int64)
        self.own: Ints = np.zeros(2, np.int64)

    @property
    def breaks_training(self) -> bool:
        """Tell whether the reader would refuse the times."""
        return bool(self.unsorted or self.null_times)

    def add(self, chunk: Chunk) -> None:
        """Take in some lines."""
        lists = self.history.lists
        first = list_lengths(chunk.batch.column(lists[0]))
        self.lines += len(first)
        self.with_events += int((first > 0).sum())
        for name in lists[1:]:
            wrong = int((list_lengths(chunk.batch.column(name)) != first).sum())
            if wrong:
                self.unaligned[name] = self.unaligned.get(name, 0) + wrong
        if self.history.time is not None:
            self._add_times(chunk, self.history.time)
        if self.item_column is not None:
            self._add_own(chunk, self.item_column, self._shape.roles["item"])

    def _add_times(self, chunk: Chunk, column: str) -> None:
        offsets, events = chunk.history(column)
        self.null_times += events.null_count
        now_column = self._now_column()
        row_times = None if now_column is None else chunk.batch.column(now_column)
        seconds = _integers(events, row_times)
        lengths = np.diff(offsets)
        line = np.repeat(np.arange(len(lengths)), lengths)
        backwards = runs_backwards(seconds, offsets)
        if backwards.any():
            in_line = np.bincount(line[backwards], minlength=len(lengths))
            self.unsorted += int((in_line > 0).sum())
            self.newest_first += int(((in_line == lengths - 1) & (lengths > 1)).sum())
        if row_times is None:
            return
        now = _integers(row_times, events)[line]
        # A row without a time has no present to compare with.
        late: Bools = (seconds >= now) & row_times.is_valid().to_numpy(zero_copy_only=False)[line]
        if late.any():
            self.late_events += int(late.sum())
            self.late += int((np.bincount(line[late], minlength=len(lengths)) > 0).sum())
            self.largest_lead = max(self.largest_lead, int((seconds[late] - now[late]).max()))

    def _now_column(self) -> str | None:
        column = self._shape.roles.get("event_time")
        return None if column is None or self._shape.is_per_row(column) else column

    def _add_own(self, chunk: Chunk, column: str, item: str) -> None:
        offsets, events = chunk.history(column)
        has_events = np.flatnonzero(np.diff(offsets))
        newest = np.zeros(chunk.num_lines, np.uint64)
        newest[has_events] = Coded.of(
            events.take(pa.array(offsets[1:][has_events] - 1))
        ).row_hashes()
        line: Ints | slice = slice(None) if chunk.line_of_row is None else chunk.line_of_row
        known = np.diff(offsets)[line] > 0
        is_own = (chunk.hashes(item) == newest[line])[known]
        label = next(iter(self._shape.labels), None)
        positive: Ints = np.zeros(len(is_own), np.int64)
        if label is not None:
            positive = (chunk.numbers(label)[known] > 0).astype(np.int64)
        self.checked += np.bincount(positive, minlength=2)
        self.own += np.bincount(positive[is_own], minlength=2)

    def findings(self) -> Iterator[Finding]:
        """Say what is wrong."""
        lists = self.history.lists
        for name, lines in self.unaligned.items():
            yield self._finding(
                "unaligned", name,
                problem=f"its lists are not as long as those of {lists[0]!r}",
                got=f"{lines:,} of {self.lines:,} lines ({share(lines, self.lines)})",
                advice="Write the same events to both in preparation; training refuses such lines.",
            )  # fmt: skip
        if self.null_times:
            yield self._finding(
                "history_null_time", self.history.time,
                problem="holds events without a time",
                got=f"{self.null_times:,} nulls",
                advice="Give each event a time, or drop it; training refuses such lines.",
            )  # fmt: skip
        if self.unsorted:
            yield self._unsorted()
        if self.late:
            yield self._late()
        if got := self._own_share():
            yield self._finding(
                "history_own_item", self.item_column,
                problem="its newest event is the row's own item",
                got=f"that in {got}",
                advice="Cut each history strictly before its row: it tells what was chosen.",
            )  # fmt: skip

    def _own_share(self) -> str | None:
        """Say how many rows have their own item as newest event, where that is no chance."""
        own, checked = int(self.own.sum()), int(self.checked.sum())
        if checked < 20:
            return None
        if own > MAX_OWN_SHARE * checked:
            return f"{share(own, checked)} of the rows with events"
        rates = self.own / np.maximum(self.checked, 1)
        if self.own[1] >= 20 and rates[1] > 0.05 and rates[1] > MIN_OWN_RATIO * rates[0]:
            label = self._shape.labels[0]
            positive, negative = (share(rate, 1) for rate in rates[::-1])
            return f"{positive} of the rows with {label} > 0, {negative} of the others"
        return None

    def _unsorted(self) -> Finding:
        newest_first = self.newest_first > 0.5 * self.unsorted
        order = "newest first" if newest_first else "out of order"
        return self._finding(
            "history_unsorted", self.history.time,
            problem=f"its events are {order}",
            got=f"{self.unsorted:,} of {self.lines:,} lines ({share(self.unsorted, self.lines)})",
            advice="Sort each history by time, the newest event last; training refuses such lines.",
        )  # fmt: skip

    def _late(self) -> Finding:
        lead = f"up to {self.largest_lead:,} after it" if self.largest_lead else "at its very time"
        return self._finding(
            "history_late", self.history.time,
            problem="has events that are not strictly before the row's time "
            f"({self._shape.roles['event_time']!r})",
            got=f"{self.late_events:,} events in {self.late:,} of {self.lines:,} lines "
            f"({share(self.late, self.lines)}), {lead}",
            advice="Cut each history strictly before its row, or bring both to one unit.",
        )  # fmt: skip

    def _finding(
        self, check: str, where: str | None, *, problem: str, got: str, advice: str
    ) -> Finding:
        return Finding(
            severity="error", check=check, where=where or self.history.name,
            problem=problem, got=got, advice=advice,
        )  # fmt: skip


def _item_column(history: History, shape: Shape) -> str | None:
    """Find the events' items: the column named like the item, or else hinting at one."""
    item = shape.roles.get("item")
    if item is None:
        return None
    alike = [name for name in history.columns.values() if is_same_name(name, item)]
    hinted = [name for inner, name in history.columns.items() if hint(inner) == "item"]
    found = next(iter(alike + hinted), None)
    if found is None or _is_text(shape, found) != _is_text(shape, item):
        return None
    return found


def _is_text(shape: Shape, column: str) -> bool:
    leaf = shape.leaf(column)
    return bool(pa.types.is_string(leaf) or pa.types.is_large_string(leaf))


def _integers(array: pa.Array, other: pa.Array | None) -> Ints:
    """Give times as whole numbers, 0 for null: microseconds if either is of a type of times."""
    is_time = pa.types.is_temporal(array.type)
    if is_time:
        array = pc.cast(pc.cast(array, pa.timestamp("us"), safe=False), pa.int64())
    if array.null_count:
        array = pc.fill_null(array, 0)
    numbers: Ints = array.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    if other is not None and not is_time and pa.types.is_temporal(other.type):
        return numbers * 1_000_000
    return numbers
