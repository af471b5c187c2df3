"""Columns of labelled predictions, checked once at the door of every metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from rankloom.errors import DataError, join_problems

Floats: TypeAlias = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Rows:
    """Labels and predictions of `B` rows, with what they may carry beside.

    Attributes:
        labels: (B,). Bool for a binary task, float64 for a real one.
        predictions: (B,), float32 or float64 as they were given.
        sample_weights: (B,), float64, or None where every row counts one.
        groups: (B,), int64, or None where rows are not grouped.
    """

    labels: npt.NDArray[Any]
    predictions: Floats
    sample_weights: npt.NDArray[np.float64] | None = None
    groups: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: slice | npt.NDArray[Any]) -> Rows:
        """Give the rows that `index` names, in its order; a slice gives views."""
        return Rows(
            self.labels[index],
            self.predictions[index],
            None if self.sample_weights is None else self.sample_weights[index],
            None if self.groups is None else self.groups[index],
        )

    def read(self, start: int, count: int) -> Rows:
        """Give up to `count` rows from `start` on, as a run on disk does."""
        return self.take(slice(start, start + count))

    def without_groups(self) -> Rows:
        """Give the same rows as one group."""
        return Rows(self.labels, self.predictions, self.sample_weights)

    def sort(self) -> Rows:
        """Give the rows in ascending order of (group, prediction), or of prediction alone."""
        if self.groups is None:
            return self.take(np.argsort(self.predictions))
        return self.take(np.lexsort((self.predictions, self.groups)))


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Join parts that carry the same columns; there is at least one."""
    if len(parts) == 1:
        return parts[0]
    weights = [part.sample_weights for part in parts if part.sample_weights is not None]
    groups = [part.groups for part in parts if part.groups is not None]
    return Rows(
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.predictions for part in parts]),
        np.concatenate(weights) if weights else None,
        np.concatenate(groups) if groups else None,
    )


def check_rows(
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    sample_weights: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    *,
    where: str,
    kind: Literal["order", "probability", "real"] = "order",
) -> Rows:
    """Check columns that belong together and bring them to the dtypes of `Rows`.

    Args:
        labels: (B,). 0 or 1 (or bool); any finite number where `kind` is real.
        predictions: (B,). Not NaN; in [0, 1] for probability, finite for real. float32 stays
            float32: a network's outputs that differ stay different and equal ones stay ties.
            float16 is widened to float32, every other dtype to float64.
        sample_weights: (B,). Finite and not negative.
        groups: (B,). Integers that fit int64.
        where: The metric's name, for the message.
        kind: What the predictions are: numbers of which only the order counts, probabilities,
            or real numbers in the labels' unit.

    Raises:
        DataError: A column is not one-dimensional, has another length or holds a value that is
            not allowed; all such problems are listed.
    """
    columns: dict[str, npt.NDArray[Any]] = {
        "labels": np.asarray(labels),
        "predictions": np.asarray(predictions),
    }
    if sample_weights is not None:
        columns["sample_weights"] = np.asarray(sample_weights, dtype=np.float64)
    if groups is not None:
        columns["groups"] = np.asarray(groups)
    problems = _shape_problems(columns)
    if not problems:
        problems = _value_problems(columns, kind)
    if problems:
        raise DataError(join_problems(problems, where=where))
    labels_dtype = np.float64 if kind == "real" else np.bool_
    predictions_B = columns["predictions"]
    if predictions_B.dtype == np.float16:
        predictions_B = predictions_B.astype(np.float32)
    elif predictions_B.dtype != np.float32:
        predictions_B = predictions_B.astype(np.float64, copy=False)
    return Rows(
        columns["labels"].astype(labels_dtype, copy=False),
        predictions_B,
        columns.get("sample_weights"),
        columns["groups"].astype(np.int64, copy=False) if groups is not None else None,
    )


def _shape_problems(columns: dict[str, npt.NDArray[Any]]) -> list[str]:
    problems = [
        f"{name} must have one dimension. Got shape {column.shape}. Flatten them, one value a row."
        for name, column in columns.items()
        if column.ndim != 1
    ]
    if not problems and len({len(column) for column in columns.values()}) > 1:
        lengths = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
        problems.append(f"columns differ in length. Got {lengths}. Give one value for each row.")
    return problems


def _value_problems(columns: dict[str, npt.NDArray[Any]], kind: str) -> list[str]:
    checks = []
    labels_B, predictions_B = columns["labels"], columns["predictions"]
    if kind == "real":
        checks += [("labels", ~np.isfinite(labels_B), "not finite", "Mask these rows.")]
        checks += [("predictions", ~np.isfinite(predictions_B), "not finite", "Look for overflow.")]
    else:
        if labels_B.dtype != np.bool_:
            bad_B = (labels_B != 0) & (labels_B != 1)
            checks += [("labels", bad_B, "not 0 or 1", "State the label as `column op literal`.")]
        checks += [("predictions", np.isnan(predictions_B), "NaN", "Look for overflow.")]
    if kind == "probability":
        outside_B = (predictions_B < 0) | (predictions_B > 1)
        checks += [("predictions", outside_B, "outside [0, 1]", "Give probabilities, not logits.")]
    if "sample_weights" in columns:
        weights_B = columns["sample_weights"]
        bad_B = ~np.isfinite(weights_B) | (weights_B < 0)
        checks += [
            ("sample_weights", bad_B, "negative or not finite", "Give weights of 0 or more.")
        ]
    problems = []
    for name, bad_B, what, advice in checks:
        if bad_B.any():
            row = int(np.argmax(bad_B))
            got = f"{columns[name][row]} at row {row}, {int(bad_B.sum())} such rows"
            problems.append(f"{name} hold a value that is {what}. Got {got}. {advice}")
    if "groups" in columns and not np.can_cast(columns["groups"].dtype, np.int64):
        dtype = columns["groups"].dtype
        problems.append(f"groups must be integers. Got {dtype}. Hash or number them as int64.")
    return problems
