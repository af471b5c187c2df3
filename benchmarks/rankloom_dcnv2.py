"""RankLoom's side of the DCN-V2 comparison: one epoch, from Parquet, with the public API.

    python -m benchmarks.rankloom_dcnv2 TRAIN.parquet VALID.parquet

The ids of the log are whole numbers below a known bound, as the peers' preprocessing would find by
itself: RankLoom needs no encoding pass for them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from benchmarks.criteo_like import CARDINALITIES, DENSE_COLUMNS, SPARSE_COLUMNS
from benchmarks.peers.protocol import Report, Stopwatch, Task, parse_arguments, print_report
from rankloom import api


def run_values(train: Path, valid: Path, task: Task, options: dict[str, Any]) -> dict[str, Any]:
    """Give the run file's values for the shared task."""
    features: dict[str, Any] = {
        name: {"side": "item", "kind": "sparse", "num_embeddings": size}
        for name, size in zip(SPARSE_COLUMNS, CARDINALITIES, strict=True)
    }
    features |= {
        name: {"side": "item", "kind": "dense", "default": 0.0, "encode": {"kind": "log"}}
        for name in DENSE_COLUMNS
    }
    values: dict[str, Any] = {
        "data": {"train": str(train), "valid": str(valid)},
        "schema": features,
        "tasks": {"click": {"kind": "binary", "label": "label"}},
        "model": {
            "embedding": {"embedding_dim": task.embedding_dim},
            "interaction": {
                "kind": "dcn_v2",
                "structure": "parallel",
                "num_layers": task.num_cross_layers,
                "hidden_dims": list(task.hidden_dims),
                "norm": "batch",
            },
            "head": {"kind": "shared_bottom", "hidden_dims": []},
        },
        "training": {
            "epochs": 1,
            "batch_size": task.batch_size,
            "dense": {"kind": "adamw", "lr": task.learning_rate},
            "sparse": {"kind": "rowwise_adagrad", "lr": 0.03},
            "seed": task.seed,
            "checkpoint_every_steps": None,
            "log_every_steps": 100,
        },
        "evaluation": {"metrics": ["auc", "log_loss"], "num_resamples": 0},
    }
    for path, value in options.items():
        at = values
        *parents, last = path.split(".")
        for name in parents:
            at = at[name]
        at[last] = value
    return values


def run_rankloom(train: Path, valid: Path, task: Task, options: dict[str, Any]) -> Report:
    """Train one epoch from Parquet, with the clock of `peers.protocol`."""
    torch.set_num_threads(task.num_threads)
    values = run_values(train, valid, task, options)
    # The validation log is scored after the clock has stopped, as for the others.
    del values["data"]["valid"]
    run = api.load_run(values)
    with tempfile.TemporaryDirectory() as folder:
        watch = Stopwatch()
        watch.lap("preprocessing")
        result = api.train(run, Path(folder) / "run", printer=lambda _: None)
        watch.lap("train")
        found = api.evaluate(result, "valid", files=(str(valid),)).tasks["click"].metrics
    rows = pq.ParquetFile(train).metadata.num_rows
    train_s = watch.laps["train"]
    return Report(
        preprocessing_s=0.0,
        train_s=round(train_s, 3),
        total_s=round(train_s, 3),
        samples_per_s=round(rows / train_s, 1),
        auc=round(found["auc"], 6),
        log_loss=round(found["log_loss"], 6),
        peak_memory_gib=_peak_memory_gib(),
        num_rows=rows,
        notes=["reads while training; checkpoint, log and report are written within the clock"],
    )


def _peak_memory_gib() -> float:
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def main() -> None:
    """Run and print the report."""
    train, valid, task = parse_arguments(__doc__ or "")
    print_report(run_rankloom(train, valid, task, {}))


if __name__ == "__main__":
    main()
