"""DCN-V2 on a Criteo-like log of 1 M rows, end to end from Parquet, beside peers and a floor.

Every run is a process of its own with the same number of threads; the variants take turns, so that
a machine whose speed drifts slows all of them. RankLoom and the floor run with the environment
that the `rankloom` command sets; the peers run as their documentation starts them. The MLPs of
RankLoom and of the floor have batch normalization, as that of torch-rechub always has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.criteo_like import write_log
from benchmarks.harness import ROOT, Cell, Row, run_module, spread_by_variant
from benchmarks.peers.environment import run_peer
from benchmarks.peers.protocol import Task

LOGS = ROOT / ".bench" / "throughput"
OURS = {"rankloom": "rankloom_dcnv2", "floor": "floor_dcnv2"}
SETTINGS: dict[str, Any] = {
    "num_rows": 1_000_000,
    "valid_rows": 100_000,
    "log_seed": 1,
    "task": {"num_threads": 2},
    # Both scripts have it; here it keeps rows without it from being taken for rows with it.
    "ours": {"norm": "batch"},
    "variants": ["rankloom", "floor", "deepctr_torch", "torch_rechub", "fuxictr"],
    "repeats": 3,
}
MEASURED = ("samples_per_s", "auc", "log_loss", "train_s", "preprocessing_s", "total_s")


def planned_cells(settings: Mapping[str, Any]) -> list[Cell]:
    """One cell for each contender and repeat; the repeat seeds the model."""
    shared = {key: settings[key] for key in ("num_rows", "valid_rows", "log_seed", "task")}
    return [
        Cell(variant, repeat, shared | (settings["ours"] if variant in OURS else {}))
        for repeat in range(settings["repeats"])
        for variant in settings["variants"]
    ]


def run_cell(cell: Cell) -> dict[str, Any]:
    """Train one contender in a process of its own."""
    options = cell.options
    log = write_log(
        LOGS,
        num_rows=options["num_rows"],
        seed=options["log_seed"],
        valid_rows=options["valid_rows"],
    )
    task = Task(**options["task"], seed=cell.repeat + 1)
    if cell.variant in OURS:
        return _run_ours(OURS[cell.variant], log.train, log.valid, task)
    return run_peer(cell.variant, log.train, log.valid, task)


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Medians by contender, and the ratios that the goals name, over repeats that all have."""
    by_variant: dict[str, list[Row]] = {}
    for row in rows:
        by_variant.setdefault(row["variant"], []).append(row)

    def middle(variant: str, key: str) -> float | None:
        found = by_variant.get(variant)
        return median(row["measured"][key] for row in found) if found else None

    peers = [name for name in by_variant if name not in OURS]
    speed, floor = middle("rankloom", "samples_per_s"), middle("floor", "samples_per_s")
    best_peer = max((middle(name, "samples_per_s") or 0.0 for name in peers), default=None)
    best_auc = max((middle(name, "auc") or 0.0 for name in peers), default=None)
    total, fuxictr = middle("rankloom", "total_s"), middle("fuxictr", "total_s")
    auc = middle("rankloom", "auc")
    return {
        "results": spread_by_variant(rows, MEASURED),
        "rankloom_over_floor": _ratio(speed, floor),
        "rankloom_over_best_peer": _ratio(speed, best_peer),
        "fuxictr_total_over_rankloom_total": _ratio(fuxictr, total),
        "auc_minus_best_peer": None if auc is None or not best_auc else auc - best_auc,
    }


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    return numerator / denominator if numerator and denominator else None


def _run_ours(module: str, train: Path, valid: Path, task: Task) -> dict[str, Any]:
    threads = str(task.num_threads)
    report: dict[str, Any] = run_module(
        module,
        str(train),
        str(valid),
        *("--task", json.dumps(asdict(task))),
        environ={"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
    )
    return report
