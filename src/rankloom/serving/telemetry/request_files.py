"""Files of the request log: filled in memory, written whole, the oldest deleted."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from rankloom.data.atomic import write_parquet
from rankloom.errors import ConfigError, DataError
from rankloom.serving.request import RankRequest, Served
from rankloom.serving.telemetry.background import BAD_VALUES, NO_SPACE, WRITTEN, Count
from rankloom.serving.telemetry.request_lines import RequestLines
from rankloom.serving.telemetry.request_log import Entry, RequestLogConfig

logger = logging.getLogger(__name__)

UNFIT = (DataError, pa.ArrowException, ArithmeticError, LookupError, TypeError, ValueError)
"""What a value of a wrong type may raise when it is made an Arrow value."""


class _Open:
    """The lines of one artifact's next file.

    Args:
        lines: Makes them.
    """

    def __init__(self, lines: RequestLines) -> None:
        self.lines = lines
        self.batches: list[pa.RecordBatch] = []
        self.num_bytes = 0
        self.began_s = 0.0

    def add(self, batch: pa.RecordBatch) -> None:
        """Add one line."""
        if not self.batches:
            self.began_s = time.monotonic()
        self.batches.append(batch)
        self.num_bytes += batch.nbytes


class RequestFiles:
    """Writes lines to files; tells of problems once, and never raises.

    Args:
        config: Where to, and when.
        count: Is told what became of lines.
    """

    def __init__(self, config: RequestLogConfig, count: Count) -> None:
        self._config, self._count = config, count
        self._folder = Path(config.folder)
        self._open: dict[str, _Open] = {}
        self._num_files = 0
        self._num_dropped = 0
        self._has_reported_values = False
        self._remove_leftovers()

    def begin(self, served: Served, examples: Sequence[RankRequest]) -> None:
        """Log requests of an artifact from now on, beside those of the one before it."""
        if served.digest in self._open:
            self._open[served.digest] = self._open.pop(served.digest)
            return
        for digest in list(self._open)[:-1]:
            self._write(self._open.pop(digest))
        try:
            self._open[served.digest] = _Open(RequestLines(served, examples))
        except ConfigError as error:
            logger.warning("request log: nothing of %s is logged: %s", served.name, error)

    def add(self, entry: Entry) -> None:
        """Make a line of a request."""
        file = self._open.get(entry.result.digest)
        if file is None:
            self._count(BAD_VALUES, 1)
            return
        try:
            file.add(file.lines.line(entry.request, entry.result, entry.time_s))
        except UNFIT as error:
            self._count(BAD_VALUES, 1)
            if not self._has_reported_values:
                self._has_reported_values = True
                logger.warning("request log: a request does not fit its columns: %s", error)
        else:
            full = self._config.max_bytes <= file.num_bytes
            if full or len(file.batches) >= self._config.max_lines:
                self._write(file)

    def write_due(self, *, is_end: bool) -> None:
        """Write the files that are old enough, or all."""
        before = time.monotonic() - self._config.max_age_s
        for file in self._open.values():
            if is_end or file.began_s <= before:
                self._write(file)

    def _write(self, file: _Open) -> None:
        batches, file.batches, file.num_bytes = file.batches, [], 0
        if not batches:
            return
        self._num_files += 1
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3]
        artifact = file.lines.digest[:8]
        name = f"requests-{now}-{artifact}-{os.getpid()}-{self._num_files:06}.parquet"
        path = self._folder / name
        try:
            write_parquet(file.lines.join(batches), path)
        except DataError as error:
            if not self._num_dropped:
                logger.warning("request log: lines are dropped. %s", error)
            self._num_dropped += len(batches)
            self._count(NO_SPACE, len(batches))
            return
        if self._num_dropped:
            logger.warning("request log: written again; %d lines were dropped", self._num_dropped)
            self._num_dropped = 0
        self._count(WRITTEN, len(batches))
        self._delete_oldest(path)

    def _delete_oldest(self, newest: Path) -> None:
        if self._config.total_bytes is None:
            return
        sizes = {}
        for path in self._folder.glob("requests-*.parquet"):
            try:
                sizes[path] = path.stat().st_size
            except OSError:
                # Another process deletes too.
                continue
        total = sum(sizes.values())
        for path in sorted(sizes):
            if total <= self._config.total_bytes or path == newest:
                break
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                logger.warning("request log: %s: cannot be deleted. Got: %s", path, error)
                break
            total -= sizes[path]

    def _remove_leftovers(self) -> None:
        """Delete what processes that were killed had not finished."""
        for path in self._folder.glob(".requests-*.tmp"):
            pid = path.name.split(".")[-2]
            if pid == str(os.getpid()) or not Path("/proc", pid).exists():
                with suppress(OSError):
                    path.unlink()
