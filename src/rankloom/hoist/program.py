"""The rewritten graph as programs: one for each rate, or one for all of them.

`divide` cuts the graph where values of a lower rate are used at a higher one: those values are the
user state and the request state. Constants are folded: a weight's columns are put in order once.

Shapes: R requests, B rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from rankloom.data.batch import make_slots
from rankloom.hoist.call import aten, ours
from rankloom.schema import Rate

RATES = (Rate.USER, Rate.REQUEST, Rate.CANDIDATE)
Values = Mapping[str, Tensor]
"""Path of a network input, or name of a state tensor -> its tensor."""


@dataclass(frozen=True)
class StateTensor:
    """One tensor that crosses from a program to a later one."""

    name: str
    """Of the node that makes it."""
    rate: Rate
    """Of the program that makes it."""
    sizes: tuple[int | str, ...]
    """Its shape; free sizes by their symbol's name, R for requests."""
    dtype: torch.dtype


class Program(nn.Module):
    """What is computed at one rate.

    Args:
        module: Takes tensors in the order of `inputs`, gives them in that of `outputs`.
        inputs: Paths of network inputs, names of state tensors.
        outputs: Names of state tensors, or nothing for the candidate program's results.
    """

    def __init__(
        self, module: fx.GraphModule, inputs: Sequence[str], outputs: Sequence[str]
    ) -> None:
        super().__init__()
        self.module = module
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)

    def forward(self, values: Values) -> tuple[Tensor, ...]:
        """Run on tensors by name; only `inputs` are read."""
        # Not `self.module(...)`: that prints to standard error what fails.
        result: tuple[Tensor, ...] = self.module.forward(*(values[name] for name in self.inputs))
        return result


@dataclass(frozen=True)
class Programs:
    """A network's programs, and how one runs after the other."""

    by_rate: Mapping[Rate, Program]
    """A rate that computes nothing has none; candidates always have one."""
    one_request: Program
    """The candidate program for batches of one request."""

    def user_state(self, values: Values) -> dict[str, Tensor]:
        """Compute what depends on the user alone, at R rows."""
        return _state(self.by_rate.get(Rate.USER), values)

    def request_state(self, values: Values, user_state: Values) -> dict[str, Tensor]:
        """Compute what depends on user and request, at R rows."""
        return _state(self.by_rate.get(Rate.REQUEST), {**values, **user_state})

    def results(self, values: Values, state: Values) -> tuple[Tensor, ...]:
        """Compute the results of every row, given user and request state."""
        num_requests = count_requests(values["request_index"])
        program = self.one_request if num_requests == 1 else self.by_rate[Rate.CANDIDATE]
        return program(with_slots(program, {**values, **state}, num_requests))


def count_requests(request_index: Tensor) -> int:
    """Count requests by the last one that a row names; rows are in the order of requests."""
    return int(request_index[-1]) + 1


def with_slots(program: Program, values: Values, num_requests: int) -> Values:
    """Add the places of candidates where a program reads them and they are not there."""
    if "slots" not in program.inputs or values.get("slots") is not None:
        return values
    slots, slot_of_row = make_slots(values["request_index"], num_requests)
    return {**values, "slots": slots, "slot_of_row": slot_of_row}


def _state(program: Program | None, values: Values) -> dict[str, Tensor]:
    if program is None:
        return {}
    return dict(zip(program.outputs, program(values), strict=True))


def whole_program(graph: fx.Graph, network: nn.Module) -> Program:
    """Give all rates as one program on the network's own parameters, to be differentiated."""
    return _program(graph, network, [])


def divide(graph: fx.Graph, network: nn.Module) -> tuple[dict[Rate, Program], list[StateTensor]]:
    """Divide a graph by rate, with its constants folded.

    Args:
        graph: Rewritten; its nodes know their rates.
        network: Holds the parameters.

    Returns:
        A program for each rate that computes something, and the tensors that cross.
    """
    holder, constants = _fold(graph, network)
    crossing = [
        node
        for node in graph.nodes
        if Rate.CONSTANT < _rate(node) < Rate.CANDIDATE
        and not _is_size(node)
        and any(_rate(user) > _rate(node) for user in _tensor_users(node))
    ]
    results = next(node for node in graph.nodes if node.op == "output").args[0]
    programs = {}
    for rate in RATES:
        outputs = (
            list(results) if rate == Rate.CANDIDATE else [n for n in crossing if _rate(n) == rate]
        )
        outputs = [n for n in outputs if rate == Rate.CANDIDATE or n.op != "placeholder"]
        if outputs:
            programs[rate] = _at_rate(rate, outputs, holder, constants)
    return programs, [_state_tensor(node) for node in crossing]


