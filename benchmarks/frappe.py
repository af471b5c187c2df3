"""Frappe_x1 (rebuilt training negatives): AUC and log loss of four architectures over seeds.

Early stopping on the validation split, test metrics of its best checkpoint. BARS stands beside the
results for information: its training file is not ours (see the data set's notes).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, Cell, Row, spread_by_variant
from rankloom import api
from rankloom.data.datasets import prepare_dataset
from rankloom.training.hooks import read_metrics

DATA = ROOT / ".bench" / "frappe"
SPLIT = "Frappe_x1 test split, rebuilt training negatives"
BARS = {
    "source": "BARS leaderboard of Frappe_x1 (Zhu et al., SIGIR 2022), official training file",
    "DNN": {"auc": 0.9833, "log_loss": 0.1622},
    "DeepFM": {"auc": 0.9842, "log_loss": 0.1482},
    "DCN-V2": {"auc": 0.9845, "log_loss": 0.1491},
}
# Options were chosen on the validation split with seed 0: DCN V2's by hand, TokenMixer-Large's
# among eleven (heads, width, layers, dropout, penalty, rates). RankMixer and MLP take over DCN V2's
# schedule and penalty.
RECIPES = ("dcn_v2", "tokenmixer_large", "rankmixer", "mlp")
VARIANTS: dict[str, dict[str, Any]] = {
    f"{recipe} dim={dim}": {"recipe": recipe, "model.embedding.embedding_dim": dim}
    for dim in (10, 20)
    for recipe in RECIPES
}
MACHINE_MATTERS = False
SETTINGS: dict[str, Any] = {"seeds": 5, "common": {}, "variants": VARIANTS}


def planned_cells(settings: Mapping[str, Any]) -> list[Cell]:
    """One cell for each variant and seed; a changed recipe is another cell."""
    return [
        Cell(
            variant,
            seed,
            {
                **settings["common"],
                **options,
                "recipe_digest": sha256(_recipe(options["recipe"]).read_bytes()).hexdigest()[:16],
            },
        )
        for seed in range(settings["seeds"])
        for variant, options in settings["variants"].items()
    ]


def run_cell(cell: Cell) -> dict[str, Any]:
    """Train one architecture with one seed; evaluate its best checkpoint on the test split."""
    if not (DATA / "test").is_dir():
        prepare_dataset("frappe", DATA, report=print)
    options = dict(cell.options)
    recipe = _recipe(options.pop("recipe"))
    del options["recipe_digest"]
    paths = {f"data.{s}": str(DATA / s / "*.parquet") for s in ("train", "valid", "test")}
    run = api.load_run(
        recipe,
        {**paths, **options, "training.seed": cell.repeat, "evaluation.num_resamples": 0},
    )
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        result = api.train(run, Path(folder) / "run", printer=lambda _: None)
        elapsed = time.perf_counter() - start
        valid = api.evaluate(result, "valid").tasks["use"].metrics
        test = api.evaluate(result, "test").tasks["use"].metrics
        records = read_metrics(result.folder.metrics)
        epochs = sum(record["kind"] == "evaluation" for record in records)
    return {
        "auc": test["auc"],
        "log_loss": test["log_loss"],
        "valid_auc": valid["auc"],
        "valid_log_loss": valid["log_loss"],
        "train_s": elapsed,
        "epochs": epochs,
    }


def _recipe(name: str) -> Path:
    return ROOT / "recipes" / f"frappe_{name}.yaml"


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Mean and spread over the seeds, with BARS beside."""
    return {
        "data": SPLIT,
        "results": spread_by_variant(rows, ["auc", "log_loss", "valid_auc", "epochs"]),
        "bars": BARS,
    }
