"""Training on a share of the negatives: probabilities are those of the whole log, everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.integration.failing_commands import FailingCommands
from tests.integration.small import everything_in, small_train, small_values

from rankloom.api import TrainResult, evaluate, export, load_run, predict, train
from rankloom.artifact.ranker import load

pytestmark = pytest.mark.usefixtures("without_extras")

RATIO = 0.1
NUM_ROWS = 60_000


@pytest.fixture(scope="module")
def rare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a log with 1.2 % of clicks, and one that holds a tenth of its negatives."""
    folder = tmp_path_factory.mktemp("rare")
    rng = np.random.default_rng(5)
    for split in ("train", "test"):
        item, hour = rng.integers(0, 20, NUM_ROWS), rng.integers(0, 24, NUM_ROWS)
        logits = -4.6 + np.sin(item) + 0.5 * np.cos(hour)
        click = rng.random(NUM_ROWS) < 1 / (1 + np.exp(-logits))
        buy = click & (rng.random(NUM_ROWS) < 0.5)
        table = pa.table({"item": item, "hour": hour, "click": click, "buy": buy})
        pq.write_table(table, folder / f"{split}.parquet")
        kept = click | (rng.random(NUM_ROWS) < RATIO)
        pq.write_table(table.filter(pa.array(kept)), folder / f"{split}-sampled.parquet")
    return folder


def trained(
    folder: Path, to: Path, *, log: str, overrides: dict[str, Any] | None = None
) -> TrainResult:
    values: dict[str, Any] = {
        "data": {"train": str(folder / f"{log}.parquet"), "test": str(folder / "test.parquet")},
        "schema": {
            "hour": {"side": "context", "kind": "sparse", "num_embeddings": 24},
            "item": {"side": "item", "kind": "sparse", "num_embeddings": 20},
        },
        "tasks": {
            "click": {"kind": "binary", "label": "click"},
            "buy": {"kind": "binary", "label": "buy", "given": "click"},
        },
        "model": {"interaction": {"kind": "mlp", "hidden_dims": [8]}},
        "training": {"epochs": 4, "batch_size": 256, "precision": "fp32", "device": "cpu"},
        "evaluation": {"num_resamples": 0},
    }
    return train(load_run(values, overrides or {}), to, printer=lambda _: None)


def calibration(result: TrainResult) -> dict[str, float]:
    found = evaluate(result, "test").tasks
    return {task: one.metrics["calibration"] for task, one in found.items()}


READER = {"data.keep_negatives": {"task": "click", "ratio": RATIO}}
STATED = {"tasks.click.negatives_kept": RATIO}


@pytest.mark.parametrize(
    ("log", "overrides"), [("train", READER), ("train-sampled", STATED)], ids=["reader", "log"]
)
def test_probabilities_are_those_of_the_whole_log(
    rare: Path, tmp_path: Path, log: str, overrides: dict[str, Any]
) -> None:
    result = trained(rare, tmp_path / "run", log=log, overrides=overrides)
    # Some 700 clicks and 350 purchases: three standard errors of the training log's rates, and of
    # the test log's, are 16 % and 23 %.
    found = calibration(result)
    assert found["click"] == pytest.approx(1, abs=0.16)
    assert found["buy"] == pytest.approx(1, abs=0.23)
    predict(result, rare / "test.parquet", tmp_path / "scored.parquet")
    expected = pq.read_table(tmp_path / "scored.parquet").slice(0, 30)
    export(result, tmp_path / "artifact")
    ranker = load(tmp_path / "artifact")
    lines = pq.read_table(rare / "test.parquet").slice(0, 30).to_pylist()
    for number, line in enumerate(lines):
        scores = ranker.score({}, {"item": [line["item"]]}, {"hour": line["hour"]})
        for task in ("click", "buy"):
            wanted = expected[task][number].as_py()
            assert scores[task][0] == pytest.approx(wanted, rel=1e-5)


def test_without_the_correction_they_are_ten_times_too_high(rare: Path, tmp_path: Path) -> None:
    found = calibration(trained(rare, tmp_path / "run", log="train-sampled"))
    assert 7 < found["click"] < 11
    assert 6 < found["buy"] < 12


@pytest.mark.parametrize("layout", ["flat", "grouped"])
def test_keeping_all_negatives_changes_no_bit(log: Path, tmp_path: Path, layout: str) -> None:
    values = small_values(log, layout=layout)
    plain, _ = small_train(values, tmp_path / "plain")
    all_kept = {"data.keep_negatives": {"task": "like", "ratio": 1.0}}
    kept, _ = small_train(values, tmp_path / "kept", all_kept)
    ours, theirs = (everything_in(one.folder.path) for one in (kept, plain))
    for name, value in theirs.items():
        if hasattr(value, "equal"):
            assert value.equal(ours[name]), name
        else:
            assert ours[name] == value, name


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("data.keep_negatives={task: lik, ratio: 0.1}",),
            "data.keep_negatives.task: no task is named 'lik'. Did you mean 'like'?",
        ),
        (
            ("data.keep_negatives={task: love, ratio: 0.1}",),
            "data.keep_negatives.task: must be binary and given none. 'love' is given 'like'.",
        ),
        (
            ("data.keep_negatives={task: like, ratio: 0.1}", "tasks.love.given=null"),
            "without negatives of 'like', tasks not given it learn other rates. Got love.",
        ),
        (
            ("data.keep_negatives={task: like, ratio: 0}",),
            "data.keep_negatives.ratio: must be above 0.0. Got 0.",
        ),
        (("tasks.like.negatives_kept=1.5",), "tasks.like.negatives_kept: must be at most 1."),
        (
            ("tasks.love.negatives_kept=0.5",),
            "tasks.love.negatives_kept: is for a task that is given none. Got 0.5.",
        ),
    ],
)
def test_samples_that_cannot_be_corrected_are_refused(
    at: FailingCommands, options: tuple[str, ...], said: str
) -> None:
    message = at.train(*(part for option in options for part in ("--set", option)))
    assert said in message
    assert at.made == []
