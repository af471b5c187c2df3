"""A small log and a small run of it: a whole training takes a second."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from rankloom.api import TrainResult, load_run, train
from rankloom.api.result import RunFolder
from rankloom.cli.main import ENVIRONMENT, main
from rankloom.data.datasets.synthetic import prepare_synthetic
from rankloom.tensor_files import read_tensors
from rankloom.training.checkpoint import FILES, read_manifest
from rankloom.training.hooks import read_metrics

SPLITS = ("train", "valid", "test")
ROW_COLUMNS = ("item_id", "release_year", "genres", "rating")
SPEEDS = {"rows_per_s", "flops_per_s", "matmul_share"}
STEPS_PER_EPOCH = 13
"""Of the flat log: 1,616 rows in batches of 128."""

VALUES: dict[str, Any] = {
    "schema": {
        "user_id": {"side": "user", "kind": "sparse", "table": "user", "vocabulary": {}},
        "age": {"side": "user", "kind": "dense", "encode": {"kind": "quantile", "num_buckets": 4}},
        "history": {
            "side": "user",
            "kind": "sequence",
            "time": "history_time",
            "first_event": "history_first_event",
            "max_length": 8,
            "columns": {"item_id": {"table": "item"}, "rating": {"num_embeddings": 6}},
        },
        "hour": {"side": "context", "kind": "sparse", "num_embeddings": 24},
        "item_id": {"side": "item", "kind": "sparse", "table": "item", "vocabulary": {}},
        "release_year": {"side": "item", "kind": "dense", "encode": {"kind": "linear"}},
        "genres": {"side": "item", "kind": "sparse", "pooling": "mean", "vocabulary": {}},
    },
    "roles": {
        "user": "user_id",
        "item": "item_id",
        "event_time": "timestamp",
        "request": "request_id",
    },
    "tasks": {
        "like": {"kind": "binary", "label": "rating >= 4"},
        "love": {"kind": "binary", "label": "rating >= 5", "given": "like"},
    },
    "model": {
        "embedding": {"embedding_dim": 4},
        "interaction": {"kind": "mlp", "hidden_dims": [8], "dropout": 0.25},
        "head": {"kind": "shared_bottom", "hidden_dims": [4]},
    },
    "training": {
        "epochs": 2,
        "batch_size": 128,
        "log_every_steps": 5,
        "precision": "fp32",
        "device": "cpu",
        "buffer_rows": 700,
        "seed": 3,
    },
    "evaluation": {"num_resamples": 0, "gauc_by": "user"},
}


def write_small_log(folder: Path) -> Path:
    """Write train, valid and test rows, and the same grouped by request in `grouped/`."""
    sizes = {"num_rows": 2000, "num_users": 60, "num_items": 80}
    prepare_synthetic(folder, **sizes, seed=1, report=lambda _: None)
    for split in SPLITS:
        table = pq.read_table(folder / split / "part-0.parquet")
        path = folder / "grouped" / split / "part-0.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(grouped(table), path)
    return folder


def grouped(table: pa.Table) -> pa.Table:
    """Make one line of each run of rows of one request."""
    request = table["request_id"].to_numpy()
    starts = np.flatnonzero(np.r_[True, request[1:] != request[:-1]])
    offsets = pa.array(np.append(starts, len(request)), pa.int32())
    columns = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if name in ROW_COLUMNS:
            columns[name] = pa.ListArray.from_arrays(offsets, column)
        else:
            columns[name] = column.take(pa.array(starts))
    return pa.table(columns)


def small_values(log: Path, *, layout: str = "flat") -> dict[str, Any]:
    """Give a run file's values for the small log."""
    folder = log if layout == "flat" else log / "grouped"
    files = {split: str(folder / split / "*.parquet") for split in SPLITS}
    return {"data": {**files, "layout": layout}, **VALUES}


def write_run_file(path: Path, values: Mapping[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(dict(values), sort_keys=False))
    return path


def small_train(
    values: Mapping[str, Any], to: Path, overrides: Mapping[str, Any] | None = None, **options: Any
) -> tuple[TrainResult, list[str]]:
    """Train in this process; give the lines that were printed too."""
    lines: list[str] = []
    result = train(load_run(values, overrides or {}), to, printer=lines.append, **options)
    return result, lines


def everything_in(folder: Path) -> dict[str, Any]:
    """Give all that a training leaves behind and that must be the same bit for bit."""
    at = RunFolder(folder)
    found: dict[str, Any] = {}
    for which in ("last", "best"):
        checkpoint = at.checkpoints.path(which)
        assert checkpoint is not None
        found[f"{which}/state"] = read_manifest(checkpoint)["state"]
        for name in FILES:
            found |= {f"{which}/{name}/{k}": t for k, t in read_tensors(checkpoint / name).items()}
    found["metrics"] = [
        {key: value for key, value in record.items() if key not in SPEEDS}
        for record in read_metrics(at.metrics)
    ]
    return found


def rankloom_command(*arguments: str | Path) -> list[str]:
    """Give the installed command, as a shell would start it."""
    return [str(Path(sys.executable).with_name("rankloom")), *map(str, arguments)]


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Run the command in this process and give its exit code."""
    # The command starts anew to set up its allocator, unless it is set up already.
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["rankloom", *map(str, arguments)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def environment(**changes: str) -> dict[str, str]:
    """Give the environment of a process: one thread, and output as it comes."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **changes}


def run_rankloom(
    *arguments: str | Path, cwd: Path, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in a real process."""
    return subprocess.run(
        rankloom_command(*arguments),
        cwd=cwd,
        env=environment(**changes),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
