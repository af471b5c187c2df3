"""Runs a benchmark cell by cell into one JSON file that can always be read and continued.

A benchmark is a module `benchmarks/<name>.py` with

    SETTINGS: dict                                 # JSON values; `--set` changes one
    def planned_cells(settings) -> list[Cell]      # every run it wants
    def run_cell(cell) -> dict                     # one run's raw measurements, JSON values
    def summarise(rows) -> dict                    # medians and spreads of the rows so far
    MACHINE_MATTERS = True                         # optional; False when nothing is timed

A cell is one repeat (or seed) of one variant. All variants get their first repeat before any gets
its second, so what is compared runs side by side in time. A row already in the file is kept when
its cell is still planned with the same options and, unless `MACHINE_MATTERS = False`, was measured
on a machine like this one.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from benchmarks.machine import describe_machine, describe_versions, machine_name
from rankloom.cli.main import ENVIRONMENT

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One run of one variant; `options` holds all that `run_cell` may depend on."""

    variant: str
    repeat: int
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Name the cell in the file and in progress lines."""
        return f"{self.variant}/{self.repeat}"

    @property
    def digest(self) -> str:
        """Change whenever the variant, the repeat or an option does."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Benchmark(Protocol):
    """What a benchmark's module provides."""

    SETTINGS: Mapping[str, Any]

    def planned_cells(self, settings: Mapping[str, Any]) -> Sequence[Cell]:
        """List every run, in any order."""

    def run_cell(self, cell: Cell) -> Mapping[str, Any]:
        """Run one cell and give its raw measurements."""

    def summarise(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Condense the rows measured so far; called with one row or more."""


def run_benchmark(
    name: str,
    benchmark: Benchmark,
    *,
    settings: Mapping[str, Any],
    budget_s: float,
    results: Path = RESULTS,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Run the cells that are missing from `<results>/<name>.json`, writing it after each.

    No cell starts whose expected time, the longest seen of its variant, would pass the budget.

    Args:
        name: Of the file.
        benchmark: The module.
        settings: Its SETTINGS with the changes of this run.
        budget_s: Time to use, counted from now.
        results: Folder of the file.
        clock: Seconds from any start.

    Returns:
        Whether every planned cell is done.
    """
    start = clock()
    path = results / f"{name}.json"
    cells = sorted(benchmark.planned_cells(settings), key=lambda cell: cell.repeat)
    machine, commit = describe_machine(), current_commit()
    place = machine_name(machine) if getattr(benchmark, "MACHINE_MATTERS", True) else "any"
    rows = _rows_to_keep(path, cells, place)
    done = {row["cell"] for row in rows}
    for number, cell in enumerate(cells, start=1):
        if cell.id in done:
            continue
        expected_s = max(
            (row["wall_s"] for row in rows if row["variant"] == cell.variant), default=0
        )
        progress = f"[{number}/{len(cells)}] {cell.id}:"
        if clock() - start + expected_s > budget_s:
            print(f"{progress} left for the next run (about {expected_s:.0f} s)", flush=True)
            continue
        row = _measure(benchmark, cell, clock) | {"machine": place, "commit": commit}
        rows.append(row)
        done.add(cell.id)
        write_atomically(
            path,
            {
                "machine": machine,
                "versions": describe_versions(),
                "commit": commit,
                "settings": dict(settings),
                "cells": [{"id": cell.id, "done": cell.id in done} for cell in cells],
                "rows": rows,
                "summary": benchmark.summarise(rows),
            },
        )
        spent = f"{(clock() - start) / 60:.1f} of {budget_s / 60:g} min"
        print(f"{progress} {row['wall_s']:.1f} s ({spent})", flush=True)
    return len(done) == len(cells)


def _measure(benchmark: Benchmark, cell: Cell, clock: Callable[[], float]) -> Row:
    start, started_at = clock(), datetime.now(UTC).isoformat(timespec="seconds")
    measured = dict(benchmark.run_cell(cell))
    return {
        "cell": cell.id,
        "variant": cell.variant,
        "repeat": cell.repeat,
        "digest": cell.digest,
        "started_at": started_at,
        "wall_s": round(clock() - start, 3),
        "measured": measured,
    }


def spread(values: Iterable[float]) -> dict[str, float]:
    """Give count, median, mean, standard deviation (0 of one value), smallest and largest."""
    data = [float(value) for value in values]
    return {
        "n": len(data),
        "median": statistics.median(data),
        "mean": statistics.fmean(data),
        "std": statistics.stdev(data) if len(data) > 1 else 0.0,
        "min": min(data),
        "max": max(data),
    }


def spread_by_variant(rows: Iterable[Row], keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Give the `spread` of each measurement in `keys`, variant by variant."""
    return {
        variant: {key: spread(one[key] for one in group) for key in keys}
        for variant, group in by_variant(rows).items()
    }


def take_turns(calls: Mapping[str, Callable[[], Any]], turns: int) -> dict[str, list[float]]:
    """Time several calls, one after the other in each turn.

    Args:
        calls: Name -> what to time.
        turns: Counted after two that warm up.

    Returns:
        Name -> seconds of each turn.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns + 2):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if turn >= 2:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def by_variant(rows: Iterable[Row]) -> dict[str, list[dict[str, Any]]]:
    """Give the measurements of each variant, in order of their repeats."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["repeat"]):
        groups.setdefault(row["variant"], []).append(row["measured"])
    return groups


def run_module(name: str, *arguments: str, environ: Mapping[str, str] | None = None) -> Any:
    """Run a module of `benchmarks` in a process of its own, with the command's environment.

    Args:
        name: Such as `reader`.
        *arguments: Of its command line.
        environ: Environment variables to add to those that `rankloom` sets at its start.

    Returns:
        The JSON of its last line.

    Raises:
        RuntimeError: It failed; the end of what it wrote is in the message.
    """
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT, **(environ or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name}: ended with {done.returncode}.\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def current_commit() -> str:
    """Give HEAD's hash, with "-dirty" when any file but a result differs from it."""
    head = _git("rev-parse", "HEAD")
    if head is None:
        return "unknown"
    changes = _git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    return f"{head}-dirty" if changes else head


def write_atomically(path: Path, document: Mapping[str, Any]) -> None:
    """Write JSON so that `path` holds the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="ascii") as file:
            json.dump(document, file, indent=1, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _rows_to_keep(path: Path, cells: Sequence[Cell], place: str) -> list[Row]:
    """Read the rows of an earlier run that answer the planned cells, saying what is dropped."""
    if not path.exists():
        return []
    recorded: list[Row] = json.loads(path.read_text(encoding="ascii"))["rows"]
    planned = {cell.digest for cell in cells}
    same_settings = [row for row in recorded if row["digest"] in planned]
    kept = [row for row in same_settings if row["machine"] == place]
    for count, why in (
        (len(recorded) - len(same_settings), "other settings"),
        (len(same_settings) - len(kept), "another machine"),
    ):
        if count:
            print(f"{path.name}: {count} rows belong to {why}; those cells start anew")
    if kept:
        print(f"{path.name}: going on after {len(kept)} of {len(cells)} cells")
    return kept


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
