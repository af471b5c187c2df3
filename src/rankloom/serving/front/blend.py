"""One score out of several tasks' scores, by a formula; and the order of candidates by it.

    blend = Blend("click * 0.6 + like ** 0.5 * long_view", ["click", "like", "long_view"])
    order = order_of(blend(scores), top_k=10)

A formula is parsed once into operations of our own and never evaluated by Python. It may hold
numbers, names of tasks, + - * / ** and parentheses, log, exp, sqrt, min, max, clip(x, low, high).

Arithmetic is IEEE's: a division by zero is infinite, the log of 0 minus infinity, and what is
undefined (0 / 0, the root of a negative) is NaN. Such candidates are ordered by that rule too,
+inf first, -inf behind all numbers, NaN last; JSON, which has no such numbers, shows null.

Shapes: N candidates, K of them asked for.
"""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from rankloom.errors import ConfigError, did_you_mean
from rankloom.serving.request import Floats

MAX_CHARS = 1000
MAX_DEPTH = 100
"""Of operations inside each other; a sum of n terms is n deep."""

_BINARY: dict[type[ast.operator], np.ufunc] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
}


def _clip(value: Floats, low: Floats, high: Floats) -> Floats:
    return np.minimum(np.maximum(value, low), high)


@dataclass(frozen=True)
class _Function:
    """What a name means in front of parentheses."""

    apply: Callable[..., Floats]
    fewest: int
    most: int


_FUNCTIONS = {
    "log": _Function(np.log, 1, 1),
    "exp": _Function(np.exp, 1, 1),
    "sqrt": _Function(np.sqrt, 1, 1),
    "min": _Function(lambda *values: reduce(np.minimum, values), 2, MAX_CHARS),
    "max": _Function(lambda *values: reduce(np.maximum, values), 2, MAX_CHARS),
    "clip": _Function(_clip, 3, 3),
}

_Step = str | np.float64 | tuple[Callable[..., Any], int]
"""A task to push, a number to push, or an operation on so many values from the top."""


class Blend:
    """The blended score of a formula.

    Args:
        formula: The formula, or none: the first task's score.
        tasks: Names of the tasks.

    Raises:
        ConfigError: The formula is no such formula, or names what is no task.
    """

    def __init__(self, formula: str | None, tasks: Sequence[str]) -> None:
        self.formula = formula
        self._tasks = tuple(tasks)
        self._steps: list[_Step] = []
        if formula is None:
            self._steps.append(self._tasks[0])
            return
        self._parse(_parsed(formula), depth=1)
        if not any(isinstance(step, str) for step in self._steps):
            raise _wrong(formula, "names no task. Name one, or leave the blend out.")

    def __call__(self, scores: Mapping[str, Floats]) -> Floats:
        """Give the blended scores, finite or not.

        Args:
            scores: Task -> (N,).

        Returns:
            (N,), of its own memory.
        """
        stack: list[Any] = []
        with np.errstate(all="ignore"):
            for step in self._steps:
                if isinstance(step, str):
                    stack.append(np.asarray(scores[step], np.float64))
                elif isinstance(step, tuple):
                    apply, count = step
                    stack[-count:] = [apply(*stack[-count:])]
                else:
                    stack.append(step)
        return np.array(stack[0], np.float64)

    def _parse(self, node: ast.expr, *, depth: int) -> None:
        """Append the steps of one node, those of its parts first."""
        assert self.formula is not None
        if depth > MAX_DEPTH:
            raise _wrong(self.formula, f"is nested deeper than {MAX_DEPTH}. Make it flatter.")
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                self._steps.append(_number(value, self.formula))
            case ast.Name() | ast.Attribute():
                self._steps.append(self._task(node))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                self._operation(_BINARY[type(op)], [left, right], depth)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                self._operation(np.negative, [operand], depth)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                self._parse(operand, depth=depth + 1)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                self._operation(self._function(name, len(args)), args, depth)
            case _:
                raise _wrong(
                    self.formula,
                    f"holds {_part(self.formula, node)}, which no formula may. Use numbers, tasks, "
                    f"+ - * / **, parentheses and {', '.join(_FUNCTIONS)}.",
                )

    def _operation(self, apply: Callable[..., Any], parts: list[ast.expr], depth: int) -> None:
        for part in parts:
            self._parse(part, depth=depth + 1)
        self._steps.append((apply, len(parts)))

    def _task(self, node: ast.expr) -> str:
        # A task's name may have dots.
        names: list[str] = []
        while isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
        names.append(node.id if isinstance(node, ast.Name) else "...")
        name = ".".join(reversed(names))
        if name not in self._tasks:
            hint = did_you_mean(name, self._tasks)
            known = f" Known: {', '.join(self._tasks)}."
            raise _wrong(self.formula, f"names {name!r}, which is no task.{hint}{known}")
        return name

    def _function(self, name: str, count: int) -> Callable[..., Any]:
        function = _FUNCTIONS.get(name)
        if function is None:
            hint = did_you_mean(name, _FUNCTIONS)
            known = f" Known: {', '.join(_FUNCTIONS)}."
            raise _wrong(self.formula, f"calls {name!r}, which is no function.{hint}{known}")
        if not function.fewest <= count <= function.most:
            takes = function.fewest if function.most == function.fewest else "2 or more"
            raise _wrong(self.formula, f"gives {name} {count} values. It takes {takes}.")
        return function.apply


def order_of(blended: Floats, top_k: int | None = None) -> npt.NDArray[np.int64]:
    """List the places of the best candidates, the best first.

    Ties are in the order of their places; NaN comes last.

    Args:
        blended: (N,).
        top_k: How many; else all.

    Returns:
        (K,) int64, K at most N.
    """
    worse = -blended
    if top_k is None or 4 * top_k >= len(worse) or top_k == 0:
        return np.argsort(worse, kind="stable")[:top_k]
    limit = np.partition(worse, top_k - 1)[top_k - 1]
    if math.isnan(limit):
        return np.argsort(worse, kind="stable")[:top_k]
    # All that tie with the last of the best are sorted too, so that the first of them stay.
    places = np.flatnonzero(worse <= limit)
    return places[np.argsort(worse[places], kind="stable")[:top_k]]


def _parsed(formula: str) -> ast.expr:
    if len(formula) > MAX_CHARS:
        raise _wrong(formula, f"is longer than {MAX_CHARS} characters. Shorten it.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return ast.parse(formula.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError, Warning) as error:
        reason = error.msg if isinstance(error, SyntaxError) else type(error).__name__
        raise _wrong(formula, f"is no formula ({reason}). Mend it.") from None


def _number(value: float, formula: str) -> np.float64:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _wrong(formula, "holds a number beyond 1.8e308. Give a smaller one.")
    return np.float64(number)


def _part(formula: str, node: ast.expr) -> str:
    return repr(ast.get_source_segment(formula.strip(), node) or type(node).__name__)[:80]


def _wrong(formula: str | None, what: str) -> ConfigError:
    shown = repr(formula) if len(formula or "") <= 200 else f"{(formula or '')[:200]!r}..."
    return ConfigError(f"blend: {what} Got {shown}.")
