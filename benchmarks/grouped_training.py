"""Training on a log grouped by request, 30 candidates each: hoisted beside row by row.

The same run file twice, `training.hoist` on and off, in turns; the log is read, embedded and
shuffled in the same way by both, so that the losses can be compared step by step. Models:

- `din`: a history of 50 events read by DIN's activation unit, an MLP over all features;
- `ug_sep`: RankMixer with as many user tokens as candidate tokens, kept apart (UG-Sep).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import ROOT, Cell, Row, by_variant, spread
from rankloom import api
from rankloom.training.hooks import read_metrics

LOGS = ROOT / ".bench" / "grouped"
NUM_IDS, LENGTH, CANDIDATES = 1000, 50, 30
COLUMNS = {"user": 20, "moment": 4, "item": 8}
SETTINGS: dict[str, Any] = {
    "num_requests": 2000,
    "batch_size": 1920,
    "models": ["din", "ug_sep"],
    "repeats": 3,
}


def planned_cells(settings: Mapping[str, Any]) -> list[Cell]:
    """One cell for each model and repeat; each trains both ways."""
    options = {key: settings[key] for key in ("num_requests", "batch_size")}
    return [
        Cell(model, repeat, options)
        for repeat in range(settings["repeats"])
        for model in settings["models"]
    ]


def run_cell(cell: Cell) -> dict[str, Any]:
    """Train one model hoisted and row by row, the first one changing from repeat to repeat."""
    log = write_log(LOGS / f"{cell.options['num_requests']}.parquet", cell.options["num_requests"])
    ways = [True, False] if cell.repeat % 2 else [False, True]
    found = {hoist: _train(cell, log, hoist=hoist) for hoist in ways}
    losses = {hoist: np.array(one["losses"]) for hoist, one in found.items()}
    return {
        "rows_per_s": {_name(hoist): one["rows_per_s"] for hoist, one in found.items()},
        "speedup": found[True]["rows_per_s"] / found[False]["rows_per_s"],
        "largest_loss_difference": float(np.abs(losses[True] - losses[False]).max()),
        "losses": {_name(hoist): one["losses"] for hoist, one in found.items()},
    }


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Spread of the speed-up, and medians, by model."""
    return {
        model: {
            "speedup": spread(one["speedup"] for one in group),
            "rows_per_s": {
                way: median(one["rows_per_s"][way] for one in group) for way in ("hoisted", "flat")
            },
            "largest_loss_difference": max(one["largest_loss_difference"] for one in group),
        }
        for model, group in by_variant(rows).items()
    }


def run_values(model: str, log: Path, options: Mapping[str, Any], *, hoist: bool) -> dict[str, Any]:
    """Give the run file's values."""
    sides = {"user": "user", "moment": "context", "item": "item"}
    features: dict[str, Any] = {
        name: {"side": sides[kind], "kind": "sparse", "num_embeddings": NUM_IDS}
        for kind in COLUMNS
        for name in _columns(kind)
    }
    features["history"] = {
        "side": "user",
        "kind": "sequence",
        "columns": {"item": {"table": "item_0"}},
        "max_length": LENGTH,
    }
    return {
        "data": {"train": str(log), "layout": "grouped"},
        "schema": features,
        "tasks": {"click": {"kind": "binary", "label": "label"}},
        "model": _model(model),
        "training": {
            "epochs": 1,
            "batch_size": options["batch_size"],
            "hoist": hoist,
            "checkpoint_every_steps": None,
            "log_every_steps": 1,
        },
        "evaluation": {"metrics": ["auc"], "num_resamples": 0},
    }


def write_log(path: Path, num_requests: int) -> Path:
    """Write the log, or find it from an earlier call: user columns once, candidates as lists."""
    if path.exists():
        return path
    rng = np.random.default_rng(7)
    columns: dict[str, pa.Array] = {}
    effect = rng.normal(size=(NUM_IDS, 4))
    for kind in ("user", "moment"):
        for name in _columns(kind):
            columns[name] = pa.array(rng.integers(NUM_IDS, size=num_requests))
    items = {
        name: rng.integers(NUM_IDS, size=(num_requests, CANDIDATES)) for name in _columns("item")
    }
    columns |= {name: pa.array(list(values)) for name, values in items.items()}
    columns["history_item"] = pa.array(list(rng.integers(NUM_IDS, size=(num_requests, LENGTH))))
    users = effect[np.asarray(columns["user_0"])][:, None]
    logits = (users * effect[items["item_0"]]).sum(axis=2) - 1
    clicks = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    columns["label"] = pa.array(list(clicks.astype(np.int64)))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    pq.write_table(pa.table(columns), temporary, row_group_size=512)
    temporary.replace(path)
    return path


def _model(name: str) -> dict[str, Any]:
    if name == "din":
        return {
            "embedding": {"embedding_dim": 16},
            "sequence": {"history": {"kind": "din"}},
            "interaction": {"kind": "mlp", "hidden_dims": [256, 128]},
            "head": {"kind": "shared_bottom", "hidden_dims": []},
        }
    users, items = _columns("user"), _columns("item")
    groups = {f"user_{n}": users[n * 7 : (n + 1) * 7] for n in range(3)}
    groups |= {"taste": ["history"], "moment": _columns("moment")}
    groups |= {f"item_{n}": items[n * 3 : (n + 1) * 3] for n in range(3)}
    return {
        "embedding": {"embedding_dim": 16},
        "sequence": {"history": {"kind": "masked_mean"}},
        "tokenization": {"kind": "semantic_groups", "groups": groups, "token_dim": 128},
        "interaction": {"kind": "rankmixer", "num_layers": 3, "separation": {}},
        "head": {"kind": "shared_bottom", "hidden_dims": []},
    }


def _train(cell: Cell, log: Path, *, hoist: bool) -> dict[str, Any]:
    run = api.load_run(run_values(cell.variant, log, cell.options, hoist=hoist))
    with tempfile.TemporaryDirectory() as folder:
        result = api.train(run, Path(folder) / "run", printer=lambda _: None)
        records = [one for one in read_metrics(result.folder.metrics) if one["kind"] == "step"]
    # The first steps make the programs and warm up.
    return {
        "rows_per_s": median(one["rows_per_s"] for one in records[3:]),
        "losses": [one["losses"]["click"] for one in records],
    }


def _columns(kind: str) -> list[str]:
    return [f"{kind}_{number}" for number in range(COLUMNS[kind])]


def _name(hoist: bool) -> str:
    return "hoisted" if hoist else "flat"
