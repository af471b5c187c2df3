"""Which tasks a log seems made for, and the values of their labels.

Shapes: S sampled rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from rankloom.data.inspection.coded import Coded, Floats
from rankloom.data.inspection.kinds import Guess
from rankloom.data.inspection.leaks import Label
from rankloom.data.inspection.names import hint, identifier
from rankloom.data.inspection.profile import Summary
from rankloom.data.inspection.samples import Rows
from rankloom.data.inspection.shape import Shape
from rankloom.errors import ConfigError
from rankloom.schema import BinaryTask, Expression, Schema, parse_expression
from rankloom.schema.labels import NAME

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": np.equal, "!=": np.not_equal, ">=": np.greater_equal,
    "<=": np.less_equal, ">": np.greater, "<": np.less,
}  # fmt: skip
MIN_GIVEN = 25
"""Positive rows that must all be positive in another task to make this one conditional."""


@dataclass(frozen=True, kw_only=True)
class TaskGuess:
    """A task that a draft proposes."""

    name: str
    kind: str
    """binary or positive."""
    label: str
    """Its expression."""
    reason: str
    mask: str | None = None
    given: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give what a run file says of it."""
        optional = {"mask": self.mask, "given": self.given}
        said = {key: value for key, value in optional.items() if value is not None}
        return {"kind": self.kind, "label": self.label, **said}


def stated_tasks(expressions: Sequence[str]) -> list[TaskGuess]:
    """Make a binary task of each expression that the user gave.

    Raises:
        ConfigError: One is no expression.
    """
    found: list[TaskGuess] = []
    for text in expressions:
        try:
            column = parse_expression(text).column
        except ValueError as error:
            raise ConfigError(f"--label {text}: {error} Give a column or a comparison.") from None
        taken = {task.name for task in found}
        name = identifier(column)
        name = name if name not in taken else f"{name}_{len(found) + 1}"
        found.append(TaskGuess(name=name, kind="binary", label=text, reason="as asked for"))
    return found


def schema_tasks(schema: Schema) -> list[TaskGuess]:
    """Give the tasks of a run file."""
    return [
        TaskGuess(
            name=name,
            kind="binary" if isinstance(task, BinaryTask) else "positive",
            label=task.label,
            mask=task.mask,
            given=task.given,
            reason="as the run file says",
        )
        for name, task in schema.tasks.items()
    ]


def guess_tasks(
    shape: Shape, kinds: Mapping[str, Guess], summaries: Mapping[str, Summary]
) -> list[TaskGuess]:
    """Make a task of each column that seems to be a label."""
    found: list[TaskGuess] = []
    for name, guess in kinds.items():
        # A grouped log's labels stand in lists, one entry a candidate.
        is_possible = shape.layout == "flat" or name in shape.rows
        if guess.kind == "label" and is_possible and re.fullmatch(NAME, name):
            task = _guess_task(name, guess, summaries[name])
            found += [task] if task is not None else []
        elif guess.kind == "outcome" and is_possible and re.fullmatch(NAME, name):
            found += _outcome_task(name, shape, summaries[name])
    # A mean that is trained beside a click is welcome; alone it is a guess too far.
    return found if any(task.kind == "binary" for task in found) else []


def _guess_task(name: str, guess: Guess, summary: Summary) -> TaskGuess | None:
    missing = summary.num_nulls + summary.num_nan > 0
    reason = guess.reason
    if summary.low is None or summary.high is None:
        return _text_task(name, reason, summary)
    if hint(name) == "rating" and summary.high > 1:
        label = f"{name} >= {_balanced_threshold(summary):g}"
        reason = f"{reason}; cut where the shares are most even"
    elif summary.distinct <= 2 and (summary.low, summary.high) in {(0, 1), (0, 0), (1, 1)}:
        label = name
    elif summary.low >= 0:
        label, reason = f"{name} > 0", f"{reason}; not 0 or 1, so compared"
    else:
        label, reason = f"{name} > {summary.low:g}", f"{reason}; its higher values"
    mask = f"{name} >= {summary.low:g}" if missing else None
    if mask:
        reason += "; rows without a value are masked"
    return TaskGuess(name=identifier(name), kind="binary", label=label, mask=mask, reason=reason)


