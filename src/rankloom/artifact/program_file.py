"""Programs as JSON: a versioned list of nodes, whose operations stand on an allow list.

Reading one runs nothing and imports nothing that the file names: an operation is found in a table
of known ones, an argument is a number, a name of an earlier node, or a list of such. A graph
becomes Python code before it runs, so no text of the file may become a name in it: nodes are
numbered, and a named argument must be one of the operation's own.

    {"format_version": 1, "inputs": ["features/item", ...], "outputs": [...], "nodes": [
        {"name": "item", "op": "input"},
        {"name": "w", "op": "constant", "target": "constant_0"},
        {"name": "linear", "op": "aten.linear.default", "args": [{"node": "item"}, {"node": "w"}]}],
     "results": [{"node": "linear"}]}
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from rankloom.errors import ArtifactError, join_problems
from rankloom.hoist import Program, Programs
from rankloom.hoist.call import aten, ours
from rankloom.hoist.rules import RULES

FORMAT_VERSION = 1
MAX_NODES = 1_000_000
MAX_DEPTH = 16
"""Lists within lists of an argument."""
MAX_INTEGER = 2**63 - 1
"""Of an argument; also what stands for the end of a slice."""
MAX_ELEMENTS = 2**28
"""Of a tensor that a program makes out of nothing, as far as the file itself gives its sizes; and
of every number in a list, which is a size, a dimension or a padding."""
MAX_FACTORS = 8
"""Of a product of sizes."""

_FURTHER = (
    aten.add.Tensor,
    aten.einsum.default,
    aten.expand.default,
    aten.neg.default,
    aten.rsqrt.default,
    aten.sym_size.int,
    ours.dequantize.default,
    ours.from_slots.default,
    ours.to_slots.default,
)
"""What programs are made of beside the operations of networks."""
OPERATIONS: dict[str, Any] = {
    **{str(one): one for one in (*RULES, *_FURTHER)},
    "getitem": operator.getitem,
    "mul": operator.mul,
}
"""Name in a file -> operation: all that a program may hold."""
_NAMES = {operation: name for name, operation in OPERATIONS.items()}
_MAKERS = {
    aten.expand.default,
    aten.full.default,
    aten.new_full.default,
    aten.new_ones.default,
    aten.new_zeros.default,
    aten.ones.default,
    aten.zeros.default,
}
"""Operations whose result is as large as their arguments say."""
_DTYPES = {
    str(dtype): dtype
    for dtype in (
        torch.float64,
        torch.float32,
        torch.bfloat16,
        torch.float16,
        torch.int64,
        torch.int32,
        torch.int8,
        torch.uint8,
        torch.bool,
    )
}


def to_json(program: Program) -> str:
    """Write a program; its constants stand elsewhere, by name.

    Raises:
        ArtifactError: It holds an operation that no file may hold.
    """
    nodes: list[dict[str, Any]] = []
    results: Any = None
    problems = []
    for node in program.module.graph.nodes:
        if node.op == "output":
            results = _encode(node.args[0])
        elif node.op == "placeholder":
            nodes.append({"name": node.name, "op": "input"})
        elif node.op == "get_attr":
            nodes.append({"name": node.name, "op": "constant", "target": node.target})
        elif node.target not in _NAMES:
            problems.append(f"node {node.name!r}: operation {node.target} cannot be written.")
        else:
            entry = {"name": node.name, "op": _NAMES[node.target], "args": _encode(node.args)}
            if node.kwargs:
                entry["kwargs"] = {key: _encode(value) for key, value in node.kwargs.items()}
            nodes.append(entry)
    if problems:
        raise ArtifactError(join_problems(problems, where="program"))
    return json.dumps(
        {
            "format_version": FORMAT_VERSION,
            "inputs": list(program.inputs),
            "outputs": list(program.outputs),
            "nodes": nodes,
            "results": results,
        },
        indent=None,
        separators=(",", ":"),
        allow_nan=False,
    )


def from_json(
    text: str,
    constants: Mapping[str, Tensor],
    *,
    where: str = "program",
    device: torch.device | None = None,
) -> Program:
    """Read a program.

    Args:
        text: What `to_json` wrote; nothing in it is trusted.
        constants: Name -> tensor; those that the program names are bound to it.
        where: What errors call the file.
        device: Where tensors are made that the program makes out of nothing; default: the CPU.

    Raises:
        ArtifactError: It is no program of this format, names an unknown operation or constant,
            uses a node before it is made, or holds absurd numbers or sizes. The first such is
            named.
    """
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{where}: is no JSON. Got {error}. Export the run again.") from None
    return _Reader(where, constants, device or torch.device("cpu")).read(content)


def read_back(programs: Programs) -> Programs:
    """Write programs and read them: what an artifact would run."""

    def again(program: Program) -> Program:
        return from_json(to_json(program), dict(program.module.named_buffers()))

    by_rate = {rate: again(program) for rate, program in programs.by_rate.items()}
    return Programs(by_rate, again(programs.one_request))


def _encode(value: Any) -> Any:
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value)}
    if isinstance(value, torch.device):
        return {"device": "here"}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, tuple | list):
        return [_encode(one) for one in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ArtifactError(f"program: an argument of type {type(value).__name__} cannot be written.")


def _can_dequantize(args: list[Any], holder: nn.Module) -> bool:
    """Whether these are a constant in int8 and its scale."""
    if len(args) != 2 or not all(isinstance(one, fx.Node) and one.op == "get_attr" for one in args):
        return False
    values, scale = (holder.get_buffer(str(one.target)) for one in args)
    pairs = list(zip(values.shape, scale.shape, strict=False))
    is_scale = scale.dtype == torch.float32 and scale.dim() == values.dim()
    return values.dtype == torch.int8 and is_scale and all(b in {a, 1} for a, b in pairs)


def _arguments_of(operation: Any) -> list[str]:
    """Name an operation's arguments, in order."""
    return [one.name for one in operation._schema.arguments]  # noqa: SLF001


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name}, which is no JSON number")


