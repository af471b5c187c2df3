"""Trains a recipe for one short epoch on a prepared data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import rankloom as rl
from rankloom.evaluation.result import TaskMetrics

RECIPES = Path(__file__).resolve().parents[3] / "recipes"


def train_recipe(
    name: str, prepared: Path, run: Path, overrides: Mapping[str, object] | None = None
) -> dict[str, TaskMetrics]:
    """Train, with some values of the recipe changed, and give the metrics of the test split."""
    values: dict[str, object] = {
        f"data.{split}": f"{prepared}/{split}/*.parquet" for split in ("train", "valid", "test")
    }
    values |= {"training.epochs": 1, "training.batch_size": 64, "model.embedding.embedding_dim": 4}
    values |= {"evaluation.num_resamples": 0, **(overrides or {})}
    result = rl.train(rl.load_run(RECIPES / name, values), run)
    return rl.evaluate(result, "test").tasks
