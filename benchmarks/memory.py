"""Peak memory of training on a log ten times the shuffle buffer, and on one as large as it.

Each cell trains in a process of its own and samples its resident memory after every logged step; a
reader that kept what it had read would grow with the log.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.criteo_like import write_log
from benchmarks.harness import ROOT, Cell, Row, run_module, spread_by_variant

LOGS = ROOT / ".bench" / "memory"
SETTINGS: dict[str, Any] = {
    "buffer_rows": 65_536,
    "batch_size": 4096,
    "buffers": [1, 3, 10],
    "repeats": 3,
}


def planned_cells(settings: Mapping[str, Any]) -> list[Cell]:
    """One cell for each size of the log and repeat."""
    shared = {key: settings[key] for key in ("buffer_rows", "batch_size")}
    return [
        Cell(f"log of {buffers} buffers", repeat, {**shared, "buffers": buffers})
        for repeat in range(settings["repeats"])
        for buffers in settings["buffers"]
    ]


def run_cell(cell: Cell) -> dict[str, Any]:
    """Train one epoch in a new process; give its memory over time."""
    options = cell.options
    rows = options["buffers"] * options["buffer_rows"]
    folder = LOGS / str(rows)
    log = write_log(folder, num_rows=rows, seed=3, valid_rows=1000)
    samples = run_module("memory", str(log.train), json.dumps(dict(options)))
    half = len(samples) // 2
    return {
        "num_rows": rows,
        "peak_mib": max(samples),
        "first_half_peak_mib": max(samples[: max(1, half)]),
        "second_half_peak_mib": max(samples[half:]),
        "samples_mib": samples,
    }


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Peak by size of the log; flat when the largest is near the smallest."""
    found = spread_by_variant(rows, ["peak_mib", "first_half_peak_mib", "second_half_peak_mib"])
    return {"peaks": found}


def _train(train: Path, options: Mapping[str, Any]) -> list[float]:
    """Train and sample this process's resident memory at every log line, in MiB."""
    import tempfile

    from benchmarks.peers.protocol import Task
    from benchmarks.rankloom_dcnv2 import run_values
    from rankloom import api

    values = run_values(
        train,
        train,
        Task(batch_size=options["batch_size"]),
        {
            "training.log_every_steps": 2,
            "training.buffer_rows": options["buffer_rows"],
            "model.interaction.hidden_dims": [32],
        },
    )
    del values["data"]["valid"]
    samples: list[float] = []

    def sample(_: str) -> None:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        samples.append(pages * 4096 / 2**20)

    with tempfile.TemporaryDirectory() as folder:
        api.train(api.load_run(values), Path(folder) / "run", printer=sample)
    return samples


if __name__ == "__main__":
    print(json.dumps(_train(Path(sys.argv[1]), json.loads(sys.argv[2]))))
