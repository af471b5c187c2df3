"""Labels: a column, or `column op literal`, parsed and never evaluated."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

OPERATORS = ("==", "!=", ">=", "<=", ">", "<")
NAME = r"[A-Za-z_][\w.]*"
COMPARISON = re.compile(rf"\s*({NAME})\s*(==|!=|>=|<=|>|<)\s*(.+?)\s*")
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


@dataclass(frozen=True)
class Expression:
    """A column, optionally compared with a literal."""

    column: str
    operator: str | None = None
    literal: float | str | None = None


def parse_expression(text: str) -> Expression:
    """Parse `column` or `column op literal`.

    The literal is a finite number, or a text in single or double quotes, none of them within.

    Raises:
        ValueError: The text is neither; the message says what is allowed.
    """
    if re.fullmatch(rf"\s*{NAME}\s*", text):
        return Expression(text.strip())
    match = COMPARISON.fullmatch(text)
    if match:
        column, operator, literal = match.groups()
        if NUMBER.fullmatch(literal) and math.isfinite(float(literal)):
            return Expression(column, operator, float(literal))
        if QUOTED.fullmatch(literal):
            return Expression(column, operator, literal[1:-1])
    raise ValueError(
        f"must be a column or `column op literal` with op one of {' '.join(OPERATORS)} and a "
        f"number or a quoted text. Got {text!r}."
    )
