"""AUC against the memory of tables: the unified table beside one table a feature, whole or hashed.

Five ways to spend a number of rows, given as a share of those of one whole table a feature:

    full            one table a feature, a row for each value (share 1 only)
    hashed          one table a feature, each cut to the share, its values hashed into it
    hashed_largest  as full, but the largest tables are hashed into equal sizes that fit the share
    unified_1       the unified table, one lookup a value
    unified_2       the unified table with twice the rows of half the width, two lookups a value

All give the network the same width of each feature, and hold the same memory, but for the few rows
of missing values. Model, optimizer and penalty are those of the log's recipe for all ways. Early
stopping on the validation split, test metrics of its best checkpoint. A twentieth of the rows is
tried on the simulated log alone: of Frappe's 5,399 it would leave 270.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import frappe
from benchmarks.harness import ROOT, Cell, Row, by_variant, spread_by_variant
from benchmarks.simulated_log import LOG, PAST, simulated_log, simulated_run
from rankloom import api
from rankloom.config import read_yaml
from rankloom.data.datasets import prepare_dataset
from rankloom.data.transforms import table_sizes

Values = dict[str, Any]

_OTHER_WAYS = ("vocabulary", "num_embeddings")

SIMULATED = LOG | {"rows.train": 400_000, "rows.valid": 50_000, "rows.test": 150_000}

WAYS = ("full", "hashed", "hashed_largest", "unified_1", "unified_2")
MACHINE_MATTERS = False
SETTINGS: dict[str, Any] = {
    "logs": {"simulated": [1.0, 0.25, 0.05], "frappe": [1.0, 0.25]},
    "models": ["dcn_v2"],
    "ways": list(WAYS),
    "seeds": 3,
    "common": {},
}


@dataclass(frozen=True)
class Log:
    """A data set: its files, and a run file for each model. The first task is what is measured."""

    files: Callable[[], Values]
    """Gives the `data` of the run file; prepares the files where they are not there."""
    values: Callable[[str], Values]
    """From a model's name to all else of the run file, its tables one a feature and whole."""


def frappe_files() -> Values:
    """Prepare Frappe where it is not there."""
    if not (frappe.DATA / "test").is_dir():
        prepare_dataset("frappe", frappe.DATA, report=print)
    return {split: str(frappe.DATA / split / "*.parquet") for split in ("train", "valid", "test")}


def frappe_values(model: str) -> Values:
    """Read the recipe for Frappe."""
    return read_yaml(ROOT / "recipes" / f"frappe_{model}.yaml")


def simulated_files() -> Values:
    """Simulate a log where it is not there."""
    simulated_log(SIMULATED)
    data: Values = simulated_run(SIMULATED)["data"]
    return data


def simulated_values(model: str) -> Values:
    """Give a run file for the simulated log: its clicks, one epoch."""
    return {
        **simulated_run(SIMULATED),
        "model": {
            "embedding": {"embedding_dim": 16},
            "sequence": PAST,
            "interaction": {"kind": model, "hidden_dims": [256, 128]},
            "head": {"kind": "shared_bottom", "hidden_dims": []},
        },
        "training": {
            "epochs": 1,
            "batch_size": 1024,
            "dense": {"kind": "adamw", "lr": 2e-3},
            "sparse": {"kind": "adam", "lr": 2e-3},
        },
    }


LOGS = {
    "frappe": Log(frappe_files, frappe_values),
    "simulated": Log(simulated_files, simulated_values),
}


def planned_cells(settings: Mapping[str, Any]) -> list[Cell]:
    """One cell for each log, model, share, way and seed; whole tables at share 1 only."""
    return [
        Cell(
            f"{log} {model} {share:.0%} {way}",
            seed,
            {
                "log": log,
                "model": model,
                "share": share,
                "way": way,
                "common": settings["common"],
                "run_digest": _digest(log, model),
            },
        )
        for seed in range(settings["seeds"])
        for log, shares in settings["logs"].items()
        for model in settings["models"]
        for share in shares
        for way in settings["ways"]
        if way != "full" or share == 1
    ]


