"""One pass over a log that gathers all that the checks need, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from rankloom.data.files import CHUNK_ROWS, LogFiles, Segment, read_lines
from rankloom.data.inspection.chunk import Chunk, sample_columns
from rankloom.data.inspection.coded import combine
from rankloom.data.inspection.histories import HistoryCheck
from rankloom.data.inspection.profile import ColumnProfile, Summary
from rankloom.data.inspection.samples import KeyedRows
from rankloom.data.inspection.shape import Shape, find_shape
from rankloom.data.inspection.sketch import KeySketch
from rankloom.data.uses import Layout
from rankloom.schema import Schema

VALUES_AT_ONCE = 4_000_000
"""Values decoded at a time, over all columns and lists."""
SAMPLE_CELLS = 2_000_000
"""Rows times columns of a sample of rows."""
ROW_KEYS = 1 << 17
"""Keys of rows that are kept to find repeated ones."""
FIRST_LINES = 20_000
GROUP_ROLES = ("user", "item", "request")

Report = Callable[[int], None]


@dataclass(kw_only=True)
class Scan:
    """What one pass has gathered."""

    shape: Shape
    num_lines: int = 0
    num_rows: int = 0
    profiles: dict[str, ColumnProfile] = field(default_factory=dict)
    sample: KeyedRows
    """A uniform sample of the rows."""
    groups: dict[str, KeyedRows]
    """`user`, `item`, `request` -> all rows of some of them."""
    rows: KeySketch = field(default_factory=lambda: KeySketch(ROW_KEYS))
    """Of whole rows, lists left out."""
    events: KeySketch = field(default_factory=lambda: KeySketch(ROW_KEYS))
    """Of (user, item, time)."""
    request_runs: KeySketch = field(default_factory=lambda: KeySketch(ROW_KEYS))
    """Of requests, once for each run of rows that follow each other."""
    histories: dict[str, HistoryCheck] = field(default_factory=dict)
    unaligned: dict[str, int] = field(default_factory=dict)
    """Candidate column -> lines whose list has another length than the first such column's."""
    is_whole: bool = True
    """Whether every line was read."""
    num_empty: int = 0
    """Lines of a grouped log without candidates."""
    last_request: np.uint64 | None = None

    def summaries(self) -> dict[str, Summary]:
        """Say what each column holds."""
        return {name: profile.summary() for name, profile in self.profiles.items()}

    def add(self, chunk: Chunk, rng: np.random.Generator) -> None:
        """Take in some lines."""
        shape = self.shape
        self.num_lines += chunk.num_lines
        self.num_rows += chunk.num_rows
        for name, lines in chunk.unaligned.items():
            self.unaligned[name] = self.unaligned.get(name, 0) + lines
        self.num_empty += int((chunk.line_rows == 0).sum())
        for name, profile in self.profiles.items():
            if name in shape.scalars:
                profile.add(chunk.coded(name))
            else:
                profile.add_lists(chunk.values(name))
        self.sample.add(rng.integers(0, 2**64, chunk.num_rows, np.uint64), chunk.rows)
        self._add_keys(chunk)
        for check in self.histories.values():
            check.add(chunk)

    def _add_keys(self, chunk: Chunk) -> None:
        roles = self.shape.roles
        if self.shape.scalars:
            self.rows.add(combine([chunk.hashes(name) for name in self.shape.scalars]))
        keys = {role: chunk.hashes(name) for role, name in roles.items() if role in _KEY_ROLES}
        if {"user", "item", "event_time"} <= keys.keys():
            self.events.add(combine([keys["user"], keys["item"], keys["event_time"]]))
        if "request" not in keys and {"user", "event_time"} <= keys.keys():
            keys["request"] = combine([keys["user"], keys["event_time"]])
        for role in GROUP_ROLES:
            if role in keys:
                self.groups[role].add(keys[role], chunk.rows)
        if "request" in roles and chunk.num_lines:
            self._add_runs(chunk)

    def _add_runs(self, chunk: Chunk) -> None:
        requests = chunk.coded(self.shape.roles["request"]).row_hashes()
        starts = np.ones(len(requests), np.bool_)
        if self.shape.layout == "flat":
            starts[1:] = requests[1:] != requests[:-1]
            starts[0] = self.last_request is None or requests[0] != self.last_request
            self.last_request = requests[-1]
        self.request_runs.add(requests[starts])


