from __future__ import annotations

import base64
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rankloom.evaluation import Evaluation, TaskMetrics
from rankloom.report import write_report

STEPS = [
    {"kind": "step", "step": 1, "losses": {"click": 0.7, "watch": 3.0}},
    {"kind": "step", "step": 2, "losses": {"click": 0.6, "watch": 2.0}},
]
EVALUATIONS = [
    {
        "kind": "evaluation",
        "step": 1,
        "metrics": {"click/auc": None, "watch/mean_absolute_error": 2},
    },
    {
        "kind": "evaluation",
        "step": 2,
        "metrics": {"click/auc": 0.7, "watch/mean_absolute_error": 1},
    },
]
CURVE = [(0.1, 0.2, 5.0), (0.6, 0.5, 5.0)]
FOUND = Evaluation(
    "test",
    {
        "click": TaskMetrics(
            1200,
            {"auc": 0.75, "log_loss": 0.5},
            intervals={"auc": (0.7, 0.8)},
            one_class_group_share=0.25,
            one_class_row_share=0.125,
            calibration_curve=CURVE,
        ),
        "watch": TaskMetrics(1300, {"mean_absolute_error": 12.0}),
    },
    slices={
        "page": {"home": {"click": TaskMetrics(7, {"auc": math.nan}), "watch": TaskMetrics(7, {})}}
    },
)


class _Reader(HTMLParser):
    """Collects the cells of tables and every attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.in_cell = self.in_cell and tag not in {"td", "th"}

    def handle_data(self, data: str) -> None:
        if self.in_cell:
            self.rows[-1][-1] += data


def write(
    folder: Path, records: list[dict[str, Any]], name: str = "run", *found: Evaluation
) -> str:
    metrics, path = folder / "metrics.jsonl", folder / "report.html"
    metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
    write_report(path, name=name, metrics=metrics, evaluations={one.split: one for one in found})
    assert sorted(entry.name for entry in folder.iterdir()) == ["metrics.jsonl", "report.html"]
    return path.read_text()


def read(text: str) -> _Reader:
    reader = _Reader()
    reader.feed(text)
    return reader


def test_needs_nothing_beside_it(tmp_path: Path) -> None:
    text = write(tmp_path, STEPS + EVALUATIONS, "run", FOUND)
    reader = read(text)
    sources = [value or "" for name, value in reader.attributes if name == "src"]
    assert [a for a in reader.attributes if a[0] in {"href", "srcset", "data"}] == []
    assert not set(reader.tags) & {"script", "link", "iframe", "object"}
    assert "http" not in re.sub(r'src="[^"]*"', "", text)
    assert "url(" not in text
    titles = [value for name, value in reader.attributes if name == "alt"]
    assert titles == [
        "training loss",
        "validation auc",
        "validation mean_absolute_error",
        "calibration on test",
    ]
    assert len(sources) == len(titles)
    for source in sources:
        png = base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True)
        assert png.startswith(b"\x89PNG")


def test_each_cell_stands_under_its_metric(tmp_path: Path) -> None:
    rows = read(write(tmp_path, [], "run", FOUND)).rows
    assert rows[:3] == [
        ["task", "rows", "AUC", "log loss", "MAE"],
        ["click", "1,200", "0.7500 (0.7000-0.8000)", "0.5000", ""],
        ["watch", "1,300", "", "", "12.0000"],
    ]
    assert rows[3:5] == [["click, page", "rows", "AUC"], ["home", "7", "nan"]]


def test_says_what_gauc_leaves_out(tmp_path: Path) -> None:
    text = write(tmp_path, [], "run", FOUND)
    assert "GAUC of click leaves out 25.0% of the groups (12.5% of the rows)" in text


def test_names_are_escaped(tmp_path: Path) -> None:
    bad = '<script>"&'
    task = TaskMetrics(1, {"auc": 0.5}, one_class_group_share=0.0, one_class_row_share=0.0)
    found = Evaluation(bad, {bad: task}, slices={bad: {bad: {bad: task}}})
    reader = read(write(tmp_path, [], bad, found))
    assert "script" not in reader.tags
    assert [row[0] for row in reader.rows] == ["task", bad, f"{bad}, {bad}", bad]
    assert ("alt", f"calibration on {bad}") in reader.attributes


@pytest.mark.parametrize("records", [[], STEPS, STEPS + EVALUATIONS[:1]])
def test_a_run_stopped_early_has_a_report(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    reader = read(write(tmp_path, records))
    assert reader.tags.count("img") >= 1
    assert reader.rows == []


def test_a_half_written_last_line_does_not_count(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(json.dumps(STEPS[0]) + '\n{"kind": "st')
    write_report(tmp_path / "report.html", name="run", metrics=metrics, evaluations={})
    assert "training loss" in (tmp_path / "report.html").read_text()


def test_a_dollar_in_a_name_is_no_formula(tmp_path: Path) -> None:
    found = Evaluation("$\\x$", {"$\\x$": TaskMetrics(1, {"auc": 0.5}, calibration_curve=CURVE)})
    assert "<img" in write(tmp_path, [], "run", found)
