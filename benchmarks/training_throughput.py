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
from typing import Any

from benchmarks.criteo_like import write_log
from benchmarks.harness import ROOT, Cell, Row, run_module, spread, spread_by_variant
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
    """Medians by contender; ratios within a repeat, over the repeats that both sides have."""
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["repeat"], {})[row["variant"]] = row["measured"]
    compared: dict[str, list[float]] = {}
    for repeat in found.values():
        if "rankloom" not in repeat:
            continue
        ours = repeat["rankloom"]
        peers = [measured for name, measured in repeat.items() if name not in OURS]
        if "floor" in repeat:
            ratio = ours["samples_per_s"] / repeat["floor"]["samples_per_s"]
            compared.setdefault("rankloom_over_floor", []).append(ratio)
        if peers:
            ratio = ours["samples_per_s"] / max(one["samples_per_s"] for one in peers)
            compared.setdefault("rankloom_over_best_peer", []).append(ratio)
            gain = ours["auc"] - max(one["auc"] for one in peers)
            compared.setdefault("auc_minus_best_peer", []).append(gain)
        if "fuxictr" in repeat:
            ratio = repeat["fuxictr"]["total_s"] / ours["total_s"]
            compared.setdefault("fuxictr_total_over_rankloom_total", []).append(ratio)
    return {
        "results": spread_by_variant(rows, MEASURED),
        **{name: spread(values) for name, values in compared.items()},
    }


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
