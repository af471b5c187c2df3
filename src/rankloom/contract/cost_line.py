"""Read the `Cost:` line of an architecture's header: formulas, parsed and never evaluated."""

from __future__ import annotations

import ast
import inspect
import operator
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
LINE = re.compile(
    r"^Cost: (?P<parameters>.+?) parameters; (?P<work>.+?) multiply-adds", re.MULTILINE
)


def cost_formulas(cls: type[Any]) -> tuple[str, str]:
    """Give the formulas of parameters and of multiply-adds per row.

    Raises:
        AssertionError: The header of the class's file has no such line.
    """
    header = inspect.getdoc(sys.modules[cls.__module__]) or ""
    match = LINE.search(header)
    assert match, (
        f"{cls.__module__}: the file's header has no line "
        "`Cost: <formula> parameters; <formula> multiply-adds per row.`"
    )
    return match["parameters"], match["work"]


def compute(formula: str, letters: Mapping[str, float]) -> float:
    """Compute a formula of letters, config fields, numbers and + - * / **.

    Raises:
        AssertionError: It holds anything else, or a letter that is not given.
    """

    def value(node: ast.AST) -> float:
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            return float(OPERATORS[type(node.op)](value(node.left), value(node.right)))
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return node.value
        assert isinstance(node, ast.Name), f"Cost: {formula!r}: cannot read {ast.dump(node)}"
        assert node.id in letters, f"Cost: {formula!r}: unknown letter {node.id!r}"
        return letters[node.id]

    return value(ast.parse(formula, mode="eval").body)
