"""Plots of a run, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rankloom.evaluation import Evaluation


def loss_curves(records: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw each task's training loss over the steps."""
    steps = [record for record in records if record["kind"] == "step"]
    figure, axes = _figure("training loss", "step")
    for task in steps[0]["losses"] if steps else ():
        axes.plot(
            [r["step"] for r in steps], [r["losses"][task] for r in steps], label=_plain(task)
        )
    return _png(figure, axes)


def metric_curves(records: Sequence[Mapping[str, Any]], metric: str) -> bytes:
    """Draw one metric of each task over the evaluations."""
    evaluations = [record for record in records if record["kind"] == "evaluation"]
    figure, axes = _figure(f"validation {metric}", "step")
    tasks = [n for n in (evaluations[0]["metrics"] if evaluations else ()) if n.endswith(metric)]
    for name in tasks:
        values = [(r["step"], r["metrics"].get(name)) for r in evaluations]
        known = [(step, value) for step, value in values if value is not None]
        axes.plot(*zip(*known, strict=True), marker="o", label=_plain(name.rpartition("/")[0]))
    return _png(figure, axes)


def calibration_plot(evaluation: Evaluation) -> bytes:
    """Draw mean label against mean prediction, over bins of equally many rows."""
    figure, axes = _figure(f"calibration on {evaluation.split}", "mean prediction")
    axes.set_ylabel("mean label")
    top = 0.0
    for task, found in evaluation.tasks.items():
        if found.calibration_curve:
            predictions, labels, _ = zip(*found.calibration_curve, strict=True)
            axes.plot(predictions, labels, marker="o", markersize=3, label=_plain(task))
            top = max(top, *predictions, *labels)
    axes.plot([0, top], [0, top], color="gray", linewidth=0.8, linestyle="--")
    return _png(figure, axes)


def _figure(title: str, x_label: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(_plain(title))
    axes.set_xlabel(x_label)
    axes.grid(alpha=0.3)
    return figure, axes


def _plain(text: str) -> str:
    # Between two dollars matplotlib would read a formula.
    return text.replace("$", r"\$")


def _png(figure: Figure, axes: Any) -> bytes:
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
