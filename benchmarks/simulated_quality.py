"""How much of a known ceiling each architecture reaches, and which part of the signal it misses.

The log is simulated, so the best possible ranking is known. Quality is the share of the gap closed
between logistic regression and the truth, by AUC of clicks on 500,000 test rows. The truth is that
without the position, which no model knows when it ranks: it is a training-only feature.

A part's recovery is its coefficient when a model's logit is regressed on the true parts of the
logit: 1 where a model has learned all of the part, 0 where none.

All architectures read the same columns with the same encoders of histories, at about equal FLOPs a
row (0.8 to 1 million); TokenMixer-Large also with a third and three times of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from benchmarks.harness import Cell, Row, by_variant, spread
from benchmarks.simulated_log import LOG, PAST, simulated_log, simulated_run
from rankloom import api
from rankloom.metrics import auc
from rankloom.models.cost import model_cost

PARTS = ("main", "taste", "pairs", "triples", "near_past", "far_past", "scenario")
TOKENS = {
    "user": ["user_id", "membership"],
    "profile": ["gender", "age", "city", "device"],
    "moment": ["hour", "weekday", "network"],
    "scenario": ["scenario"],
    "history": ["history"],
    "near_past": ["near_past"],
    "item": ["item_id", "creator", "duration_s"],
    "category": ["category"],
    "style": ["tag", "price", "style", "position"],
}
BASELINE = "linear"


def _tokens(dim: int, **interaction: Any) -> dict[str, Any]:
    return {
        "tokenization": {"kind": "semantic_groups", "token_dim": dim, "groups": TOKENS},
        "interaction": interaction,
    }


VARIANTS: dict[str, dict[str, Any]] = {
    "linear": {"embedding": {"embedding_dim": 1}, "interaction": {"kind": "linear"}},
    "mlp": {"interaction": {"kind": "mlp", "hidden_dims": [768, 256]}},
    "dcn_v2": {
        "interaction": {
            "kind": "dcn_v2",
            "structure": "parallel",
            "num_layers": 2,
            "hidden_dims": [256, 128],
        }
    },
    "rankmixer": _tokens(72, kind="rankmixer", num_layers=2, expansion=2),
    "tokenmixer_large": _tokens(63, kind="tokenmixer_large", num_layers=2),
    "tokenmixer_large separated": _tokens(
        63, kind="tokenmixer_large", num_layers=2, separation={"compensation": "low_rank"}
    ),
    "tokenmixer_large small": _tokens(36, kind="tokenmixer_large", num_layers=2),
    "tokenmixer_large large": _tokens(90, kind="tokenmixer_large", num_layers=3),
}
MACHINE_MATTERS = False
SETTINGS: dict[str, Any] = {
    "seeds": 3,
    "log": LOG,
    "training": {
        "epochs": 1,
        "batch_size": 1024,
        "dense": {"kind": "adamw", "lr": 2e-3},
        "sparse": {"kind": "adam", "lr": 2e-3},
    },
    "variants": VARIANTS,
}


def planned_cells(settings: Mapping[str, Any]) -> list[Cell]:
    """One cell for each architecture and seed."""
    common = {name: settings[name] for name in ("log", "training")}
    return [
        Cell(variant, seed, {**common, "model": model})
        for seed in range(settings["seeds"])
        for variant, model in settings["variants"].items()
    ]


def run_cell(cell: Cell) -> dict[str, Any]:
    """Train one architecture with one seed; compare it with the truth on the test split."""
    folder = simulated_log(cell.options["log"])
    run = api.load_run(
        {
            **simulated_run(cell.options["log"]),
            "model": {
                "embedding": {"embedding_dim": 16},
                "sequence": PAST,
                "head": {"kind": "shared_bottom", "hidden_dims": []},
                **cell.options["model"],
            },
            "training": {
                **cell.options["training"],
                "seed": cell.repeat,
                "checkpoint_every_steps": None,
            },
            "evaluation": {"metrics": ["auc", "gauc", "log_loss"], "num_resamples": 0},
        }
    )
    with tempfile.TemporaryDirectory() as temporary:
        result = api.train(run, Path(temporary) / "run", printer=lambda _: None)
        metrics = api.evaluate(result, "test").tasks["click"].metrics
        truth, logit = [], []
        for file in sorted((folder / "test").iterdir()):
            scored = Path(temporary) / "scored.parquet"
            api.predict(result, file, scored, columns=["request_id"])
            p = _column(scored, "click").astype(np.float64)
            logit.append(np.log(p) - np.log1p(-p))
            truth.append({name: _column(file, f"oracle_part_{name}") for name in PARTS})
    parts = {name: np.concatenate([one[name] for one in truth]) for name in PARTS}
    return {
        "seed": cell.repeat,
        **{name: metrics[name] for name in ("auc", "gauc", "log_loss")},
        "recovery": recovery(np.concatenate(logit), parts),
        "flops_per_row": model_cost(result.model).flops_per_row,
        "oracle": oracle(folder),
    }


def recovery(
    logit: npt.NDArray[np.float64], parts: Mapping[str, npt.NDArray[np.generic]]
) -> dict[str, float]:
    """Give each true part's coefficient in a model's logit, and the share of it that they explain.

    Args:
        logit: (V,) of a model.
        parts: Part -> (V,) of the true logit.
    """
    columns = np.stack([np.ones(len(logit)), *(parts[name] for name in parts)], axis=1)
    solved, *_ = np.linalg.lstsq(columns, logit, rcond=None)
    rest = logit - columns @ solved
    explained = 1 - rest.var() / logit.var()
    return {**dict(zip(parts, solved[1:].tolist(), strict=True)), "explained": float(explained)}


def oracle(folder: Path) -> dict[str, float]:
    """Give the AUC of the truth without the position on the test split, exactly."""
    files = sorted((folder / "test").iterdir())
    label, truth = (
        np.concatenate([_column(file, name) for file in files])
        for name in ("click", "oracle_click_unbiased")
    )
    return {"auc": auc(label, truth), "rows": len(label)}


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Share of the gap closed, by seed against that seed's logistic regression."""
    groups = by_variant(rows)
    base = {one["seed"]: one["auc"] for one in groups.get(BASELINE, [])}
    found: dict[str, Any] = {}
    for variant, group in groups.items():
        closed = [
            (one["auc"] - base[one["seed"]]) / (one["oracle"]["auc"] - base[one["seed"]])
            for one in group
            if one["seed"] in base
        ]
        found[variant] = {
            **{name: spread(one[name] for one in group) for name in ("auc", "gauc", "log_loss")},
            **({"gap_closed": spread(closed)} if closed else {}),
            "recovery": {
                part: spread(one["recovery"][part] for one in group)
                for part in (*PARTS, "explained")
            },
            "flops_per_row": group[0]["flops_per_row"],
        }
    return {"oracle": rows[0]["measured"]["oracle"] if rows else None, "variants": found}


def _column(file: Path, name: str) -> npt.NDArray[np.generic]:
    """Read a candidates' column of a grouped file, (V,)."""
    column = pq.read_table(file, columns=[name])[name].combine_chunks()
    return column.values.to_numpy() if hasattr(column, "values") else column.to_numpy()
