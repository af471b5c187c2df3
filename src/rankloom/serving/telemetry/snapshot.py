"""The few numbers that live charts are drawn from."""

from __future__ import annotations

import time
from typing import Any

from rankloom.serving.telemetry import families
from rankloom.serving.telemetry.readings import Readings


def snapshot(readings: Readings) -> dict[str, Any]:
    """Give counts since the server's start and the present state, as plain values for JSON.

    Charts draw differences of two snapshots; a quantile comes from the differences of `buckets`.

    Returns:
        `time_s`: since 1970. `requests`: status -> count. `bounds_ms` and `latency`: the upper
        bounds of all buckets but the last, and `{"buckets", "sum_ms"}`. `stages`: stage -> the
        same. `in_flight`, `queue`. `deadline_misses`. `rejections`: reason -> count. `batches`:
        `{"count", "candidates", "requests"}`. `cache`: `{"hit", "miss", "wait", "evictions",
        "entries", "bytes"}`. `store`: result -> count. `oov`: feature -> count. `artifacts`:
        name and digest of each that is served. `memory_bytes`: process -> memory.
    """
    requests: dict[str, int] = {}
    for (_, status), cells in readings.series[families.REQUESTS.name].items():
        requests[status] = requests.get(status, 0) + int(sum(cells[:-1]))
    store: dict[str, int] = {}
    for (_, result), count in readings.values(families.STORE_LOOKUPS).items():
        store[result] = store.get(result, 0) + int(count)
    lookups = _counts(readings, families.CACHE_LOOKUPS)
    batches = readings.histogram(families.BATCH_CANDIDATES)
    return {
        "time_s": time.time(),
        "requests": requests,
        "bounds_ms": [1000 * bound for bound in families.SECONDS],
        "latency": _in_ms(readings.histogram(families.REQUESTS)),
        "stages": {
            stage: _in_ms(cells)
            for (stage,), cells in readings.series[families.STAGES.name].items()
        },
        "in_flight": int(readings.total(families.IN_FLIGHT)),
        "queue": int(readings.total(families.QUEUE)),
        "deadline_misses": int(readings.total(families.LATE)),
        "rejections": _counts(readings, families.REJECTIONS),
        "batches": {
            "count": int(sum(batches[:-1])),
            "candidates": int(batches[-1]),
            "requests": int(readings.histogram(families.BATCH_REQUESTS)[-1]),
        },
        "cache": {
            **{result: lookups.get(result, 0) for result in ("hit", "miss", "wait")},
            "evictions": int(readings.total(families.CACHE_EVICTIONS)),
            "entries": int(readings.total(families.CACHE_ENTRIES)),
            "bytes": int(readings.total(families.CACHE_BYTES)),
        },
        "store": store,
        "oov": _counts(readings, families.UNKNOWN_IDS),
        "artifacts": [
            {"name": name, "digest": digest}
            for (name, digest), value in readings.values(families.ARTIFACT).items()
            if value
        ],
        "memory_bytes": readings.resident_bytes,
    }


def _counts(readings: Readings, family: families.Family) -> dict[str, int]:
    """Give the counts of a family with one label."""
    return {label: int(count) for (label,), count in readings.values(family).items()}


def _in_ms(cells: list[float]) -> dict[str, Any]:
    return {"buckets": [int(count) for count in cells[:-1]], "sum_ms": 1000 * cells[-1]}
