"""What scoring costs at each rate, by part, before and after hoisting.

Shapes: N candidates of one request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from rankloom.hoist.capture import inputs_by_path
from rankloom.hoist.decisions import module_of
from rankloom.hoist.hoist import Hoisted
from rankloom.layers.protocols import Inputs
from rankloom.models.cost import ByteCounter
from rankloom.ops.flops import flop_counter
from rankloom.schema import Rate

Counts = dict[Rate, float]


@dataclass
class PartByRate:
    """One part of a network, for one request."""

    name: str
    """One of `PARTS`."""
    plain_flops: float = 0.0
    """With everything computed for each candidate."""
    plain_bytes: float = 0.0
    """Read and written by that."""
    flops: Counts = field(default_factory=dict)
    """Rate -> after hoisting, for all candidates."""
    bytes: Counts = field(default_factory=dict)
    """Rate -> read and written after hoisting."""


@dataclass(frozen=True)
class HoistCost:
    """A request's cost, before and after."""

    num_candidates: int
    """N."""
    parts: tuple[PartByRate, ...]
    """In the order of the data."""
    state_bytes: Counts
    """Rate -> bytes of the tensors that cross from its program."""

    @property
    def plain_flops(self) -> float:
        """Before hoisting."""
        return sum(part.plain_flops for part in self.parts)

    def flops_at(self, rate: Rate) -> float:
        """After hoisting, of one rate."""
        return sum(part.flops.get(rate, 0.0) for part in self.parts)

    @property
    def hoisted_share(self) -> float:
        """Share of the plain FLOPs that hoisting saves."""
        after = sum(self.flops_at(rate) for rate in Rate)
        return 1 - after / self.plain_flops if self.plain_flops else 0.0


@torch.no_grad()
def cost_by_rate(network: nn.Module, hoisted: Hoisted, inputs: Inputs) -> HoistCost:
    """Count FLOPs and bytes of one request.

    Args:
        network: The plain network.
        hoisted: Its programs.
        inputs: One request with its candidates.
    """
    parts: dict[str, PartByRate] = {}
    values = dict(inputs_by_path(inputs))
    plain = _Counting(fx.GraphModule(nn.Module(), hoisted.captured.graph))
    plain.run(*hoisted.captured.arguments(network, values))
    for name, (flops, size) in plain.counts.items():
        part = parts.setdefault(name, PartByRate(name))
        part.plain_flops, part.plain_bytes = flops, size
    state_bytes: Counts = {}
    for rate, program in hoisted.programs_for_one_request().items():
        counting = _Counting(program.module)
        results = counting.run(*(values[name] for name in program.inputs))
        for name, (flops, size) in counting.counts.items():
            part = parts.setdefault(name, PartByRate(name))
            part.flops[rate], part.bytes[rate] = flops, size
        values.update(zip(program.outputs, results, strict=False))
    for one in hoisted.state:
        tensor = values[one.name]
        size = tensor.numel() * tensor.element_size()
        state_bytes[one.rate] = state_bytes.get(one.rate, 0.0) + size
    kept = [part for part in parts.values() if part.plain_bytes or part.bytes]
    kept.sort(key=lambda part: PARTS.index(part.name))
    return HoistCost(len(inputs.request_index), tuple(kept), state_bytes)


PARTS = ("histories", "tokenization", "interaction", "head")
"""Of a network. All encoders are one part: their methods are no calls of a module."""


class _Counting(fx.Interpreter):
    """Runs a graph and adds up FLOPs and bytes by part of the network."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.counts: dict[str, tuple[float, float]] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and count it."""
        if n.op != "call_function":
            return super().run_node(n)
        with flop_counter() as flops, ByteCounter() as traffic:
            result = super().run_node(n)
        before = self.counts.get(part_of(n), (0.0, 0.0))
        self.counts[part_of(n)] = (
            before[0] + flops.get_total_flops(),
            before[1] + traffic.total,
        )
        return result


def part_of(node: fx.Node) -> str:
    """Name the part of the network that a node of a plain or rewritten graph belongs to."""
    plain = node.meta.get("plain") or node
    part = module_of(plain).split(".")[0]
    return part if part in PARTS else PARTS[0]
