"""A call of the plain graph, as the rules see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import fx

import rankloom.ops  # noqa: F401 (registers the operations)
from rankloom.hoist.capture import rows_of
from rankloom.hoist.values import VALUES, Rows, Shape, Value

aten = torch.ops.aten
ours = torch.ops.rankloom

MERGING = frozenset(
    getattr(getattr(aten, packet), overload)
    for packet, overload in (
        ("view", "default"),
        ("reshape", "default"),
        ("_unsafe_view", "default"),
        ("flatten", "using_ints"),
        ("unflatten", "int"),
        ("unsqueeze", "default"),
    )
)
"""Operations that may merge rows with another dimension, or divide them again."""


@dataclass(frozen=True)
class Call:
    """A call in the plain graph, with values for the nodes in its arguments."""

    node: fx.Node
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    num_rows: sympy.Symbol
    """B."""
    num_requests: sympy.Symbol
    """R: of rows, between `to_slots` and `from_slots`."""
    before: Value | None = None
    """What an operand was before rows were merged, where the call is computed on that."""

    @property
    def shape(self) -> Shape:
        """The sizes of its result."""
        plain = tuple(self.node.meta["val"].shape)
        return plain if self.before is None else (*self.before.shape[:-1], plain[-1])

    @property
    def rows(self) -> Rows | None:
        """Where its result has its rows."""
        if self.before is not None:
            return self.before.rows
        return self.rows_of(self.node.meta["val"])

    def rows_of(self, output: Any) -> Rows | None:
        """Give where one of several results has its rows."""
        found = rows_of(output, self.num_rows, self.node)
        return found or rows_of(output, self.num_requests, self.node)

    def dim(self, place: int, default: int = 0) -> int:
        """Give a dimension of the first operand, counted from the front.

        Args:
            place: Where it stands among the arguments.
            default: Without that argument.
        """
        ndim = len(self.args[0].shape) if isinstance(self.args[0], VALUES) else len(self.shape)
        given = self.args[place] if len(self.args) > place else self.kwargs.get("dim", default)
        return int(given % ndim)
