"""What the server counts and measures, over all its processes; cheap enough for every request.

Each process of a server keeps its numbers in its own file (see `cells`), and any of them gives the
metrics of all. A process that is killed loses nothing: the next one of its name goes on counting.

    metrics = Metrics(folder, process="front-1")
    metrics.begin_request()
    metrics.end_request("json", 200, seconds=0.012, stages_ms={"total": 12.0})
    metrics.render()
"""

from __future__ import annotations

import json
import os
import threading
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rankloom.serving.telemetry import families
from rankloom.serving.telemetry.cells import Cells
from rankloom.serving.telemetry.families import FAMILIES, Family
from rankloom.serving.telemetry.readings import Readings, Source, merge, read_folder
from rankloom.serving.telemetry.snapshot import snapshot

Interface = Literal["json", "msgpack", "kserve"]
LookUp = Literal["hit", "miss", "wait"]


class Metrics:
    """Counts and measures for one process; safe to call from several threads.

    Args:
        folder: Of all processes of one server, made anew at its start, best in memory; none for a
            server of one process.
        process: This one's name: letters, digits and `-`.

    Raises:
        ConfigError: The folder cannot be written to.
    """

    content_type = "text/plain; version=0.0.4; charset=utf-8"
    """Of what `render` gives."""

    def __init__(self, folder: Path | None = None, *, process: str = "server") -> None:
        self._folder, self._process = folder, process
        self._cells = Cells.private() if folder is None else Cells.claim(folder, process)
        self._series: dict[tuple[Family, tuple[str, ...]], memoryview[float]] = {}
        self._lock = threading.Lock()
        self._artifact: tuple[str, str] | None = None
        self._forget_state()

    def begin_request(self) -> None:
        """Count a request that arrived."""
        with self._lock:
            self._add(families.IN_FLIGHT, 1)

    def end_request(
        self,
        interface: Interface,
        status: int,
        *,
        seconds: float,
        stages_ms: Mapping[str, float] | None = None,
        received_bytes: int = 0,
        sent_bytes: int = 0,
    ) -> None:
        """Count a request that was answered, whatever the answer.

        Args:
            interface: That it came through.
            status: Of HTTP.
            seconds: From arrival to answer.
            stages_ms: Stage -> milliseconds, as far as it came.
            received_bytes: Of its body.
            sent_bytes: Of the answer's body.
        """
        with self._lock:
            self._add(families.IN_FLIGHT, -1)
            self._observe(families.REQUESTS, seconds, interface, str(status))
            self._add(families.RECEIVED, received_bytes, interface)
            self._add(families.SENT, sent_bytes, interface)
            if stages_ms:
                for stage, duration in stages_ms.items():
                    self._observe(families.STAGES, duration / 1000, stage)

    def miss_deadline(self) -> None:
        """Count a request that was admitted and not answered in time."""
        with self._lock:
            self._add(families.LATE, 1)

    def reject(self, reason: str) -> None:
        """Count a request that was refused unscored.

        Args:
            reason: A machine-readable code; never what a client sent.
        """
        with self._lock:
            self._add(families.REJECTIONS, 1, reason)

    def run_batch(self, *, candidates: int, requests: int) -> None:
        """Count a batch that was scored."""
        with self._lock:
            self._observe(families.BATCH_CANDIDATES, candidates)
            self._observe(families.BATCH_REQUESTS, requests)

    def set_queue(self, length: int) -> None:
        """State how many requests wait for the compute process."""
        with self._lock:
            self._set(families.QUEUE, length)

    def look_up_user(self, result: LookUp) -> None:
        """Count a user state that was asked of the cache."""
        with self._lock:
            self._add(families.CACHE_LOOKUPS, 1, result)

    def set_user_cache(self, *, entries: int, num_bytes: int, evictions: int = 0) -> None:
        """State what the user state cache holds; count what it threw out since the last call."""
        with self._lock:
            self._set(families.CACHE_ENTRIES, entries)
            self._set(families.CACHE_BYTES, num_bytes)
            if evictions:
                self._add(families.CACHE_EVICTIONS, evictions)

    def count_oov(self, counts: Mapping[str, int]) -> None:
        """Count ids that vocabularies do not have: feature -> number."""
        if not counts:
            return
        with self._lock:
            for feature, count in counts.items():
                self._add(families.UNKNOWN_IDS, count, feature)

    def look_up_store(
        self, store: str, *, hits: int = 0, missing: int = 0, errors: int = 0
    ) -> None:
        """Count keys that were asked of a feature store."""
        with self._lock:
            for result, count in (("hit", hits), ("missing", missing), ("error", errors)):
                if count:
                    self._add(families.STORE_LOOKUPS, count, store, result)

    def serve_artifact(self, name: str, digest: str) -> None:
        """State what is served from now on."""
        with self._lock:
            if self._artifact is not None:
                self._set(families.ARTIFACT, 0, *self._artifact)
            self._artifact = (name, digest)
            self._set(families.ARTIFACT, 1, name, digest)

    def reload(self, result: str) -> None:
        """Count an artifact that was offered for serving, by what became of it."""
        with self._lock:
            self._add(families.RELOADS, 1, result)

    def restart(self, process: str) -> None:
        """Count a process that was started anew after it had ended."""
        with self._lock:
            self._add(families.RESTARTS, 1, process)

    def log_lines(self, log: str, result: str, count: int) -> None:
        """Count lines of a log, by what became of them."""
        with self._lock:
            self._add(families.LOG_LINES, count, log, result)

    def render(self) -> bytes:
        """Give the metrics of all processes in Prometheus' text format."""
        # Loads prometheus_client, which only processes that are asked need.
        from rankloom.serving.telemetry.exposition import render

        return render(self.read())

    def snapshot(self) -> dict[str, Any]:
        """Give what charts need, over all processes; see `snapshot.snapshot`."""
        return snapshot(self.read())

    def read(self) -> Readings:
        """Give the numbers of all processes."""
        if self._folder is None:
            return merge([Source(self._process, os.getpid(), self._cells.read())])
        return merge(read_folder(self._folder))

    def _add(self, family: Family, amount: float, *labels: str) -> None:
        cells = self._series.get((family, labels)) or self._open(family, labels)
        cells[0] += amount

    def _set(self, family: Family, value: float, *labels: str) -> None:
        cells = self._series.get((family, labels)) or self._open(family, labels)
        cells[0] = value

    def _observe(self, family: Family, value: float, *labels: str) -> None:
        cells = self._series.get((family, labels)) or self._open(family, labels)
        cells[bisect_left(family.bounds, value)] += 1
        cells[-1] += value

    def _open(self, family: Family, labels: tuple[str, ...]) -> memoryview[float]:
        cells = self._cells.series(family.key(labels), family.num_cells)
        self._series[family, labels] = cells
        return cells

    def _forget_state(self) -> None:
        """Take back what the process before this one stated; what it counted stays."""
        for key, values in self._cells.read().items():
            if FAMILIES[json.loads(key)[0]].is_state:
                self._cells.series(key, len(values))[0] = 0
