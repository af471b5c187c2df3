"""Write a run's report as one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from pathlib import Path

from rankloom.atomic import write_text
from rankloom.evaluation import Evaluation, TaskMetrics
from rankloom.evaluation.result import SHORT_NAMES
from rankloom.training.hooks import read_metrics

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1150px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: .25em .8em; text-align: right }
th { border-bottom: 2px solid #999 } td:first-child, th:first-child { text-align: left }
tr:nth-child(even) { background: #f4f4f4 } img { max-width: 49%; height: auto }
small { color: #666 }
"""


def write_report(
    path: Path, *, name: str, metrics: Path, evaluations: Mapping[str, Evaluation]
) -> None:
    """Write the report: loss and metric curves, calibration plots, tables by task and slice.

    Args:
        path: The HTML file; replaced as a whole.
        name: Title.
        metrics: The run's `metrics.jsonl`.
        evaluations: Split -> what was found there.
    """
    # Matplotlib takes a second to import, which those who only score need not wait for.
    from rankloom.report.plots import calibration_plot, loss_curves, metric_curves

    records = read_metrics(metrics)
    plots = {"training loss": loss_curves(records)}
    shown = {key for r in records if r["kind"] == "evaluation" for key in r["metrics"]}
    for metric in ("auc", "gauc", "log_loss", "mean_absolute_error"):
        if any(key.endswith(f"/{metric}") for key in shown):
            plots[f"validation {metric}"] = metric_curves(records, f"/{metric}")
    for split, evaluation in evaluations.items():
        plots[f"calibration on {split}"] = calibration_plot(evaluation)
    body = [f"<h1>{escape(name)}</h1>", *map(_evaluation, evaluations.values())]
    body += [_image(title, png) for title, png in plots.items()]
    write_text(
        path,
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(name)}</title>'
        f"<style>{STYLE}</style><body>{''.join(body)}</body></html>\n",
    )


def _evaluation(evaluation: Evaluation) -> str:
    parts = [f"<h2>{escape(evaluation.split)}</h2>", _table("task", evaluation.tasks)]
    for task, found in evaluation.tasks.items():
        if found.one_class_group_share is not None:
            parts.append(
                f"<p><small>GAUC of {escape(task)} leaves out {found.one_class_group_share:.1%} of "
                f"the groups ({found.one_class_row_share:.1%} of the rows), which have one class."
                "</small></p>"
            )
    for column, by_value in evaluation.slices.items():
        parts.append(f"<h3>by {escape(column)}</h3>")
        for task in evaluation.tasks:
            rows = {value: tasks[task] for value, tasks in by_value.items()}
            parts.append(_table(f"{task}, {column}", rows))
    return "".join(parts)


def _table(first: str, rows: Mapping[str, TaskMetrics]) -> str:
    # Tasks of different kinds have different metrics: a column for each that any of them has.
    names = list(dict.fromkeys(name for found in rows.values() for name in found.metrics))
    titles = "".join(f"<th>{SHORT_NAMES[name]}</th>" for name in names)
    lines = [f"<tr><th>{escape(first)}</th><th>rows</th>{titles}</tr>"]
    for name, found in rows.items():
        cells = "".join(f"<td>{_value(found, metric)}</td>" for metric in names)
        lines.append(f"<tr><td>{escape(name)}</td><td>{found.num_rows:,}</td>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _value(found: TaskMetrics, metric: str) -> str:
    if metric not in found.metrics:
        return ""
    text = f"{found.metrics[metric]:.4f}"
    if metric in found.intervals:
        low, high = found.intervals[metric]
        text += f" <small>({low:.4f}-{high:.4f})</small>"
    return text


def _image(title: str, png: bytes) -> str:
    data = base64.b64encode(png).decode()
    return f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">'