_KEY_ROLES = {"user", "item", "request", "event_time"}


def first_lines(log: LogFiles, columns: Sequence[str]) -> pa.Table:
    """Read some lines: the first ones, and those of the middle and of the last row group."""
    groups = log.row_groups
    chosen = sorted({0, len(groups) // 2, len(groups) - 1})
    segments = [
        Segment(groups[at], 0, min(groups[at].num_lines, FIRST_LINES // len(chosen)))
        for at in chosen
    ]
    return pa.Table.from_batches(
        [batch for batch, _ in read_lines(_small_chunks(segments), columns)]
    )


def scan(
    log: LogFiles,
    shape: Shape,
    columns: Sequence[str],
    *,
    limit_lines: int | None = None,
    report: Report = lambda _: None,
    seed: int = 0,
) -> Scan:
    """Read a log once.

    Args:
        log: Its files.
        shape: How it is laid out.
        columns: Read, and nothing else.
        limit_lines: Read about so many lines, from the beginnings of all row groups.
        report: Called with the lines done.
        seed: Of the sample of rows.

    Raises:
        DataError: A row group cannot be read.
    """
    rng = np.random.default_rng(seed)
    num_columns = max(len(sample_columns(shape)), 1)
    max_rows = int(np.clip(SAMPLE_CELLS // num_columns, 2_000, 100_000))
    found = Scan(
        shape=shape,
        is_whole=limit_lines is None or limit_lines >= log.num_lines,
        profiles={
            name: ColumnProfile(name, shape.schema.field(name).type)
            for name in columns
            if name not in shape.others
        },
        sample=KeyedRows(max_rows),
        groups={role: KeyedRows(max_rows // 2) for role in GROUP_ROLES},
        histories={one.name: HistoryCheck(one, shape) for one in shape.histories},
    )
    done = 0
    for batch, _ in read_lines(_segments(log, limit_lines), columns):
        chunk = Chunk(batch, shape)
        found.add(chunk, rng)
        done += chunk.num_read
        report(done)
    return found


def _segments(log: LogFiles, limit_lines: int | None) -> Iterator[Segment]:
    segments = log.segments()
    if limit_lines is not None and limit_lines < log.num_lines:
        # From all over the log: its first lines may be of one day, or of one kind.
        part = limit_lines / log.num_lines
        segments = [Segment(one.group, 0, max(1, round(one.stop * part))) for one in segments]
    return _small_chunks(segments)


def _small_chunks(segments: Sequence[Segment]) -> Iterator[Segment]:
    """Have as many lines read at a time as hold about `VALUES_AT_ONCE` values."""
    for one in segments:
        group = one.group.metadata.row_group(one.group.number)
        values = sum(group.column(at).num_values for at in range(group.num_columns))
        lines = int(
            np.clip(VALUES_AT_ONCE * one.group.num_lines // max(values, 1), 256, CHUNK_ROWS)
        )
        # The reader takes CHUNK_ROWS rows, by what the row group says that a line has.
        per_line = CHUNK_ROWS * one.group.num_lines // lines
        yield replace(one, group=replace(one.group, num_rows=max(per_line, 1)))


def guess_shape(
    log: LogFiles, columns: Sequence[str], *, schema: Schema | None, layout: Layout | None
) -> Shape:
    """Guess how a log is laid out; see `find_shape`."""
    return find_shape(first_lines(log, columns), schema=schema, layout=layout)
