"""The numbers of all processes of a server, brought together."""

from __future__ import annotations

import json
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rankloom.serving.telemetry.cells import SUFFIX, read_file
from rankloom.serving.telemetry.families import FAMILIES, Family


@dataclass(frozen=True)
class Source:
    """The numbers of one process."""

    process: str
    """Its name."""
    pid: int
    """Its id; what it stated about its state counts as long as it lives."""
    series: dict[str, list[float]]
    """Key -> numbers."""


@dataclass(frozen=True)
class Readings:
    """The numbers of all processes."""

    series: dict[str, dict[tuple[str, ...], list[float]]]
    """Name of a family -> labels' values -> numbers, summed over processes."""
    resident_bytes: dict[str, float]
    """Living process -> its memory."""

    def values(self, family: Family) -> dict[tuple[str, ...], float]:
        """Give counters' or gauges' values: labels' values -> value."""
        return {labels: cells[0] for labels, cells in self.series[family.name].items()}

    def total(self, family: Family) -> float:
        """Give the sum over all labels."""
        return sum(self.values(family).values())

    def histogram(self, family: Family) -> list[float]:
        """Give the counts of all buckets, and the sum, over all labels."""
        found = list(self.series[family.name].values())
        return [sum(cells) for cells in zip(*found, strict=True)] or [0.0] * family.num_cells


def read_folder(folder: Path) -> list[Source]:
    """Read the numbers of all processes that kept theirs in a folder."""
    sources = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            pid, series = read_file(path)
        except OSError:
            # The server ends, and its folder goes away.
            continue
        sources.append(Source(path.name.removesuffix(SUFFIX), pid, series))
    return sources


def merge(sources: Sequence[Source]) -> Readings:
    """Sum up the numbers of processes; of an ended process, only what it counted."""
    merged: dict[str, dict[tuple[str, ...], list[float]]] = {name: {} for name in FAMILIES}
    memory = {}
    for source in sources:
        resident = _resident_bytes(source.pid)
        if resident is not None:
            memory[source.process] = resident
        for key, cells in source.series.items():
            name, *labels = json.loads(key)
            if resident is None and FAMILIES[name].is_state:
                continue
            before = merged[name].get(tuple(labels))
            if before is not None:
                cells = [one + other for one, other in zip(before, cells, strict=True)]
            merged[name][tuple(labels)] = cells
    return Readings(merged, memory)


def _resident_bytes(pid: int) -> float | None:
    """Give a process's memory; none if it has ended."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return None
    # One that has ended and that nobody waited for has none.
    return float(int(pages) * mmap.PAGESIZE) or None
