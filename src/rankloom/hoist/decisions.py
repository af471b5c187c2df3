"""How to rewrite, and what was decided where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import sympy
from torch import fx

from rankloom.hoist.values import Size

ELEMENT_COST = 16
"""FLOPs that take about as long as reading and writing one more element."""
TYPICAL_LENGTH = 64
"""What decisions take a free size, such as a history's length, to be."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to rewrite."""

    min_candidates: int = 8
    """A rewrite must pay from so many candidates of a request on."""
    layout: Literal["neat", "fragmented"] = "neat"
    """`neat`: all columns of one rate in one product; `fragmented`: a product for each part."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A place where a product could be divided by rate."""

    node: str
    """Of the plain graph."""
    where: str
    """The module that it belongs to."""
    is_done: bool
    flops_plain: float
    """For each row."""
    flops_row: float
    """For each row, after."""
    flops_request: float
    """For each request, after."""

    @property
    def reason(self) -> str:
        """Say why."""
        saved = self.flops_plain - self.flops_row
        return (
            f"saves {saved:.0f} of {self.flops_plain:.0f} FLOPs a candidate"
            if self.is_done
            else f"would save {saved:.0f} FLOPs a candidate, less than the further addition costs"
        )


def typical(size: Size, num_rows: sympy.Symbol) -> int:
    """Give a number for a size, as decisions take it; rows count as one."""
    if isinstance(size, int):
        return size
    expression = size.node.expr.subs(num_rows, 1)
    return int(expression.subs(dict.fromkeys(expression.free_symbols, TYPICAL_LENGTH)))


def module_of(node: fx.Node) -> str:
    """Name the module of the network that a plain node belongs to."""
    stack = node.meta.get("nn_module_stack") or {}
    names = [name for name, _ in stack.values()] or [""]
    return str(names[-1]).removeprefix("L['self'].") or "network"
