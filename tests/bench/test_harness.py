from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from benchmarks import harness, run
from benchmarks.harness import Cell, Row, run_benchmark, spread, write_atomically


class TwoVariants:
    """A benchmark whose cells cost nothing and say what was run."""

    SETTINGS = {"repeats": 2, "size": 10}

    def __init__(self) -> None:
        self.ran: list[str] = []

    def planned_cells(self, settings: Mapping[str, Any]) -> list[Cell]:
        return [
            Cell(variant, repeat, {"size": settings["size"]})
            for variant in ("slow", "fast")
            for repeat in range(settings["repeats"])
        ]

    def run_cell(self, cell: Cell) -> dict[str, Any]:
        self.ran.append(cell.id)
        return {"size": cell.options["size"]}

    def summarise(self, rows: Sequence[Row]) -> dict[str, Any]:
        return {"num_rows": len(rows)}


def start(benchmark: TwoVariants, folder: Path, **changes: Any) -> bool:
    settings = {**benchmark.SETTINGS, **changes}
    return run_benchmark("two", benchmark, settings=settings, budget_s=60, results=folder)


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "two.json").read_text(encoding="ascii"))


def test_every_variant_runs_once_before_any_runs_twice(tmp_path: Path) -> None:
    benchmark = TwoVariants()
    assert start(benchmark, tmp_path)
    assert benchmark.ran == ["slow/0", "fast/0", "slow/1", "fast/1"]


def test_the_file_holds_what_a_reader_needs(tmp_path: Path) -> None:
    start(TwoVariants(), tmp_path)
    document = read(tmp_path)
    assert list(document) == [
        "machine", "versions", "commit", "settings", "cells", "rows", "summary"
    ]  # fmt: skip
    assert document["cells"][0] == {"id": "slow/0", "done": True}
    assert document["summary"] == {"num_rows": 4}
    assert document["rows"][1]["measured"] == {"size": 10}
    assert document["rows"][1]["commit"] == document["commit"]


def test_done_cells_are_not_run_again(tmp_path: Path) -> None:
    start(TwoVariants(), tmp_path)
    again = TwoVariants()
    assert start(again, tmp_path, repeats=3)
    assert again.ran == ["slow/2", "fast/2"]
    assert len(read(tmp_path)["rows"]) == 6


def test_another_setting_starts_anew_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start(TwoVariants(), tmp_path)
    start(TwoVariants(), tmp_path, size=11)
    assert "4 rows belong to other settings" in capsys.readouterr().out
    assert [row["measured"]["size"] for row in read(tmp_path)["rows"]] == [11] * 4


def test_rows_of_another_machine_are_dropped_only_where_time_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(TwoVariants(), tmp_path)
    monkeypatch.setattr(harness, "machine_name", lambda _: "another one")
    again = TwoVariants()
    start(again, tmp_path)
    assert len(again.ran) == 4

    class Untimed(TwoVariants):
        MACHINE_MATTERS = False

    start(Untimed(), tmp_path / "untimed")
    monkeypatch.setattr(harness, "machine_name", lambda _: "a third one")
    untimed = Untimed()
    start(untimed, tmp_path / "untimed")
    assert untimed.ran == []


def test_no_cell_starts_that_is_expected_to_pass_the_budget(tmp_path: Path) -> None:
    now = 0.0

    class Timed(TwoVariants):
        def run_cell(self, cell: Cell) -> dict[str, Any]:
            nonlocal now
            now += 30.0 if cell.variant == "slow" else 5.0
            return super().run_cell(cell)

    benchmark = Timed()
    # 30 + 5 s are spent after the first repeats: 30 more would pass 50, 5 more would not.
    is_complete = run_benchmark(
        "two", benchmark, settings=Timed.SETTINGS, budget_s=50, results=tmp_path, clock=lambda: now
    )
    assert not is_complete
    assert benchmark.ran == ["slow/0", "fast/0", "fast/1"]
    assert {"id": "slow/1", "done": False} in read(tmp_path)["cells"]


def test_an_interrupted_run_leaves_the_finished_cells(tmp_path: Path) -> None:
    class Interrupted(TwoVariants):
        def run_cell(self, cell: Cell) -> dict[str, Any]:
            if cell.repeat == 1:
                raise KeyboardInterrupt
            return super().run_cell(cell)

    with pytest.raises(KeyboardInterrupt):
        start(Interrupted(), tmp_path)
    assert [row["cell"] for row in read(tmp_path)["rows"]] == ["slow/0", "fast/0"]
    assert [path.name for path in tmp_path.iterdir()] == ["two.json"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "two.json"
    write_atomically(path, {"value": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_atomically(path, {"first": 2, "value": float("nan")})
    assert json.loads(path.read_text(encoding="ascii")) == {"value": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_spread_of_three_values() -> None:
    assert spread([4.0, 1.0, 7.0]) == {
        "n": 3, "median": 4.0, "mean": 4.0, "std": 3.0, "min": 1.0, "max": 7.0
    }  # fmt: skip


def test_the_command_refuses_an_unknown_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "available", lambda: ["two"])
    monkeypatch.setattr(run.importlib, "import_module", lambda _: TwoVariants())
    with pytest.raises(SystemExit):
        run.main(["two", "--set", "siez=3"])
    assert "no setting 'siez'. Known: repeats, size." in capsys.readouterr().err


def test_the_command_resumes_and_prints_the_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "available", lambda: ["two"])
    monkeypatch.setattr(run.importlib, "import_module", lambda _: TwoVariants())
    assert run.main(["two", "--set", "repeats=1", "--results", str(tmp_path)]) == 0
    assert '"num_rows": 2' in capsys.readouterr().out
