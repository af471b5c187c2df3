"""The unified table from a run file to an artifact: trained, described, served, reused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.integration.failing_commands import FailingCommands
from tests.integration.small import command, small_train, small_values
from tests.integration.test_training import tables_of

from rankloom import load
from rankloom.api import new_model  # type: ignore[attr-defined]

pytestmark = pytest.mark.usefixtures("without_extras")

ONE_EPOCH = {"training.epochs": 1}
UNIFIED = {"model.embedding.unified": {"hash_buckets": 200, "lookups": {"item": 2, "genres": 2}}}


def without_vocabularies(log: Path, **options: Any) -> dict[str, Any]:
    """Give the small run's values, in which no feature says how its ids become rows."""
    values = small_values(log, **options)
    ways = ("vocabulary", "num_embeddings")
    columns = {"item_id": {"table": "item"}, "rating": {}}
    values["schema"] = {
        name: {key: value for key, value in feature.items() if key not in ways}
        for name, feature in values["schema"].items()
    }
    values["schema"]["history"] = values["schema"]["history"] | {"columns": columns}
    return values


@pytest.mark.parametrize("quantize", [(), ("--quantize", "tables")])
def test_it_is_served_as_it_predicts(
    log: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    quantize: tuple[str, ...],
) -> None:
    overrides = {**ONE_EPOCH, **UNIFIED, "model.sequence": {"history": {"kind": "din"}}}
    values = without_vocabularies(log, layout="grouped")
    del values["schema"]["history"]["columns"]["rating"]
    result, lines = small_train(values, tmp_path / "run", overrides)
    assert lines[0].startswith("fitted    0 vocabularies")
    source = log / "grouped" / "test" / "part-0.parquet"
    scored, to = tmp_path / "scored.parquet", tmp_path / "artifact"
    assert command(monkeypatch, "describe", tmp_path / "run") == 0
    described = capsys.readouterr().out
    # 200 shared rows and a missing one of user, item, hour and genres, 4 wide.
    assert "\nunified           204       4     3.26 kB\n" in described
    assert "unified keeps user, item (2 lookups), hour, genres (2 lookups)" in described
    assert command(monkeypatch, "predict", tmp_path / "run", source, "--to", scored) == 0
    assert command(monkeypatch, "export", tmp_path / "run", "--to", to, *quantize) == 0
    assert command(monkeypatch, "verify", to) == 0
    ranker = load(to)
    places = ranker.decoder.columns()
    lines_of_log = pq.read_table(source).slice(0, 20).to_pylist()
    for line, wanted in zip(lines_of_log, pq.read_table(scored).to_pylist(), strict=False):
        given = [{name: line[name] for name in places[at]} for at in places]
        found = ranker.score(given[0], given[2], given[1])
        for task, scores in found.items():
            assert np.abs(scores - wanted[task]).max() < (1e-3 if quantize else 1e-6)
    assert result.model.embedder.tables().keys() == {"unified", "age"}


def test_warm_start_takes_shared_rows_and_missing_ones_by_table(log: Path, tmp_path: Path) -> None:
    values = without_vocabularies(log)
    old, _ = small_train(values, tmp_path / "old", {**ONE_EPOCH, **UNIFIED})
    # Without its first feature, the tables' missing rows have other numbers.
    values["schema"] = {k: v for k, v in values["schema"].items() if k != "user_id"}
    still = {
        "training.dense": {"kind": "adamw", "lr": 1e-30},
        "training.sparse": {"kind": "adam", "lr": 1e-30},
        "training.warm_start": str(tmp_path / "old"),
    }
    new, _ = small_train(values, tmp_path / "new", {**ONE_EPOCH, **UNIFIED, **still})
    was, now = tables_of(old.folder)["unified"], tables_of(new.folder)["unified"]
    assert list(old.run.schema.unified_tables()) == ["user", *new.run.schema.unified_tables()]
    assert torch.equal(now, torch.cat([was[:200], was[201:]]))
    other = {**UNIFIED, "model.embedding.unified.hash_buckets": 199}
    grown, lines = small_train(values, tmp_path / "grown", {**ONE_EPOCH, **other, **still})
    fresh = new_model(grown.run, grown.transforms).embedder.tables()["unified"]
    # Under another number of buckets a row stands for other values.
    assert torch.equal(tables_of(grown.folder)["unified"], fresh)
    assert any(line.startswith("warm start from") and "1 of 2 tables" in line for line in lines)


def test_mistakes_are_said_with_all_others(at: FailingCommands) -> None:
    message = at.train(
        "--set", "model.embedding.unified={hash_buckets: 9, tables: [itme]}",
        "--set", "model.embedding.tables={unifid: {embedding_dim: 3}}",
    )  # fmt: skip
    assert "model.embedding.unified.tables: no table of ids is named 'itme'." in message
    assert (
        "model.embedding.tables.unifid: no table has this name. Did you mean 'unified'?" in message
    )
    message = at.train("--set", "model.embedding.unified={hash_buckets: 0, lookups: 0}")
    assert "model.embedding.unified.hash_buckets: must be above 0. Got 0." in message
    assert "lookups: must be a number from 1 to 64, or one for each table named. Got 0." in message
