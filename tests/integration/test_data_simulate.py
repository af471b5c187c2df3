"""`rankloom data simulate`: from nothing to a log that trains."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.integration.small import command

SMALL = [
    f"--set={value}"
    for value in (
        "rows.train=3000",
        "rows.valid=600",
        "rows.test=800",
        "users.count=60",
        "items.count=300",
        "items.categories=8",
        "items.creators=20",
        "requests.candidates=[3, 8]",
        "history.length=30",
        "history.initial=20",
    )
]
QUICK = [
    *("--set", "training.batch_size=256"),
    *("--set", "model.embedding.embedding_dim=4"),
    *("--set", "model.tokenization.token_dim=12"),
    *("--set", "model.sequence.history.kind=masked_mean"),
    *("--set", "evaluation.num_resamples=0"),
]


def test_a_simulated_log_trains_by_its_own_run_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "data", "simulate", "--to", "log", *SMALL) == 0
    printed = capsys.readouterr().out
    assert "oracle    click " in printed
    assert "signal    triples" in printed
    assert "next      rankloom train log/run.yaml" in printed
    assert command(monkeypatch, "train", "log/run.yaml", "--to", "run", *QUICK) == 0
    assert "test      click" in capsys.readouterr().out


def test_no_truth_stands_in_the_run_file_of_a_log_that_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "log"
    assert command(monkeypatch, "data", "simulate", "--to", folder, "--set=parts=true", *SMALL) == 0
    names = pq.read_schema(next((folder / "test").iterdir())).names
    assert {"oracle_click", "oracle_part_far_past"} < set(names)
    assert "oracle" not in (folder / "run.yaml").read_text()
    summary = json.loads((folder / "simulation.json").read_text())
    assert summary["config"]["parts"] is True
    assert 0.5 < summary["splits"]["test"]["oracle_auc"]["click_unbiased"] < 1


def test_sizes_come_from_a_file_and_mistakes_are_named_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sizes.yaml"
    file.write_text("rows: {train: many}\nuser: {count: 5}\n")
    assert command(monkeypatch, "data", "simulate", file, "--to", tmp_path / "log") == 2
    said = capsys.readouterr().err
    assert "sizes.yaml has 2 mistakes" in said
    assert "rows.train" in said
    assert "user: unknown key. Did you mean 'users'?" in said
    assert not (tmp_path / "log").exists()


def test_a_log_is_never_written_over_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("precious")
    assert command(monkeypatch, "data", "simulate", "--to", tmp_path, *SMALL) == 2
    assert "holds something already" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "precious"
