"""A network as a graph of operations over flat rows, with the rate of each input.

The graph is that of `torch.export` before decomposition: linear layers, batched products, norms and
custom ops stay whole. R, B and the lengths of histories are symbols in it.

Shapes: R requests, B rows, L history length.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sympy
import torch
from torch import Tensor, fx, nn
from torch.export import Dim
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils._pytree import TreeSpec, tree_flatten_with_path, tree_map

from rankloom.data.batch import make_slots
from rankloom.errors import HoistError
from rankloom.hoist.values import Rows
from rankloom.layers.protocols import EventInputs, Inputs, Layout
from rankloom.schema import Rate

_TORCH = str(Path(torch.__file__).parent)
CROSSINGS = ("request_index", "slots", "slot_of_row")
"""Inputs that say how requests and rows belong together; only the compiler uses them."""


@dataclass(frozen=True)
class Capture:
    """A captured network."""

    graph: fx.Graph
    inputs: dict[str, str]
    """Placeholder -> path of the input, such as `features/user` or `sequences/history/mask`."""
    rates: dict[str, Rate]
    """Path -> rate; `CROSSINGS` are left out."""
    parameters: dict[str, str]
    """Placeholder -> name of a parameter or buffer of the network."""
    constants: dict[str, Tensor]
    """Placeholder -> a tensor that the network's code made."""
    outputs: TreeSpec
    """How the graph's outputs form the network's `Output`."""
    crossings: dict[str, Any]
    """Each of `CROSSINGS` -> its fake tensor."""
    fake_mode: Any
    """In which the graph's fake tensors live."""

    @property
    def batch_size(self) -> torch.SymInt:
        """B, as a size."""
        size: torch.SymInt = self.crossings["request_index"].shape[0]
        return size

    @property
    def num_rows(self) -> sympy.Symbol:
        """B, as a symbol."""
        symbol: sympy.Symbol = self.batch_size.node.expr
        return symbol

    @property
    def num_requests(self) -> sympy.Symbol:
        """R, as a symbol."""
        symbol: sympy.Symbol = self.crossings["slots"].shape[0].node.expr
        return symbol

    def arguments(self, network: nn.Module, values: Mapping[str, Tensor]) -> list[Any]:
        """Give what the graph's placeholders take.

        Args:
            network: Holds the parameters.
            values: Path of an input -> its tensor; what the graph does not read may be missing.
        """
        tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        given: list[Any] = []
        for node in self.graph.nodes:
            if node.op != "placeholder":
                continue
            if node.name in self.parameters:
                given.append(tensors[self.parameters[node.name]])
            elif node.name in self.constants:
                given.append(self.constants[node.name])
            else:
                given.append(values.get(self.inputs[node.name]))
        return given


def rows_of(value: Any, num_rows: sympy.Symbol, node: fx.Node) -> Rows | None:
    """Find the dimension of a fake tensor whose size is a multiple of `num_rows`."""
    found = []
    for dim, size in enumerate(value.shape):
        expression = size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)
        if num_rows not in expression.free_symbols:
            continue
        block = sympy.cancel(expression / num_rows)
        if not block.is_Integer:
            raise refusal(node, f"has a dimension of {expression} entries over rows")
        found.append(Rows(dim, int(block)))
    if len(found) > 1:
        raise refusal(node, "compares rows with each other: rows stand in two dimensions")
    return found[0] if found else None


def capture(network: nn.Module, example: Inputs, layout: Layout) -> Capture:
    """Capture a network.

    Args:
        network: In the mode (training or evaluation) that is to be captured.
        example: At least two requests, and more rows than requests.
        layout: Rates of the features and histories.

    Raises:
        HoistError: `torch.export` cannot capture the network.
    """
    num_requests = _num_requests(example)
    if num_requests < 2 or len(example.request_index) <= num_requests:
        raise HoistError(
            "hoist: the example for capture needs two requests or more, and more rows than "
            f"requests. Got {num_requests} requests of {len(example.request_index)} rows. "
            "Give another batch."
        )
    slots, slot_of_row = make_slots(example.request_index, num_requests)
    example = example._replace(slots=slots, slot_of_row=slot_of_row)
    example = tree_map(lambda one: one.detach() if isinstance(one, Tensor) else one, example)
    shapes = _dynamic_shapes(example, num_requests)
    try:
        with torch.no_grad():
            program = torch.export.export(
                network, (example,), dynamic_shapes=(shapes,), strict=False
            )
            if any(_writes(node) for node in program.graph.nodes):
                program = _without_writes(program)
    except Exception as error:
        # Whatever the tracer meets in a user's model is told as one error.
        raise HoistError(
            f"hoist: torch.export cannot capture {type(network).__name__}. Got "
            f"{type(error).__name__}: {str(error).strip().splitlines()[0]} Avoid Python control "
            "flow on values of tensors; `rankloom check` shows the whole traceback with --debug."
        ) from error
    signature = program.graph_signature
    paths = [_path(keys) for keys, _ in tree_flatten_with_path((example,))[0]]
    users = [one for one in signature.input_specs if one.kind is InputKind.USER_INPUT]
    inputs = {one.arg.name: path for one, path in zip(users, paths, strict=True)}
    crossings = {
        inputs[node.name]: node.meta["val"]
        for node in program.graph.nodes
        if inputs.get(node.name) in CROSSINGS
    }
    mutated = [
        one.target for one in signature.output_specs if one.kind is not OutputKind.USER_OUTPUT
    ]
    if mutated:
        raise HoistError(
            f"hoist: the network writes to {', '.join(map(str, mutated))}, which a hoisted program "
            "cannot. Statistics of a batch (BatchNorm, Dice) mix rows: use another norm, or train "
            "flat."
        )
    return Capture(
        graph=program.graph,
        inputs=inputs,
        rates=_rates(paths, layout),
        parameters={**signature.inputs_to_parameters, **signature.inputs_to_buffers},
        constants={
            name: program.constants[target]
            for name, target in signature.inputs_to_lifted_tensor_constants.items()
        },
        outputs=program.call_spec.out_spec,
        crossings=crossings,
        fake_mode=crossings["request_index"].fake_mode,
    )