class _Reader:
    """Reads one program; knows the nodes so far."""

    def __init__(self, where: str, constants: Mapping[str, Tensor], device: torch.device) -> None:
        self.where = where
        self.device = device
        self.constants = constants
        self.graph = fx.Graph()
        self.nodes: dict[str, fx.Node] = {}
        self.num_factors: dict[fx.Node, int] = {}
        """Size -> of how many sizes and numbers it is the product."""
        self.bound: dict[str, str] = {}
        """Constant's name in the file -> in the holder."""
        self.holder = nn.Module()

    def read(self, content: Any) -> Program:
        self._check(isinstance(content, dict), "must be an object", type(content).__name__)
        version = content.get("format_version")
        self._check(
            version == FORMAT_VERSION, f"must have format_version {FORMAT_VERSION}", version
        )
        nodes = content.get("nodes")
        self._check(isinstance(nodes, list) and len(nodes) <= MAX_NODES, "needs a list of nodes")
        for entry in nodes:
            self._node(entry)
        inputs, outputs = (self._names(content, key) for key in ("inputs", "outputs"))
        count = sum(node.op == "placeholder" for node in self.graph.nodes)
        self._check(len(inputs) == count, f"names {len(inputs)} inputs", f"{count} input nodes")
        results = self._decode(content.get("results"))
        is_list = isinstance(results, list) and all(isinstance(one, fx.Node) for one in results)
        self._check(is_list and len(results) > 0, "has no results")
        self.graph.output(tuple(results))
        return Program(fx.GraphModule(self.holder, self.graph), inputs, outputs)

    def _node(self, entry: Any) -> None:
        self._check(isinstance(entry, dict), "holds a node that is no object", entry)
        name, op = entry.get("name"), entry.get("op")
        self._check(
            isinstance(name, str) and name.isidentifier() and len(name) < 256,
            "holds a node without a proper name",
            name,
        )
        self._check(name not in self.nodes, f"names node {name!r} twice")
        own = f"node_{len(self.nodes)}"
        if op == "input":
            made = self.graph.placeholder(own)
        elif op == "constant":
            made = self.graph.get_attr(self._constant(name, entry.get("target")))
        else:
            operation: Any = OPERATIONS.get(op) if isinstance(op, str) else None
            self._check(operation is not None, f"node {name!r} has an unknown operation", op)
            args, kwargs = self._decode(entry.get("args", [])), entry.get("kwargs", {})
            self._check(
                isinstance(args, list) and isinstance(kwargs, dict),
                f"node {name!r} has no arguments",
            )
            decoded = {key: self._decode(value) for key, value in kwargs.items()}
            self._check_arguments(name, operation, args, decoded)
            made = self.graph.create_node("call_function", operation, tuple(args), decoded, own)
            self._count_factors(name, made)
        self.nodes[name] = made

    def _constant(self, name: str, target: Any) -> str:
        self._check(
            isinstance(target, str) and target in self.constants,
            f"node {name!r} names a constant that there is not",
            target,
        )
        if target not in self.bound:
            self.bound[target] = f"constant_{len(self.bound)}"
            self.holder.register_buffer(self.bound[target], self.constants[target])
        return self.bound[target]

    def _check_arguments(
        self, name: str, operation: Any, args: list[Any], kwargs: dict[str, Any]
    ) -> None:
        """Check the arguments' names and number, and the sizes among them."""
        if operation in {operator.getitem, operator.mul}:
            is_right = len(args) == 2 and all(isinstance(one, fx.Node | int) for one in args)
            self._check(is_right and not kwargs, f"node {name!r} has other arguments than two")
            return
        if operation is ours.dequantize.default:
            self._check(_can_dequantize(args, self.holder), f"node {name!r} has no int8 weight")
        known = _arguments_of(operation)
        unknown = [key for key in kwargs if key not in known[len(args) :]]
        self._check(
            len(args) <= len(known) and not unknown,
            f"node {name!r} has other arguments than {operation}",
            unknown[0] if unknown else f"{len(args)} arguments",
        )
        for value in (*args, *kwargs.values()):
            sizes = [one for one in value if type(one) is int] if isinstance(value, list) else []
            largest = max(map(abs, sizes), default=0)
            self._check(
                largest <= MAX_ELEMENTS, f"node {name!r} holds a size that is too large", largest
            )
            if operation in _MAKERS:
                count = math.prod(max(1, one) for one in sizes)
                self._check(
                    count <= MAX_ELEMENTS, f"node {name!r} makes a tensor that is too large", sizes
                )

    def _count_factors(self, name: str, made: fx.Node) -> None:
        """Check that a product is one of a few sizes: Python's numbers grow without end."""
        if made.target is aten.sym_size.int:
            self.num_factors[made] = 1
        elif made.target is operator.mul:
            known = [self.num_factors.get(one) for one in made.args if isinstance(one, fx.Node)]
            counts = [one for one in known if one is not None]
            self._check(len(counts) == len(known), f"node {name!r} multiplies what is no size")
            self.num_factors[made] = sum(counts) + len(made.args) - len(counts)
            self._check(
                self.num_factors[made] <= MAX_FACTORS, f"node {name!r} multiplies too many sizes"
            )

    def _decode(self, value: Any, depth: int = 0) -> Any:
        self._check(depth <= MAX_DEPTH, "holds lists within lists too deep")
        if isinstance(value, list):
            return [self._decode(one, depth + 1) for one in value]
        if isinstance(value, dict):
            return self._tagged(value)
        if isinstance(value, int) and not isinstance(value, bool):
            self._check(abs(value) <= MAX_INTEGER, "holds a number that is too large", value)
        self._check(
            value is None or isinstance(value, bool | int | float | str),
            "holds an argument of unknown form",
            value,
        )
        return value

    def _tagged(self, value: dict[str, Any]) -> Any:
        self._check(len(value) == 1, "holds an argument of unknown form", value)
        tag, content = next(iter(value.items()))
        known: dict[str, Mapping[str, Any]] = {
            "node": self.nodes,
            "dtype": _DTYPES,
            "device": {"here": self.device},
            "float": {"inf": math.inf, "-inf": -math.inf, "nan": math.nan},
        }
        self._check(
            tag in known and isinstance(content, str) and content in known[tag],
            "uses a node before it is made"
            if tag == "node"
            else "holds an argument of unknown form",
            value,
        )
        return known[tag][content]

    def _names(self, content: Mapping[str, Any], key: str) -> list[str]:
        names = content.get(key)
        is_list = isinstance(names, list) and all(isinstance(one, str) for one in names)
        self._check(is_list, f"needs a list of {key}")
        assert isinstance(names, list)
        return names

    def _check(self, is_right: bool, what: str, got: Any = None) -> None:
        if not is_right:
            seen = "" if got is None else f" Got {str(got)[:80]!r}."
            raise ArtifactError(f"{self.where}: {what}.{seen} Export the run again.")
