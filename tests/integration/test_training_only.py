"""A position: learned from in training, the same constant in evaluation, prediction and serving."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.integration.failing_commands import FailingCommands
from tests.integration.small import ROW_COLUMNS, SPLITS, everything_in, small_train, small_values

from rankloom.api import TrainResult, evaluate, export, predict
from rankloom.artifact.ranker import load
from rankloom.errors import DataError

pytestmark = pytest.mark.usefixtures("without_extras")

POSITION = {
    "side": "cross",
    "kind": "sparse",
    "num_embeddings": 5,
    "training_only": {"serving_default": 0},
}


def with_positions(table: pa.Table, *, flipped: bool) -> pa.Table:
    """Add the place of each row, from the top or from the bottom."""
    rating = table["rating"].combine_chunks()
    flat = rating.flatten() if pa.types.is_list(rating.type) else rating
    places = np.arange(len(flat)) * 7 % 5
    values = pa.array(4 - places if flipped else places)
    if pa.types.is_list(rating.type):
        values = pa.ListArray.from_arrays(rating.offsets, values)
    return table.append_column("position", values)


def write(log: Path, folder: Path, layout: str, *, flipped: set[str] = frozenset()) -> Path:  # type: ignore[assignment]
    """Copy the small log with positions; `flipped` names the splits where they are turned."""
    source = log if layout == "flat" else log / "grouped"
    for split in SPLITS:
        table = pq.read_table(source / split / "part-0.parquet")
        inner = folder if layout == "flat" else folder / "grouped"
        (inner / split).mkdir(parents=True)
        changed = with_positions(table, flipped=split in flipped)
        pq.write_table(changed, inner / split / "part-0.parquet")
    return folder


def trained(data: Path, to: Path, layout: str) -> TrainResult:
    values = small_values(data, layout=layout)
    values["schema"] = values["schema"] | {"position": POSITION}
    values["roles"] = values["roles"] | {"position": "position"}
    return small_train(values, to, {"training.epochs": 1})[0]


@pytest.mark.parametrize("layout", ["flat", "grouped"])
def test_positions_of_a_test_split_change_no_score(log: Path, tmp_path: Path, layout: str) -> None:
    assert "position" not in ROW_COLUMNS
    data = write(log, tmp_path / "data", layout)
    result = trained(data, tmp_path / "run", layout)
    turned = write(log, tmp_path / "turned", layout, flipped={"test"})
    inner = Path(*(["grouped"] if layout == "grouped" else []), "test", "part-0.parquet")
    plain = evaluate(result, "test").to_dict()
    again = evaluate(result, "test", files=(str(turned / inner),)).to_dict()
    assert plain["tasks"] == again["tasks"]
    scores = []
    for folder in (data, turned):
        predict(result, folder / inner, tmp_path / "scored.parquet")
        scored = pq.read_table(tmp_path / "scored.parquet")
        assert "position" in scored.column_names
        scores.append(scored.drop_columns(["position"]))
    assert scores[0].equals(scores[1])

    # Neither does a log without the column.
    bare = pq.read_table(data / inner).drop_columns(["position"])
    pq.write_table(bare, tmp_path / "bare.parquet")
    predict(result, tmp_path / "bare.parquet", tmp_path / "scored.parquet")
    assert pq.read_table(tmp_path / "scored.parquet").equals(scores[0])


def test_training_learns_from_them(log: Path, tmp_path: Path) -> None:
    folders = [
        write(log, tmp_path / "as_they_are", "flat"),
        write(log, tmp_path / "turned", "flat", flipped={"train"}),
        write(log, tmp_path / "elsewhere", "flat", flipped={"valid", "test"}),
    ]
    found = [
        everything_in(trained(one, one / "run", "flat").folder.path)["metrics"] for one in folders
    ]
    assert found[0] != found[1]
    assert found[0] == found[2]


def test_an_artifact_scores_as_the_run_and_asks_for_no_position(log: Path, tmp_path: Path) -> None:
    data = write(log, tmp_path / "data", "flat")
    result = trained(data, tmp_path / "run", "flat")
    source = data / "test" / "part-0.parquet"
    predict(result, source, tmp_path / "scored.parquet")
    export(result, tmp_path / "artifact")
    ranker = load(tmp_path / "artifact")
    places = ranker.decoder.columns()
    assert "position" not in {column for columns in places.values() for column in columns}
    expected = pq.read_table(tmp_path / "scored.parquet").to_pylist()
    for line, wanted in list(zip(pq.read_table(source).to_pylist(), expected, strict=True))[:20]:
        user, context = ({c: line[c] for c in places[at]} for at in ("user", "context"))
        candidates: dict[str, Any] = {c: [line[c]] for c in places["candidates"]}
        scores = ranker.score(user, candidates, context)
        assert scores["like"][0] == pytest.approx(wanted["like"], rel=1e-5)
        with pytest.raises(DataError, match="'position' is of a training-only feature"):
            ranker.score(user, candidates | {"position": [3]}, context)


def test_a_position_without_a_default_is_refused(at: FailingCommands) -> None:
    message = at.train(
        "--set", "schema.rating={side: item, kind: sparse, num_embeddings: 6}",
        "--set", "roles.position=rating",
    )  # fmt: skip
    assert "schema.rating: reads 'rating', roles.position, which is not known" in message
    assert at.made == []


def test_a_default_that_is_no_value_is_refused_before_training(at: FailingCommands) -> None:
    shutil.rmtree(at.to, ignore_errors=True)
    position = "{side: item, kind: sparse, num_embeddings: 6, training_only: {serving_default: 6}}"
    message = at.train("--set", f"schema.rating={position}")
    assert message.startswith("schema.rating.training_only.serving_default: is no value that")
    assert at.made == []
