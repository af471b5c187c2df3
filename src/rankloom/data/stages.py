"""How fast each stage of reading a log is, and all of them together.

Stages are those of `LogReader`, one after the other on one thread and each with a clock of its own:

- `decode`: Parquet to Arrow;
- `transform`: Arrow to rows of tables, numbers and events (vocabularies, hashing, checks);
- `batch`: a buffer put in order, cut into batches, and handed to torch.

`together` is the reader as a training sees it: `decode` in one thread ahead, `transform` and
`batch` in another. It is timed between the first batches of two buffers where the log has several,
because a buffer's batches come in a burst.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import pyarrow as pa

from rankloom.data.columns import Block, join_blocks
from rankloom.data.files import read_lines
from rankloom.data.order import lines_per_buffer, order_in_buffer, stream_of
from rankloom.data.raw import Origin
from rankloom.data.reader import Buffer, LogReader, cut_buffers
from rankloom.data.tensors import to_batch

STAGES = ("decode", "transform", "batch")
TOGETHER = "together"


@dataclass
class StageTimes:
    """Rows a second, turn by turn."""

    rows_per_s: dict[str, list[float]] = field(
        default_factory=lambda: {name: [] for name in (*STAGES, TOGETHER)}
    )
    """Stage -> the rate in each turn."""
    buffer_rows: int = 0
    """Rows shuffled at a time."""

    def median(self, stage: str) -> float:
        """Give a stage's median rate."""
        return float(np.median(self.rows_per_s[stage]))

    def limit(self) -> str:
        """Name the stage that sets the rate of all together: decode works beside the others."""
        second = {stage: 1 / self.median(stage) for stage in STAGES}
        if second["decode"] > second["transform"] + second["batch"]:
            return "decode"
        return max(("transform", "batch"), key=second.__getitem__)


def time_stages(reader: LogReader, *, seconds: float, min_turns: int = 3) -> StageTimes:
    """Time the stages of a reader in turns, a buffer at a time, and all together.

    Args:
        reader: Of the log; its order and batch size are those that are timed, but buffers are
            smaller where turns would take too long.
        seconds: About how long.
        min_turns: Turns made after one that warms up, even if they take longer.

    Raises:
        DataError: A file cannot be read, or holds a value that is not allowed.
    """
    reader = _with_short_turns(reader, seconds / (min_turns + 1))
    size = lines_per_buffer(reader.log, reader.order)
    times = StageTimes(buffer_rows=min(reader.order.buffer_rows, reader.num_rows))
    chunks = _endless(reader)
    began = time.perf_counter()
    turn = 0
    while turn <= min_turns or time.perf_counter() - began < seconds:
        rates = _stage_rates(reader, chunks, turn, size)
        rates[TOGETHER] = _rate_together(reader, epoch=turn, size=size)
        if turn:
            for stage, rate in rates.items():
                times.rows_per_s[stage].append(rate)
        turn += 1
    return times


def _with_short_turns(reader: LogReader, seconds: float) -> LogReader:
    """Give the reader with a buffer so small that a turn, of up to four, takes about so long."""
    segments = stream_of(reader.log, reader.order, epoch=0).segments
    for _ in range(2):  # the first one warms up
        began = time.perf_counter()
        lines, origin = next(read_lines(segments, reader.decoder.columns))
        num_rows = reader.decoder.decode(lines, origin).num_rows
    fitting = int(max(num_rows, 1) / (time.perf_counter() - began) * seconds / 4)
    changed = copy(reader)
    rows = max(min(reader.order.buffer_rows, fitting), reader.batch_size)
    changed.order = reader.order.model_copy(update={"buffer_rows": rows})
    return changed


class _Clock:
    """Sums the seconds between two calls under the name given with the second one."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.at = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] += now - self.at
        self.at = now


def _endless(reader: LogReader) -> Iterator[tuple[pa.RecordBatch, Origin, int]]:
    """Read epoch after epoch; give each piece's epoch too."""
    for epoch in count():
        segments = stream_of(reader.log, reader.order, epoch=epoch).segments
        for lines, origin in read_lines(segments, reader.decoder.columns):
            yield lines, origin, epoch


def _stage_rates(
    reader: LogReader, chunks: Iterator[tuple[pa.RecordBatch, Origin, int]], turn: int, size: int
) -> dict[str, float]:
    """Read the next lines, a buffer of them or a little more, stage by stage."""
    parts: list[Block] = []
    num_lines = num_rows = 0
    clock = _Clock()
    while num_lines < min(size, reader.log.num_lines):
        lines, origin, epoch = next(chunks)
        clock.lap("decode")
        block = reader.decoder.decode(lines, origin)
        num_rows += block.num_rows
        num_lines += len(lines)
        parts.append(_sampled(reader, block, origin, epoch))
        clock.lap("transform")
    counts = np.concatenate([part.num_rows_of_each() for part in parts])
    order = order_in_buffer(reader.order, epoch=0, buffer=turn, num_lines=len(counts))
    order = order[counts[order] > 0]
    if len(order):
        is_as_stored = not reader.order.shuffle and len(order) == len(counts)
        block = join_blocks(parts, None if is_as_stored else order)
        buffer = Buffer(block, np.arange(len(order)), np.cumsum(counts[order]))
        for one, _ in cut_buffers(iter([buffer]), reader.batch_size):
            to_batch(one)
    clock.lap("batch")
    return {stage: max(num_rows, 1) / clock.seconds[stage] for stage in STAGES}


def _sampled(reader: LogReader, block: Block, origin: Origin, epoch: int) -> Block:
    if reader.sampling is None:
        return block
    file = [str(path) for path in reader.log.paths].index(origin.name)
    return reader.sampling.apply(block, epoch=epoch, file=file, first_line=origin.first_line)


def _rate_together(reader: LogReader, *, epoch: int, size: int) -> float:
    """Read two buffers, or the whole epoch, with all threads at work."""
    began = time.perf_counter()
    first: tuple[float, int] | None = None
    rows = buffer = 0
    with reader.batches(epoch) as reads:
        for batch, position in reads:
            now = time.perf_counter()
            if (position - 1) // size != buffer:
                buffer = (position - 1) // size
                if first is None:
                    first = (now, rows)
                else:
                    return (rows - first[1]) / (now - first[0])
            rows += batch.num_rows
    return rows / (time.perf_counter() - began)