def _at_rate(
    rate: Rate, outputs: Sequence[fx.Node], holder: nn.Module, constants: Mapping[fx.Node, str]
) -> Program:
    """Copy what a rate computes for its outputs."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    inputs: dict[fx.Node, fx.Node] = {}

    def take(node: fx.Node) -> fx.Node:
        if node in copies:
            return copies[node]
        if node in constants:
            copies[node] = graph.get_attr(constants[node])
        elif node.op == "placeholder" or (_rate(node) < rate and not _is_size(node)):
            copies[node] = inputs[node] = _placeholder(graph, node)
        else:
            for one in node.all_input_nodes:
                take(one)
            copies[node] = graph.node_copy(node, take)
        copies[node].meta = dict(node.meta)
        return copies[node]

    results = tuple(take(node) for node in outputs)
    graph.output(results)
    names = [name_of(node) for node in inputs]
    module = fx.GraphModule(holder, graph)
    return Program(module, names, [name_of(node) for node in outputs])


def _placeholder(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """Add a placeholder in front of everything that computes."""
    last = None
    for one in graph.nodes:
        if one.op != "placeholder":
            break
        last = one
    if last is not None:
        with graph.inserting_after(last):
            return graph.placeholder(node.name)
    first = next(iter(graph.nodes), None)
    if first is None:
        return graph.placeholder(node.name)
    with graph.inserting_before(first):
        return graph.placeholder(node.name)


def _program(graph: fx.Graph, network: nn.Module, outputs: Sequence[str]) -> Program:
    names = [name_of(node) for node in graph.nodes if node.op == "placeholder"]
    return Program(fx.GraphModule(network, graph), names, outputs)


def name_of(node: fx.Node) -> str:
    """Give an input's path, or a state tensor's name."""
    return str(node.meta.get("path") or node.name)


def _fold(graph: fx.Graph, network: nn.Module) -> tuple[nn.Module, dict[fx.Node, str]]:
    """Compute every constant that a program uses.

    Returns:
        A module that holds them, and the name of each in it.
    """
    values: dict[fx.Node, Any] = {}
    holder = nn.Module()
    names: dict[fx.Node, str] = {}
    with torch.no_grad():
        for node in graph.nodes:
            if _rate(node) != Rate.CONSTANT or node.op in {"placeholder", "output"}:
                continue
            if node.op == "get_attr":
                values[node] = _attribute(network, node.target)
            else:
                args = fx.map_arg(node.args, lambda one: values[one])
                kwargs = fx.map_arg(node.kwargs, lambda one: values[one])
                values[node] = node.target(*args, **kwargs)
            is_used = any(_rate(user) != Rate.CONSTANT for user in node.users)
            if is_used and isinstance(values[node], Tensor):
                name = f"constant_{len(names)}" if node.op != "get_attr" else str(node.target)
                names[node] = name.replace(".", "__")
                holder.register_buffer(names[node], values[node].detach().clone())
    return holder, names


def _attribute(module: nn.Module, path: str) -> Any:
    value: Any = module
    for step in path.split("."):
        value = getattr(value, step)
    return value


def _rate(node: fx.Node) -> Rate:
    """Give a node's rate; the graph's results are used at the highest."""
    return node.meta["rate"] if node.op != "output" else Rate.CANDIDATE


def _is_size(node: fx.Node) -> bool:
    return not isinstance(node.meta.get("val"), Tensor | tuple | list)


def _tensor_users(node: fx.Node) -> list[fx.Node]:
    """Give the users, through sizes: who uses a size of a tensor needs the tensor."""
    users: list[fx.Node] = []
    for user in node.users:
        users += _tensor_users(user) if user.op != "output" and _is_size(user) else [user]
    return users


def _state_tensor(node: fx.Node) -> StateTensor:
    value = node.meta["val"]
    sizes = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
    return StateTensor(name_of(node), _rate(node), sizes, value.dtype)


def for_one_request(program: Program) -> Program:
    """Give a program for batches of one request: rows are broadcast, places need no gathering.

    Args:
        program: Of the candidates; it is left as it is.
    """
    graph = fx.Graph()
    result = graph.graph_copy(program.module.graph, {})
    graph.output(result)
    index = next(
        (
            n
            for n, name in zip(_inputs(graph), program.inputs, strict=True)
            if name == "request_index"
        ),
        None,
    )
    for node in list(graph.nodes):
        with graph.inserting_before(node):
            if node.target is ours.expand.default:
                x = node.args[0]
                count = graph.call_function(aten.sym_size.int, (index, 0))
                ndim = x.meta["val"].dim()
                new = graph.call_function(aten.expand.default, (x, [count, *[-1] * (ndim - 1)]))
            elif node.target is ours.to_slots.default:
                new = graph.call_function(aten.unsqueeze.default, (node.args[0], 0))
            elif node.target is ours.from_slots.default:
                new = graph.call_function(aten.flatten.using_ints, (node.args[0], 0, 1))
            else:
                continue
        new.meta = dict(node.meta)
        node.replace_all_uses_with(new)
        graph.erase_node(node)
    kept = []
    for node, name in zip(_inputs(graph), program.inputs, strict=True):
        if node.users:
            kept.append(name)
        else:
            graph.erase_node(node)
    return Program(fx.GraphModule(program.module, graph), kept, program.outputs)


def _inputs(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op == "placeholder"]
