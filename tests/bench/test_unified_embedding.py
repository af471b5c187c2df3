"""The benchmark of the unified table at a test's size, and how each way spends its rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks import run, unified_embedding
from benchmarks.unified_embedding import SETTINGS, WAYS, Log, planned_cells, with_way
from tests.integration.small import small_values, write_small_log

from rankloom.api import evaluating
from rankloom.data.transforms import Transforms, table_sizes
from rankloom.schema import Schema, SparseFeature, UnifiedConfig
from rankloom.training import trainer

SIZES = {"a": 100, "b": 40, "c": 10}


def hashed_rows(way: str, share: float) -> dict[str, int | None]:
    """Give the rows of each table, none where it stays whole."""
    schema = {name: {"side": "user", "vocabulary": {}} for name in SIZES}
    found = with_way({"schema": schema}, way, share, SIZES)["schema"]
    buckets = {name: one.get("hash_buckets") for name, one in found.items()}
    return {name: count and count + 1 for name, count in buckets.items()}


def test_hashed_tables_are_cut_alike_or_the_largest_first() -> None:
    assert hashed_rows("full", 1.0) == {"a": None, "b": None, "c": None}
    assert hashed_rows("hashed", 0.5) == {"a": 50, "b": 20, "c": 5}
    # 75 rows: 10 for c, and the other two share what is left.
    assert hashed_rows("hashed_largest", 0.5) == {"a": 32, "b": 32, "c": None}
    # 15 rows: all three are too large for a third.
    assert hashed_rows("hashed_largest", 0.1) == {"a": 5, "b": 5, "c": 5}
    assert hashed_rows("hashed_largest", 1.0) == {"a": None, "b": None, "c": None}


def test_the_unified_table_holds_the_same_numbers() -> None:
    model = {"embedding": {"embedding_dim": 10, "tables": {}}}
    for way, rows, dim in (("unified_1", 75, 10), ("unified_2", 150, 5)):
        embedding = with_way({"model": model}, way, 0.5, SIZES)["model"]["embedding"]
        schema = Schema(
            {name: SparseFeature(side="user") for name in SIZES},
            unified=UnifiedConfig.model_validate(embedding["unified"]),
        )
        assert table_sizes(schema, Transforms()) == {"unified": rows}
        assert embedding["tables"]["unified"]["embedding_dim"] == dim


def test_breadth_comes_first_and_whole_tables_once() -> None:
    cells = planned_cells(SETTINGS)
    count = sum(1 + 4 * len(shares) for shares in SETTINGS["logs"].values())
    assert [cell.repeat for cell in cells] == [0] * count + [1] * count + [2] * count
    assert len({cell.id for cell in cells}) == len({cell.digest for cell in cells}) == 3 * count


def test_every_way_runs_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values: dict[str, Any] = small_values(write_small_log(tmp_path / "log"))
    files = values.pop("data")
    small = Log(lambda: files, lambda _: values)
    monkeypatch.setitem(unified_embedding.LOGS, "small", small)
    # Plots and the measured matmul rate take longer than the trainings.
    monkeypatch.setattr(evaluating, "write_report", lambda *_, **__: None)
    monkeypatch.setattr(trainer, "matmul_rate", lambda *_: 1e12)
    arguments = ["unified_embedding", "--results", str(tmp_path)]
    changes = {
        "logs": {"small": [1.0, 0.3]}, "models": ["mlp"], "seeds": 1,
        "common": {"training.epochs": 1},
    }  # fmt: skip
    for key, value in changes.items():
        arguments += ["--set", f"{key}={json.dumps(value)}"]
    assert run.main(arguments) == 0
    capsys.readouterr()
    document = json.loads((tmp_path / "unified_embedding.json").read_text())
    measured = {row["variant"]: row["measured"] for row in document["rows"]}
    assert len(measured) == 2 * len(WAYS) - 1
    full = measured["small mlp 100% full"]["table_bytes"]
    for variant, one in measured.items():
        share = 1.0 if "100%" in variant else 0.3
        # The table of the ages' buckets is whole in all.
        ages = 5 * 4 * 4
        expected = share * (full - ages) + ages
        # Rounding costs each of five tables a row at most.
        assert abs(one["table_bytes"] - expected) <= 5 * 4 * 4, variant
    gains = document["summary"]["gains"]["small mlp 30% unified_2"]
    assert gains.keys() == {"auc minus hashed", "auc minus hashed_largest"}