def run_cell(cell: Cell) -> dict[str, Any]:
    """Train one model with one seed; evaluate its best checkpoint on the test split."""
    options = cell.options
    log = LOGS[options["log"]]
    values = {**log.values(options["model"]), "data": log.files()}
    common = {**options["common"], "training.seed": cell.repeat, "evaluation.num_resamples": 0}
    full = api.load_run(values, common)
    sizes = table_sizes(full.schema, api.fit(full))
    run = api.load_run(with_way(full.config.to_dict(), options["way"], options["share"], sizes))
    task = next(iter(run.schema.tasks))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        result = api.train(run, Path(folder) / "run", printer=lambda _: None)
        elapsed = time.perf_counter() - start
        valid = api.evaluate(result, "valid").tasks[task].metrics
        test = api.evaluate(result, "test").tasks[task].metrics
    tables = result.model.embedder.tables()
    return {
        "seed": cell.repeat,
        "auc": test["auc"],
        "log_loss": test["log_loss"],
        "valid_auc": valid["auc"],
        "table_rows": sum(len(table) for table in tables.values()),
        "table_bytes": sum(table.numel() * table.element_size() for table in tables.values()),
        "train_s": elapsed,
    }


def with_way(values: Values, way: str, share: float, sizes: Mapping[str, int]) -> Values:
    """Give a run file whose tables hold a share of the rows, in one of the `WAYS`.

    Args:
        values: A whole run file with its defaults, tables one a feature and whole.
        way: One of `WAYS`.
        share: Of the rows of all tables.
        sizes: Table -> rows of the whole one.
    """
    total = round(share * sum(sizes.values()))
    if way in {"unified_1", "unified_2"}:
        lookups = int(way[-1])
        embedding = values["model"]["embedding"]
        dim = embedding["embedding_dim"]
        if dim % lookups:
            raise ValueError(f"embedding_dim: must be a multiple of {lookups}. Got {dim}.")
        unified = {"hash_buckets": lookups * total - len(sizes), "lookups": lookups}
        tables = {**embedding["tables"], "unified": {"embedding_dim": dim // lookups}}
        embedding = {**embedding, "tables": tables, "unified": unified}
        return {**values, "model": {**values["model"], "embedding": embedding}}
    kept = dict(sizes)
    if way == "hashed":
        kept = {name: max(2, round(share * size)) for name, size in sizes.items()}
    elif way == "hashed_largest":
        limit = _equal_limit(list(sizes.values()), total)
        kept = {name: min(size, limit) for name, size in sizes.items()}
    # A row of each is for missing values.
    hashed = {name: kept[name] - 1 for name in sizes if way == "hashed" or kept[name] < sizes[name]}
    return {**values, "schema": _with_hashes(values["schema"], hashed)}


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Mean and spread over the seeds; and the unified table's gain over each other way, paired."""
    groups = by_variant(rows)
    gains: dict[str, dict[str, Any]] = {}
    for variant, measured in groups.items():
        place, _, way = variant.rpartition(" ")
        if not way.startswith("unified"):
            continue
        for other in ("hashed", "hashed_largest"):
            theirs = {one["seed"]: one["auc"] for one in groups.get(f"{place} {other}", [])}
            pairs = [one["auc"] - theirs[one["seed"]] for one in measured if one["seed"] in theirs]
            if pairs:
                gains.setdefault(variant, {})[f"auc minus {other}"] = {
                    "n": len(pairs),
                    "mean": fmean(pairs),
                    "min": min(pairs),
                    "max": max(pairs),
                }
    keys = ["auc", "log_loss", "valid_auc", "table_bytes"]
    return {"results": spread_by_variant(rows, keys), "gains": gains}


def _equal_limit(sizes: list[int], total: int) -> int:
    """Give the largest size to which all larger tables can be cut so that all fit."""
    left, count = total, len(sizes)
    for size in sorted(sizes):
        if size * count > left:
            return max(2, left // count)
        left, count = left - size, count - 1
    return max(sizes)


def _with_hashes(schema: Values, hashed: Mapping[str, int]) -> Values:
    """Hash the values of some tables; the others stay whole."""
    changed: Values = {}
    for name, feature in schema.items():
        table = feature.get("table") or name
        if table in hashed and any(feature.get(one) is not None for one in _OTHER_WAYS):
            buckets = {"hash_buckets": hashed[table]}
            feature = {**feature, **dict.fromkeys(_OTHER_WAYS), **buckets}
        if "columns" in feature:
            inner = {c: {"table": f"{name}.{c}", **one} for c, one in feature["columns"].items()}
            feature = {**feature, "columns": _with_hashes(inner, hashed)}
        changed[name] = feature
    return changed


def _digest(log: str, model: str) -> str:
    """Give what changes when a run file does, so that its cells start anew; not where it lies."""
    text = json.dumps(LOGS[log].values(model), sort_keys=True).replace(str(ROOT), "")
    return sha256(text.encode()).hexdigest()[:16]