def _text_task(name: str, reason: str, summary: Summary) -> TaskGuess | None:
    texts = [(value, count) for value, count in summary.frequent if isinstance(value, str)]
    if len(texts) < 2 or summary.distinct > 2:
        return None
    value = min(texts, key=lambda one: one[1])[0]
    quote = '"' if "'" in value else "'"
    if quote in value or summary.num_nulls:
        return None
    text = f"{reason}; the rarer text is the positive one"
    label = f"{name} == {quote}{value}{quote}"
    return TaskGuess(name=identifier(name), kind="binary", label=label, reason=text)


def _outcome_task(name: str, shape: Shape, summary: Summary) -> list[TaskGuess]:
    """Train a time spent as a positive number, if every row has it."""
    leaf = shape.leaf(name)
    is_amount = pa.types.is_integer(leaf) or pa.types.is_floating(leaf)
    parts = (summary.num_nulls, summary.num_nan, summary.num_infinite)
    is_time_spent = re.search(r"watch|play|dwell|read|stay|view|listen", name.lower()) is not None
    if not is_amount or any(parts) or summary.low is None or summary.low < 0:
        return []
    if not is_time_spent or name not in shape.scalars or name.lower().startswith("next_"):
        return []
    return [
        TaskGuess(
            name=identifier(name),
            kind="positive",
            label=name,
            reason="its name; 0 or more and known in every row",
        )
    ]


def _balanced_threshold(summary: Summary) -> float:
    """Choose the rating from which on the share is nearest to one half."""
    counted = sorted((float(value), count) for value, count in summary.frequent)
    total = sum(count for _, count in counted)
    above, best = total, (1.0, counted[-1][0])
    for value, count in counted:
        best = min(best, (abs(above / total - 0.5), value))
        above -= count
    return best[1]


def with_given(tasks: Sequence[TaskGuess], labels: Sequence[Label]) -> list[TaskGuess]:
    """Make a task conditional on one whose positives hold all of its own, and more."""
    found: list[TaskGuess] = []
    for task, label in zip(tasks, labels, strict=True):
        positive = label.values > 0
        parents = [
            (int(other.values[~np.isnan(other.values)].sum()), parent)
            for parent, other in zip(tasks, labels, strict=True)
            if parent.kind == "binary"
            and task.kind == "binary"
            and positive.sum() >= MIN_GIVEN
            and (other.values[positive] > 0).all()
            and (other.values > 0).sum() > positive.sum()
        ]
        # The nearest of the tasks that hold it: the one with the fewest positives.
        given = min(parents, key=lambda one: one[0])[1].name if parents else None
        reason = f"{task.reason}; positive only where {given} is" if given else task.reason
        found.append(
            TaskGuess(
                name=task.name,
                kind=task.kind,
                label=task.label,
                reason=reason,
                mask=task.mask,
                given=task.given or given,
            )
        )
    return found


def label_of(task: TaskGuess, sample: Rows, columns: Sequence[str]) -> Label | None:
    """Evaluate a task's label on the sampled rows; none where its column is not among them."""
    expression = parse_expression(task.label)
    if expression.column not in columns:
        return None
    values = _evaluate(expression, sample, columns)
    if task.mask is not None:
        mask = parse_expression(task.mask)
        if mask.column in columns:
            kept = np.nan_to_num(_evaluate(mask, sample, columns)) != 0
            values = np.where(kept, values, np.nan)
    return Label(task.name, expression.column, values)


def _evaluate(expression: Expression, sample: Rows, columns: Sequence[str]) -> Floats:
    at = list(columns).index(expression.column)
    numbers = sample.numbers[:, at]
    if expression.operator is None:
        return numbers
    if isinstance(expression.literal, str):
        wanted = Coded.of(pa.array([expression.literal])).hashes[0]
        # Texts are known by their hashes, so they are equal or not.
        is_equal = sample.hashes[:, at] == wanted
        return (is_equal if expression.operator == "==" else ~is_equal).astype(np.float64)
    compared = _COMPARE[expression.operator](numbers, expression.literal).astype(np.float64)
    return np.where(np.isnan(numbers), np.nan, compared)
