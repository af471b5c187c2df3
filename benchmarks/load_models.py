"""The two models that `serving_load` and `serving_overload` serve.

- `mixer`: a TokenMixer-Large whose 6 user and 6 item tokens are kept apart (UG-Sep, 1:1);
- `transformer`: the same, with a Transformer over 1,000 events as one more user feature.

Twelve columns a side, of ids below 1,000. Both are trained for some steps and exported by the
public verbs, once for each set of sizes; how good they are does not matter here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import ROOT
from benchmarks.load_requests import COLUMNS, EVENTS, NUM_IDS, LoadRequests
from rankloom import api

ARTIFACTS = ROOT / ".bench" / "serving_load"
TOKENS = 6
"""Of a side."""
SIZES: dict[str, dict[str, Any]] = {
    "mixer": {"token_dim": 96, "num_layers": 2},
    "transformer": {
        "token_dim": 72,
        "num_layers": 2,
        "history": {"num_layers": 2, "dim": 48, "num_heads": 2},
    },
}


def artifact_of(model: str, sizes: Mapping[str, Any]) -> Path:
    """Give a model's artifact, made the first time; the run stands beside it as `run`.

    Args:
        model: Of `SIZES`.
        sizes: As there.
    """
    digest = hashlib.sha256(json.dumps(dict(sizes), sort_keys=True).encode()).hexdigest()[:12]
    folder = ARTIFACTS / f"{model}-{digest}"
    if not (folder / "artifact").exists():
        log = _write_log(folder / "log" / "part-0.parquet", has_history="history" in sizes)
        run = api.load_run(_run_values(log, sizes))
        result = api.train(run, folder / "run", printer=lambda _: None, overwrite=True)
        api.export(result, folder / "artifact")
    return folder / "artifact"


def _run_values(log: Path, sizes: Mapping[str, Any]) -> dict[str, Any]:
    ids = {"kind": "sparse", "num_embeddings": NUM_IDS}
    schema: dict[str, Any] = {
        f"{side}_{n}": {"side": side, **ids} for side in ("user", "item") for n in range(COLUMNS)
    }
    groups = {
        f"{side}s_{n}": [f"{side}_{c}" for c in range(n, COLUMNS, TOKENS)]
        for side in ("user", "item")
        for n in range(TOKENS)
    }
    model: dict[str, Any] = {"embedding": {"embedding_dim": 16}}
    if "history" in sizes:
        schema["item_0"]["table"] = "item"
        schema["history"] = {
            "side": "user",
            "kind": "sequence",
            "max_length": EVENTS,
            "columns": {"item_0": {"table": "item"}},
        }
        # Read by no candidate, as in SASRec: the whole encoder is the user's.
        encoder = {"kind": "transformer", "read": "newest", **sizes["history"]}
        model["sequence"] = {"history": encoder}
        groups["users_0"].append("history")
    return {
        "data": {"train": str(log), "valid": str(log)},
        "schema": schema,
        "tasks": {"click": {"kind": "binary", "label": "label"}},
        "model": {
            **model,
            "tokenization": {
                "kind": "semantic_groups",
                "groups": groups,
                "token_dim": sizes["token_dim"],
            },
            "interaction": {
                "kind": "tokenmixer_large",
                "num_layers": sizes["num_layers"],
                "separation": {},
            },
            "head": {"kind": "shared_bottom", "hidden_dims": [64]},
        },
        "training": {"epochs": 1, "batch_size": 64, "seed": 1},
        "evaluation": {"num_resamples": 0},
    }


def _write_log(path: Path, *, has_history: bool, num_rows: int = 512) -> Path:
    requests = LoadRequests(has_history=has_history, seed=7)
    rows = [
        {**requests.user(), **{name: int(one[0]) for name, one in requests.candidates(1).items()}}
        for _ in range(num_rows)
    ]
    table = {name: [row[name] for row in rows] for name in rows[0]}
    table["label"] = [row["user_0"] % 2 for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path)
    return path
