"""What whole trainings promise beside their numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tests.integration.small import (
    environment,
    grouped,
    small_train,
    small_values,
)

from rankloom.api import evaluate, load_run, new_model
from rankloom.api import training as api_training
from rankloom.api.result import RunFolder
from rankloom.data.transforms import Transforms
from rankloom.evaluation import Evaluation, TaskMetrics
from rankloom.tensor_files import read_tensors
from rankloom.training.checkpoint import read_manifest
from rankloom.training.hooks import read_metrics

quick = pytest.mark.usefixtures("without_extras")
ONE_EPOCH = {"training.epochs": 1}


def tables_of(folder: RunFolder, which: str = "best") -> dict[str, torch.Tensor]:
    checkpoint = folder.checkpoints.path(which)
    assert checkpoint is not None
    return read_tensors(checkpoint / "tables.safetensors")


@quick
def test_warm_start_with_a_grown_schema(log: Path, tmp_path: Path) -> None:
    """Rows are matched by key, whatever their numbers; what has no match is as it would be."""
    # The old log lacks a third of the items, which changes the rows of the others.
    rows = pq.read_table(log / "train" / "part-0.parquet")
    is_old = np.array([int(i.removeprefix("item_")) % 3 > 0 for i in rows["item_id"].to_pylist()])
    old_rows = rows.filter(pa.array(is_old))
    old_values = small_values(log)
    old_values["data"] = {"train": str(tmp_path / "old.parquet")}
    old_values["schema"] = {
        k: v for k, v in old_values["schema"].items() if k not in {"genres", "history"}
    }
    pq.write_table(old_rows, tmp_path / "old.parquet")
    old, _ = small_train(old_values, tmp_path / "old", ONE_EPOCH)

    overrides = {**ONE_EPOCH, "training.warm_start": str(tmp_path / "old")}
    # No step moves anything, so that the checkpoint holds what the training began with.
    still = {
        "training.dense": {"kind": "adamw", "lr": 1e-30},
        "training.sparse": {"kind": "adam", "lr": 1e-30},
    }
    new, lines = small_train(small_values(log), tmp_path / "new", overrides | still)
    said = next(line for line in lines if line.startswith("warm start from "))
    fresh = new_model(new.run, new.transforms).embedder.tables()

    was, now = tables_of(old.folder), tables_of(new.folder)
    old_keys, new_keys = (
        one.transforms.vocabularies["item"].keys.to_pylist() for one in (old, new)
    )
    matched = [key for key in new_keys if key in old_keys]
    assert 0 < len(matched) < len(new_keys)
    assert [old_keys.index(key) for key in matched] != [new_keys.index(key) for key in matched]
    for number, key in enumerate(new_keys):
        row = now["item"][2 + number]
        if key in old_keys:
            assert torch.equal(row, was["item"][2 + old_keys.index(key)]), key
        else:
            assert torch.equal(row, fresh["item"][2 + number]), key
    # Tables that the old run has not are as they would be; the two special rows are taken.
    new_tables = ("genres", "history.rating")
    for name in new_tables:
        assert torch.equal(now[name], fresh[name])
    assert torch.equal(now["item"][:2], was["item"][:2])
    num_rows = sum(len(table) for table in fresh.values())
    num_new = len(new_keys) - len(matched) + sum(len(fresh[name]) for name in new_tables)
    assert f"({num_rows - num_new:,} of {num_rows:,} rows)" in said


def fake_evaluations(values: list[float]) -> Any:
    """Give an evaluation that finds one value after the other."""
    found = iter(values)

    def evaluated(*_: object, **__: object) -> Evaluation:
        return Evaluation("valid", {"like": TaskMetrics(1, {"auc": next(found)})})

    return evaluated


@quick
@pytest.mark.parametrize(
    ("values", "epochs", "best"),
    [
        ([0.5, 0.7, 0.6, 0.65], 4, 2),
        ([0.5, 0.4, 0.6, 0.59, 0.58], 5, 3),
        ([0.5, 0.6, 0.7, 0.8, 0.9, 0.95], 6, 6),
        ([float("nan"), 0.4, 0.3, float("nan")], 4, 2),
    ],
)
def test_early_stopping(
    log: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: list[float],
    epochs: int,
    best: int,
) -> None:
    monkeypatch.setattr(api_training, "evaluate_split", fake_evaluations(values))
    result, _ = small_train(
        small_values(log),
        tmp_path / "run",
        {"training.epochs": 6, "training.early_stopping": {"metric": "like/auc", "patience": 2}},
    )
    last, kept = (result.folder.checkpoints.path(which) for which in ("last", "best"))
    assert last is not None
    assert kept is not None
    assert read_manifest(last)["state"]["step"] == 13 * epochs
    assert read_manifest(kept)["state"]["step"] == 13 * best
    # The result has the best weights, not the last ones.
    for name, table in tables_of(result.folder, "best").items():
        if not name.startswith("numeric/"):
            assert torch.equal(result.model.embedder.tables()[name], table)
    is_last = torch.equal(
        tables_of(result.folder, "best")["item"], tables_of(result.folder, "last")["item"]
    )
    assert is_last == (best == epochs)


HASHED_ITEM = {"side": "item", "kind": "sparse", "table": "item", "hash_buckets": 200}


@quick
def test_a_grouped_log_trains_like_the_flat_one(log: Path, tmp_path: Path) -> None:
    table = pq.read_table(log / "train" / "part-0.parquet").slice(0, 1600)
    # Requests of four rows each, so that batches of both logs hold the same rows.
    first_of_four = pa.array(np.arange(1600) // 4 * 4)
    for name in table.column_names:
        if name not in {"item_id", "release_year", "genres", "rating"}:
            column = table[name].combine_chunks().take(first_of_four)
            table = table.set_column(table.schema.get_field_index(name), name, column)
    numbers = pa.array(np.arange(1600) // 4)
    table = table.set_column(table.schema.get_field_index("request_id"), "request_id", numbers)
    losses = {}
    for layout, rows in (("flat", table), ("grouped", grouped(table))):
        path = tmp_path / f"{layout}.parquet"
        pq.write_table(rows, path)
        values = small_values(log)
        # What is fitted counts lines, of which a grouped log has fewer: rows would be others.
        values["schema"] = {k: v for k, v in values["schema"].items() if k != "age"}
        values["schema"]["item_id"] = HASHED_ITEM
        overrides = {
            "data": {"train": str(path), "valid": None, "test": None, "layout": layout},
            "model.interaction.dropout": 0.0,
            "training.shuffle": False,
            "training.batch_size": 80,
            "training.log_every_steps": 1,
        }
        result, _ = small_train(values, tmp_path / layout, overrides)
        losses[layout] = [record["losses"] for record in read_metrics(result.folder.metrics)]
    assert len(losses["flat"]) == len(losses["grouped"]) == 40
    for flat, of_requests in zip(losses["flat"], losses["grouped"], strict=True):
        # Sums over a user's rows are taken in another order: rounding, which grows by steps.
        assert of_requests == pytest.approx(flat, rel=1e-5)
    assert losses["flat"][-1]["like"] != pytest.approx(losses["flat"][0]["like"], rel=1e-2)


@quick
def test_each_table_has_its_own_rate(log: Path, tmp_path: Path) -> None:
    """A table whose rate is next to nothing stays where it began, and the others move."""
    overrides = {
        **ONE_EPOCH,
        "training.sparse": {"kind": "adam", "lr": 0.01, "tables": {"item": {"lr": 1e-30}}},
    }
    result, _ = small_train(small_values(log), tmp_path / "run", overrides)
    fresh = new_model(result.run, result.transforms).embedder.tables()
    trained = tables_of(result.folder)
    assert torch.equal(trained["item"], fresh["item"])
    for name in ("user", "hour", "genres"):
        assert not torch.allclose(trained[name], fresh[name], atol=1e-3), name


def test_what_a_training_leaves_in_its_folder(log: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result, _ = small_train(small_values(log), tmp_path / "run")
    assert sorted(path.name for path in result.folder.path.iterdir()) == [
        "checkpoints",
        "metrics.jsonl",
        "report.html",
        "run.yaml",
        "tensorboard",
        "transforms",
    ]
    # Records every five steps and at the end of each epoch of 13.
    records = read_metrics(result.folder.metrics)
    assert [(r["kind"], r["step"]) for r in records] == [
        *[("step", step) for step in (5, 10, 13)],
        ("evaluation", 13),
        *[("step", step) for step in (18, 23, 26)],
        ("evaluation", 26),
    ]
    events = EventAccumulator(str(result.folder.tensorboard)).Reload()
    assert {"loss/like", "loss/love", "speed/rows_per_s", "optimizer/lr_dense"} <= set(
        events.Tags()["scalars"]
    )
    losses = [(event.step, event.value) for event in events.Scalars("loss/like")]
    assert losses == [
        (r["step"], pytest.approx(r["losses"]["like"])) for r in records if r["kind"] == "step"
    ]
    auc = [event.value for event in events.Scalars("valid/like/auc")]
    assert auc == [
        pytest.approx(r["metrics"]["like/auc"]) for r in records if r["kind"] == "evaluation"
    ]
    before = result.folder.report.read_text()
    evaluate(result)
    after = result.folder.report.read_text()
    assert "<h2>test</h2>" not in before
    assert "<h2>test</h2>" in after


def test_resumed_events_hide_what_is_made_again(log: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from rankloom.training.hooks import StepRecord, TensorBoardHook

    def record(step: int, loss: float) -> StepRecord:
        speeds = {"rows_per_s": 1.0, "flops_per_s": 1.0, "matmul_share": 0.1}
        rates = {"lr_dense": 0.1, "lr_sparse": 0.1, "grad_norm": None}
        return StepRecord(
            step=step, epoch=0, progress=0.5, losses={"like": loss}, **rates, **speeds
        )

    for from_step, loss in ((0, 1.0), (4, 2.0)):
        hook = TensorBoardHook(tmp_path, from_step=from_step)
        for step in range(from_step + 2, 9, 2):
            hook.on_step(record(step, loss))
        hook.close()
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("loss/like")
    assert [(e.step, e.value) for e in events] == [(2, 1.0), (4, 1.0), (6, 2.0), (8, 2.0)]


@quick
def test_slices_have_the_names_of_their_values(log: Path, tmp_path: Path) -> None:
    overrides = {**ONE_EPOCH, "evaluation.slices": ["gender", "weekday"]}
    result, _ = small_train(small_values(log), tmp_path / "run", overrides)
    found = evaluate(result)
    rows = pq.read_table(log / "test" / "part-0.parquet")
    for column in ("gender", "weekday"):
        values = rows[column].to_pylist()
        assert {name: one["like"].num_rows for name, one in found.slices[column].items()} == {
            str(value): values.count(value) for value in set(values)
        }
    assert json.loads(result.folder.evaluation.read_text())["test"]["slices"].keys() == {
        "gender",
        "weekday",
    }


@quick
def test_gauc_by_request_is_not_that_by_user(log: Path, tmp_path: Path) -> None:
    found = {}
    for group in ("user", "request"):
        overrides = {**ONE_EPOCH, "evaluation.gauc_by": group}
        result, _ = small_train(small_values(log), tmp_path / group, overrides)
        found[group] = evaluate(result).tasks["like"]
    user, request = found["user"], found["request"]
    assert user.metrics["auc"] == request.metrics["auc"]
    assert user.metrics["gauc"] != request.metrics["gauc"]
    # Most requests have two or three rows, and often of one class.
    assert user.one_class_group_share is not None
    assert request.one_class_group_share is not None
    assert user.one_class_group_share < request.one_class_group_share < 1


@quick
@pytest.mark.parametrize(
    ("metrics", "chosen"), [(["log_loss"], "log_loss"), (["calibration", "auc"], "auc")]
)
def test_the_best_checkpoint_is_chosen_by_a_metric_that_is_there(
    log: Path, tmp_path: Path, metrics: list[str], chosen: str
) -> None:
    result, _ = small_train(small_values(log), tmp_path / "run", {"evaluation.metrics": metrics})
    values = [
        record["metrics"][f"like/{chosen}"]
        for record in read_metrics(result.folder.metrics)
        if record["kind"] == "evaluation"
    ]
    best = (min if chosen == "log_loss" else max)(values)
    last = result.folder.checkpoints.path("last")
    assert last is not None
    assert read_manifest(last)["state"]["best_value"] == best


@quick
def test_an_evaluation_is_forgotten_when_the_training_goes_on(log: Path, tmp_path: Path) -> None:
    result, _ = small_train(small_values(log), tmp_path / "run")
    evaluate(result)
    manifest = result.folder.checkpoints.path("last") / "manifest.json"  # type: ignore[operator]
    values = json.loads(manifest.read_text())
    values["state"]["is_finished"] = False
    values["state"]["epoch"] = 1
    manifest.write_text(json.dumps(values))
    api_training.resume(tmp_path / "run", printer=lambda _: None)
    assert not result.folder.evaluation.exists()


def test_the_fitted_values_are_kept(log: Path, tmp_path: Path) -> None:
    run = load_run(small_values(log))
    transforms = api_training.fit(run)
    transforms.save(tmp_path)
    assert Transforms.load(tmp_path).digest == transforms.digest


LARGE = """
import resource, sys
from pathlib import Path
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
import rankloom

folder, rows = Path(sys.argv[1]), int(sys.argv[2])
generator = np.random.default_rng(0)
log = pa.table({"item": generator.integers(0, rows, 512), "click": np.arange(512) % 2})
pq.write_table(log, folder / "log.parquet")
run = rankloom.load_run({
    "data": {"train": str(folder / "log.parquet")},
    "schema": {"item": {"side": "item", "kind": "sparse", "num_embeddings": rows}},
    "tasks": {"click": {"kind": "binary", "label": "click"}},
    "model": {
        "embedding": {"embedding_dim": 16},
        "interaction": {"kind": "mlp", "hidden_dims": [8]},
    },
    "training": {"batch_size": 512, "precision": "fp32", "device": "cpu"},
})
rankloom.train(run, folder / "run")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_a_large_table_trains_in_memory_proportional_to_it(tmp_path: Path) -> None:
    """50 M rows of 16, a step and its checkpoint: the table, an accumulator a row, little more."""
    rows = 50_000_000
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path), str(rows)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout.splitlines()[-1])
    assert peak < 1.4 * rows * 16 * 4 + 2**30
