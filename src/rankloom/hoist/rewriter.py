"""The new graph while it grows, and how a value that was left in pieces is put together.

A `Rewriter` walks the plain graph. For each node the rule of its operation (`rules/`) gives a value
made of nodes of the new graph, each computed at its own rate.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sympy
import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch.utils._pytree import tree_leaves, tree_map

from rankloom.hoist.call import MERGING, Call, aten, ours
from rankloom.hoist.capture import CROSSINGS, Capture, refusal
from rankloom.hoist.decisions import Decision, Options
from rankloom.hoist.values import (
    UNKNOWN,
    VALUES,
    Merged,
    Parts,
    Rows,
    Several,
    Shape,
    Size,
    Sum,
    Whole,
    is_at_rows,
)
from rankloom.schema import Rate

CROSSING = (ours.expand.default, ours.to_slots.default, ours.from_slots.default)
"""Operations that read how requests and rows belong together."""
Rule = Callable[["Rewriter", Call], Any]
"""Gives the value of a call."""


@dataclass
class Rewriter:
    """Builds the new graph.

    Args:
        capture: The plain network.
        rules: Operation -> its rule.
        last_dim_only: Operations that treat all but the last dimension alike.
        options: How to rewrite.
    """

    capture: Capture
    rules: dict[Any, Rule]
    last_dim_only: frozenset[Any] = frozenset()
    """Operations that treat all but the last dimension alike."""
    options: Options = field(default_factory=Options)
    graph: fx.Graph = field(default_factory=fx.Graph)
    decisions: list[Decision] = field(default_factory=list)
    values: dict[fx.Node, Any] = field(default_factory=dict)
    """Node of the plain graph -> its value: also a number or a symbolic size."""
    crossings: dict[str, fx.Node] = field(default_factory=dict)
    """`request_index` and such in the new graph, where it needs them."""
    current: fx.Node | None = None
    """The plain node at hand."""
    _spread: dict[fx.Node, Whole] = field(default_factory=dict)

    def run(self) -> list[Any]:
        """Rewrite the whole graph.

        Returns:
            The values of the plain graph's outputs.

        Raises:
            HoistError: A node mixes rows, or nothing is known of its operation.
        """
        outputs: list[Any] = []
        for node in self.capture.graph.nodes:
            self.current = node
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node)
            elif node.op == "output":
                outputs = [self.values[one] for one in tree_leaves(node.args[0])]
            else:
                self.values[node] = self._call(node)
        return outputs

    def border(self) -> list[str]:
        """Name the plain nodes that are computed once for a request, and used for its rows."""

        def is_held(value: Any) -> bool:
            return isinstance(value, Whole) and Rate.CONSTANT < value.rate < Rate.CANDIDATE

        return [
            node.name
            for node, value in self.values.items()
            if node.op == "call_function"
            and is_held(value)
            and any(not is_held(self.values.get(user)) for user in node.users)
        ]

    def emit(
        self,
        target: Any,
        *args: Any,
        shape: Shape,
        rows: Rows | None,
        **kwargs: Any,
    ) -> Whole:
        """Add an operation on whole values; its rate is the highest of theirs.

        Args:
            target: The operation.
            *args: Its arguments; `Whole`s stand for nodes.
            shape: Of the plain tensor that it stands for.
            rows: Where that has its rows.
            **kwargs: Further arguments.
        """
        wholes = [leaf for leaf in _leaves((args, kwargs)) if isinstance(leaf, Whole)]
        rate = max((whole.rate for whole in wholes), default=Rate.CONSTANT)
        node = self.add(target, args, kwargs, rate)
        return Whole(node, rate, rows, shape)

    def add(self, target: Any, args: Any, kwargs: Any, rate: Rate) -> fx.Node:
        """Add a node with its fake value, rate and the plain node that it comes from."""
        to_node = _replacing(Whole, lambda whole: whole.node)
        args, kwargs = to_node(args), to_node(kwargs)
        to_fake = _replacing(fx.Node, lambda node: node.meta["val"])
        # Sizes stay symbols only where operations are dispatched in Python.
        with self.capture.fake_mode, enable_python_dispatcher():
            fake = target(*to_fake(args), **to_fake(kwargs))
        node = self.graph.call_function(target, args, kwargs)
        node.meta = {"val": fake, "rate": rate, "plain": self.current}
        return node

    # Putting together

    def whole(self, value: Any) -> Whole:
        """Carry out what was left in pieces, at the highest rate of the pieces."""
        if isinstance(value, Whole):
            return value
        if isinstance(value, Sum):
            return self._add_up(value)
        if isinstance(value, Merged):
            assert self.current is not None
            raise refusal(self.current, "uses rows that were merged with a dimension before them")
        assert isinstance(value, Parts)
        parts = self.join([self.whole(part) for part in value.parts])
        return self.cat(parts, value.dim, value.shape, value.rows)

    def cat(self, wholes: Sequence[Whole], dim: int, shape: Shape, rows: Rows | None) -> Whole:
        """Put values of one number of rows side by side; what is the same for all rows may join."""
        near = next((one for one in wholes if one.rows and not one.is_narrow(one.rows.dim)), None)
        wide = [self.widen(one) for one in wholes]
        if near is not None:
            wide = [self.fill_rows(one, near) for one in wide]
        return self.emit(aten.cat.default, wide, dim, shape=shape, rows=rows)

    def join(self, wholes: Sequence[Whole]) -> list[Whole]:
        """Bring values to the number of rows of the one with the highest rate."""
        if any(is_at_rows(whole.rate) for whole in wholes):
            return [self.spread(whole) for whole in wholes]
        return list(wholes)

    def spread(self, whole: Whole) -> Whole:
        """Give each row the value of its request."""
        if is_at_rows(whole.rate) or whole.rate == Rate.CONSTANT or whole.rows is None:
            return whole
        if whole.node not in self._spread:
            index = Whole(self.crossing("request_index"), Rate.CANDIDATE, Rows(0), ())
            dim, block = whole.rows.dim, whole.rows.block

            def step(target: Any, value: Whole, *args: Any) -> Whole:
                return self.emit(target, value, *args, shape=whole.shape, rows=whole.rows)

            value = whole
            if dim:
                value = step(aten.movedim.int, value, dim, 0)
            if block > 1:
                value = step(aten.unflatten.int, value, 0, [-1, block])
            value = step(ours.expand.default, value, index)
            if block > 1:
                value = step(aten.flatten.using_ints, value, 0, 1)
            if dim:
                value = step(aten.movedim.int, value, 0, dim)
            self._spread[whole.node] = value
        return replace(self._spread[whole.node], shape=whole.shape, rows=whole.rows)

    def at_rows(self, value: Any) -> Whole:
        """Give a value for each row, whatever its rate."""
        return self.fill_rows(self.spread(self.widen(self.whole(value))))

    def widen(self, whole: Whole, *, dims: Iterable[int] | None = None) -> Whole:
        """Repeat what is held once along a dimension other than rows: all such, or some."""
        row_dim = None if whole.rows is None else whole.rows.dim
        chosen = [
            dim for dim in whole.narrow_dims if dim != row_dim and (dims is None or dim in dims)
        ]
        if not chosen:
            return whole
        sizes: list[Any] = [-1] * len(whole.shape)
        for dim in chosen:
            sizes[dim] = self.size(whole.shape[dim], whole)
        return self.emit(aten.expand.default, whole, sizes, shape=whole.shape, rows=whole.rows)

    def fill_rows(self, whole: Whole, near: Whole | None = None) -> Whole:
        """Repeat what is the same for all rows, as often as another value has rows, or B times."""
        if whole.rows is None or not whole.is_narrow(whole.rows.dim):
            return whole
        sizes: list[Any] = [-1] * len(whole.shape)
        sizes[whole.rows.dim] = self.size(whole.shape[whole.rows.dim], near)
        rate = Rate.CANDIDATE if near is None else near.rate
        node = self.add(aten.expand.default, (whole.node, sizes), {}, rate)
        return replace(whole, node=node, rate=rate)

    def _add_up(self, total: Sum) -> Whole:
        """Add terms of one rate first, so that as few as possible are added for each row."""
        sum_so_far: Whole | None = None
        for term in sorted(total.terms, key=lambda term: term.rate):
            if sum_so_far is None:
                sum_so_far = term
                continue
            left, right = self.join([sum_so_far, term])
            sum_so_far = self.emit(aten.add.Tensor, left, right, shape=total.shape, rows=total.rows)
        assert sum_so_far is not None
        return replace(sum_so_far, shape=total.shape, rows=total.rows)

    # Sizes

    def size(self, size: Size, near: Whole | None = None) -> Any:
        """Give a size as an argument in the new graph: a number, or a node that finds it.

        Args:
            size: Of the plain graph.
            near: A value whose number of rows stands for the plain graph's.
        """
        if isinstance(size, int):
            return size
        expression = size.node.expr
        if expression.is_Integer:
            return int(expression)
        number = self.capture.num_rows
        if number in expression.free_symbols:
            block = int(sympy.cancel(expression / number))
            if near is not None and near.rows is not None and not near.is_narrow(near.rows.dim):
                node = self._sym_size(near.node, near.rows.dim)
                factor, left = divmod(block, near.rows.block)
                assert not left
            else:
                node, factor = self._sym_size(self.crossing("request_index"), 0), block
            return node if factor == 1 else self._times(node, factor)
        for dim, places in enumerate(self.capture.crossings["slots"].shape):
            # Between to_slots and from_slots there are requests and their places.
            if not isinstance(places, torch.SymInt):
                continue
            times = sympy.cancel(expression / places.node.expr)
            if times.is_Integer:
                node = self._sym_size(self.crossing("slots"), dim)
                return node if times == 1 else self._times(node, int(times))
        return self._free_size(expression)

    def _free_size(self, expression: Any) -> fx.Node:
        """Find an input that has a history's length, or a multiple of it, as a size."""
        for value in self.values.values():
            if not isinstance(value, Whole) or value.node.op != "placeholder":
                continue
            for dim, size in enumerate(value.sizes):
                if isinstance(size, torch.SymInt) and not size.node.expr.is_Integer:
                    factor = sympy.cancel(expression / size.node.expr)
                    if factor.is_Integer and (value.rows is None or dim != value.rows.dim):
                        node = self._sym_size(value.node, dim)
                        return node if factor == 1 else self._times(node, int(factor))
        assert self.current is not None
        raise refusal(self.current, f"has a size that no input has: {expression}")

    def _sym_size(self, node: fx.Node, dim: int) -> fx.Node:
        return self.add(aten.sym_size.int, (node, dim), {}, node.meta["rate"])

    def _times(self, node: fx.Node, factor: int) -> fx.Node:
        return self.add(operator.mul, (node, factor), {}, node.meta["rate"])

    # Inputs

    def crossing(self, name: str) -> fx.Node:
        """Give `request_index`, `slots` or `slot_of_row` as an input of the new graph."""
        if name not in self.crossings:
            with self.graph.inserting_before(next(iter(self.graph.nodes), None)):
                node = self.graph.placeholder(name)
            node.meta = {
                "val": self.capture.crossings[name],
                "rate": Rate.CANDIDATE,
                "plain": None,
                "path": name,
            }
            self.crossings[name] = node
        return self.crossings[name]

    def _placeholder(self, node: fx.Node) -> Any:
        capture = self.capture
        if node.name in capture.parameters:
            return self._attribute(capture.parameters[node.name], node)
        if node.name in capture.constants:
            return self._attribute(node.name, node)
        path = capture.inputs[node.name]
        if path in CROSSINGS:
            return path
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            return value
        placed = self.graph.placeholder(node.name)
        rate = capture.rates[path]
        placed.meta = {"val": value, "rate": rate, "plain": None, "path": path}
        # The door gives every row its request's value, so that the plain tensor has B rows.
        return Whole(placed, rate, Rows(0), (capture.batch_size, *value.shape[1:]))

    def _attribute(self, name: str, node: fx.Node) -> Whole:
        placed = self.graph.create_node("get_attr", name)
        placed.meta = {"val": node.meta["val"], "rate": Rate.CONSTANT, "plain": None}
        return Whole(placed, Rate.CONSTANT, None, tuple(node.meta["val"].shape))

    # Calls

    def _call(self, node: fx.Node) -> Any:
        if isinstance(node.meta.get("val"), torch.SymInt | int | torch.SymBool | bool):
            return node.meta["val"]
        to_value = _replacing(fx.Node, lambda one: self.values[one])
        args, kwargs = to_value(node.args), to_value(node.kwargs)
        if node.target is operator.getitem:
            return args[0].values[args[1]] if isinstance(args[0], Several) else args[0][args[1]]
        rule = self.rules.get(node.target)
        if rule is None:
            raise refusal(node, "is an operation that nothing is known of, so it may mix rows")
        leaves = list(_leaves((args, kwargs)))
        if any(leaf is UNKNOWN for leaf in leaves):
            raise refusal(node, "uses a by-product of an operation, whose rows are not known")
        if node.target not in CROSSING and any(
            isinstance(leaf, str) and leaf in CROSSINGS for leaf in leaves
        ):
            raise refusal(
                node,
                "reads request_index or slots, which only the network's door, to_slots and "
                "from_slots may",
            )
        merged = [leaf for leaf in leaves if isinstance(leaf, Merged)]
        if merged and node.target not in MERGING:
            return self._call_before_merging(node, rule, merged, (args, kwargs))
        return rule(self, self._plain_call(node, args, kwargs))

    def _plain_call(self, node: fx.Node, args: Any, kwargs: Any) -> Call:
        capture = self.capture
        return Call(node, args, kwargs, capture.num_rows, capture.num_requests)

    def _call_before_merging(
        self, node: fx.Node, rule: Rule, merged: Sequence[Merged], call: tuple[Any, Any]
    ) -> Merged:
        """Compute on what an operand was before its rows were merged.

        That is right if the operation treats all but the last dimension alike.
        """
        others = [leaf for leaf in _leaves(call) if isinstance(leaf, VALUES)]
        does_fit = node.target in self.last_dim_only and len(merged) == 1
        is_alone = node.target is aten.linear.default or all(len(o.shape) < 2 for o in others)
        if not does_fit or not is_alone or any(one.rate != Rate.CONSTANT for one in others):
            raise refusal(node, "uses rows that were merged with a dimension before them")
        args, kwargs = _replacing(Merged, lambda one: one.value)(call)
        before = replace(self._plain_call(node, args, kwargs), before=merged[0].value)
        return Merged(rule(self, before), tuple(node.meta["val"].shape))


def _leaves(tree: Any) -> Iterable[Any]:
    return tree_leaves(tree, is_leaf=lambda one: isinstance(one, (*VALUES, Merged, Several)))


def _replacing(kind: type[Any], change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Make a function that changes every leaf of a type."""
    return lambda tree: tree_map(
        lambda leaf: change(leaf) if isinstance(leaf, kind) else leaf,
        tree,
        is_leaf=lambda one: isinstance(one, kind),
    )
