"""Labels, masks and weights of tasks, evaluated a column at a time."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from rankloom.data.columns import Bools, Column, Key, Plain
from rankloom.data.decode import read_numbers, to_float32
from rankloom.data.raw import RawColumn
from rankloom.schema import BinaryTask, Expression, Task, parse_expression

Doubles = npt.NDArray[np.float64]

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_COMPARE_TEXT: dict[str, Callable[[Any, Any], Any]] = {
    "==": pc.equal,
    "!=": pc.not_equal,
    ">=": pc.greater_equal,
    "<=": pc.less_equal,
    ">": pc.greater,
    "<": pc.less,
}


def decode_task(name: str, task: Task, read: Callable[[str], RawColumn]) -> dict[Key, Column]:
    """Decode a task's label, mask and weight.

    Where the mask is false (or null), label and weight may be anything and become 0.

    Args:
        name: The task's name.
        task: What the run file says.
        read: Gives a column of the log by its name, one value per row.

    Raises:
        DataError: Where the mask is true or there is none, a label is missing or outside the
            task's range, or a weight is missing, negative or not finite.
    """
    found: dict[Key, Column] = {}
    counted: Bools | None = None
    if task.mask is not None:
        expression = parse_expression(task.mask)
        truth, missing = evaluate(expression, read(expression.column))
        counted = (truth != 0) & ~missing
        found["masks", name] = Plain(counted)
    found["labels", name] = Plain(_labels(name, task, read, counted))
    if task.weight is not None:
        found["weights", name] = Plain(_weights(name, read(task.weight), counted))
    return found


def evaluate(expression: Expression, raw: RawColumn) -> tuple[Doubles, Bools]:
    """Evaluate `column` or `column op literal`.

    Returns:
        values: (n,) the column's numbers, or 1 where the comparison holds and 0 elsewhere.
        missing: (n,) true where the column is null or NaN.
    """
    if isinstance(expression.literal, str):
        assert expression.operator is not None
        compared = _COMPARE_TEXT[expression.operator](raw.array, expression.literal)
        missing: Bools = raw.array.is_null().to_numpy(zero_copy_only=False)
        filled = pc.fill_null(compared, fill_value=False)
        return filled.to_numpy(zero_copy_only=False).astype(np.float64), missing
    numbers = read_numbers(raw.array).astype(np.float64)
    missing = np.isnan(numbers)
    if expression.operator is not None:
        numbers = _COMPARE[expression.operator](numbers, expression.literal).astype(np.float64)
    return numbers, missing


def _labels(
    name: str, task: Task, read: Callable[[str], RawColumn], counted: Bools | None
) -> npt.NDArray[np.float32]:
    expression = task.label_expression
    raw = read(expression.column)
    labels, missing = evaluate(expression, raw)
    if counted is not None:
        labels[~counted] = 0
        missing = missing & counted
    if missing.any():
        advice = f"Set tasks.{name}.mask to leave such rows out"
        raise raw.error(missing, rule=f"has no label for task {name!r}", advice=f"{advice}.")
    is_binary = isinstance(task, BinaryTask)
    result = to_float32(labels)  # what the batch holds, hence what must be finite
    good = (labels == 0) | (labels == 1) if is_binary else (labels >= 0) & np.isfinite(result)
    if not good.all():
        rule = "must be 0 or 1" if is_binary else "must be 0 or more and finite"
        advice = f"Compare it in tasks.{name}.label, or set tasks.{name}.mask."
        raise raw.error(~good, rule=f"{rule} for task {name!r}", advice=advice)
    return result


def _weights(name: str, raw: RawColumn, counted: Bools | None) -> npt.NDArray[np.float32]:
    weights = to_float32(read_numbers(raw.array))
    if counted is not None:
        weights[~counted] = 0
    good = (weights >= 0) & np.isfinite(weights)
    if not good.all():
        advice = f"Fill it in preparation, or set tasks.{name}.mask."
        rule = f"must be 0 or more and finite as the weight of task {name!r}"
        raise raw.error(~good, rule=rule, advice=advice)
    return weights