def _writes(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)  # operators of Python have none
    return schema is not None and bool(schema.is_mutable)


def _without_writes(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Replace operations in place by ones that give a new tensor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own copying of its tree specs
        return program.run_decompositions({})


def refusal(node: fx.Node, what: str) -> HoistError:
    """Make the error that refuses a node, with the line of the model that made it."""
    return HoistError(
        f"hoist: node {node.name!r} ({node.target}) {what}.{_source(node)} Each row of a network "
        "must be computed from that row (and its request) alone; set-wise parts go through "
        "to_slots and from_slots."
    )


def _source(node: fx.Node) -> str:
    """Give the innermost line of the model's own code."""
    trace = node.meta.get("stack_trace") or ""
    lines = [line.strip() for line in trace.splitlines() if line.strip().startswith("File ")]
    lines = [line for line in lines if _TORCH not in line] or lines
    return f" Got it in {lines[-1]}." if lines else ""


def _num_requests(example: Inputs) -> int:
    """Count the requests: those of a history, or the last that a row names."""
    for history in example.sequences.values():
        return len(history.mask)
    return int(example.request_index.max()) + 1


def _rates(paths: list[str], layout: Layout) -> dict[str, Rate]:
    rates = {}
    for path in paths:
        kind, _, rest = path.partition("/")
        if kind in CROSSINGS:
            continue
        if kind == "sequences":
            name, _, inner = rest.partition("/")
            is_age = inner == "times/age_newest"
            rates[path] = max(layout.sequences[name].rate, Rate.REQUEST if is_age else Rate.USER)
        else:
            rates[path] = layout.features[rest].rate
    return rates


def _dynamic_shapes(example: Inputs, num_requests: int) -> Inputs:
    """Say that R, B and each history's length are free."""
    requests, rows = Dim("R", min=2), Dim("B", min=2)

    def first(value: Tensor) -> Any:
        return {0: requests if len(value) == num_requests else rows}

    sequences: Any = {}
    for number, (name, history) in enumerate(example.sequences.items()):
        length = Dim(f"L{number}", min=2)
        padded: Any = {0: requests, 1: length}
        times: Any = {
            key: {0: requests} if value.dim() == 1 else padded
            for key, value in history.times.items()
        }
        sequences[name] = EventInputs(padded, padded, times)
    places: Any = {0: requests, 1: Dim.AUTO}
    return Inputs(
        features={name: first(value) for name, value in example.features.items()},
        sequences=sequences,
        ids={name: first(value) for name, value in example.ids.items()},
        request_index=first(example.request_index),
        slots=places,
        slot_of_row=first(example.request_index),
    )


def _path(keys: tuple[Any, ...]) -> str:
    """Write the path of a leaf of `(Inputs,)` without the first step."""
    steps = [getattr(key, "key", getattr(key, "name", getattr(key, "idx", None))) for key in keys]
    return "/".join(str(step) for step in steps[1:])


def inputs_by_path(inputs: Inputs) -> Mapping[str, Tensor]:
    """Give every tensor of the network's inputs by its path."""
    values = {f"features/{name}": one for name, one in inputs.features.items()}
    for name, history in inputs.sequences.items():
        values[f"sequences/{name}/events"] = history.events
        values[f"sequences/{name}/mask"] = history.mask
        for key, one in history.times.items():
            values[f"sequences/{name}/times/{key}"] = one
    values.update({f"ids/{name}": one for name, one in inputs.ids.items()})
    places = {"request_index": inputs.request_index}
    if inputs.slots is not None and inputs.slot_of_row is not None:
        places |= {"slots": inputs.slots, "slot_of_row": inputs.slot_of_row}
    return {**values, **places}
