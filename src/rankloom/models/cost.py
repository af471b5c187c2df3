"""What a model costs: parameters, FLOPs and bytes per row, by part.

FLOPs are counted by torch's counter (a multiply-add is two) on a real forward. Bytes are what the
operations of a part read and write, each tensor once an operation: an upper bound of its traffic.

Shapes: B rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rankloom.data.batch import Batch
from rankloom.layers.memory import memory_tables
from rankloom.losses import Loss
from rankloom.models.build import Model
from rankloom.models.example import example_batch
from rankloom.ops.flops import flop_counter

SAMPLE_ROWS = 64


@dataclass(frozen=True)
class PartCost:
    """One part of a model."""

    name: str
    """Embedder, encoder of a history, tokenization, interaction, head."""
    parameters: int
    """Dense parameters; tables are apart."""
    flops_per_row: float
    """Forward."""
    bytes_per_row: float
    """Read and written by its operations, forward."""


@dataclass(frozen=True)
class TableCost:
    """One table."""

    name: str
    """Its name."""
    num_embeddings: int
    """Rows."""
    embedding_dim: int
    """Width."""

    @property
    def num_bytes(self) -> int:
        """Memory of its values, in fp32."""
        return 4 * self.num_embeddings * self.embedding_dim


@dataclass(frozen=True)
class ModelCost:
    """A whole model."""

    parts: tuple[PartCost, ...]
    """In the order of the data."""
    tables: tuple[TableCost, ...]
    """In the order of the schema, then the memories'."""

    @property
    def parameters(self) -> int:
        """Dense parameters."""
        return sum(part.parameters for part in self.parts)

    @property
    def table_parameters(self) -> int:
        """Numbers in the tables."""
        return sum(table.num_embeddings * table.embedding_dim for table in self.tables)

    @property
    def flops_per_row(self) -> float:
        """Forward."""
        return sum(part.flops_per_row for part in self.parts)


def model_cost(model: Model) -> ModelCost:
    """Count a model's parameters, and the forward FLOPs and bytes of its parts on a random batch.

    Histories are taken at their full `max_length`.
    """
    batch = example_batch(model, rows_of_request=(1,) * SAMPLE_ROWS, full_histories=True)
    counter = _PartCounter(batch.num_rows)
    network = model.network
    parts: dict[str, nn.Module] = {"embedder": model.embedder}
    parts |= {
        f"sequence {name}": network.encoders[f"history_{name}"] for name in network.layout.sequences
    }
    parts |= {
        "tokenization": network.tokenization,
        "interaction": network.interaction,
        "head": network.head,
    }
    was_training = network.training
    model.train(False)
    try:
        counter.run(lambda: network(model.embedder(batch).inputs), parts)
    finally:
        model.train(was_training)
    costs = [
        PartCost(name, _count_dense(module), *counter.of(name)) for name, module in parts.items()
    ]
    if len(network.towers):
        towers = count_parameters(network.towers)
        costs.append(PartCost("auxiliary towers (training only)", towers, 0.0, 0.0))
    groups = model.sparse_tables()
    tables = [TableCost(name, size, g.dim) for g in groups for name, size in g.sizes.items()]
    return ModelCost(tuple(costs), tuple(tables))


def training_flops(
    model: Model, loss_fn: Loss, batch: Batch, *, network: nn.Module | None = None
) -> float:
    """Count the FLOPs of one row's forward and backward on a given batch.

    Leaves gradients, buffers (a batch norm's means), random state and mode as they were.

    Args:
        model: What is trained.
        loss_fn: Its loss.
        batch: On its device.
        network: The form in which the network runs, if not the model's own.
    """
    parameters = list(model.network.parameters())
    saved = [parameter.grad for parameter in parameters]
    buffers = [(buffer, buffer.clone()) for buffer in model.network.buffers()]
    with torch.random.fork_rng(), flop_counter() as counter:
        output = (network or model.network)(model.embedder(batch).inputs)
        loss_fn(output, batch).total.backward()
    for parameter, gradient in zip(parameters, saved, strict=True):
        parameter.grad = gradient
    for buffer, before in buffers:
        buffer.copy_(before)
    return counter.get_total_flops() / batch.num_rows


def count_parameters(module: nn.Module) -> int:
    """Count the numbers in a module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def _count_dense(module: nn.Module) -> int:
    tables = (table.weight.numel() for table in memory_tables(module))
    return count_parameters(module) - sum(tables)


class _PartCounter:
    """Counts FLOPs and bytes while one of the named modules is at work.

    The parts of an interaction are called one by one (`embed_in`, layers, `readout`), so that a
    hook on the module itself would miss them: each method's call is wrapped instead. A head calls
    the interaction's `readout` in its own `forward`: what a call within a call costs belongs to the
    inner one alone.
    """

    METHODS = ("forward", "encode", "read", "embed_in", "features", "readout")

    def __init__(self, num_rows: int) -> None:
        self.num_rows = num_rows
        self.flops: dict[str, float] = {}
        self.bytes: dict[str, float] = {}
        self._within: list[list[float]] = []

    def run(self, call: Callable[[], Any], parts: Mapping[str, nn.Module]) -> None:
        """Call once with every part counted."""
        wrapped: list[tuple[nn.Module, str]] = []
        for name, module in parts.items():
            layers: Sequence[nn.Module] = list(getattr(module, "layers", []))
            for one in (module, *layers):
                for method in self.METHODS:
                    own = type(one).__dict__.get(method) or getattr(type(one), method, None)
                    if own is not None and own is not nn.Module.forward:
                        setattr(one, method, self._counted(name, getattr(one, method)))
                        wrapped.append((one, method))
        try:
            with torch.no_grad():
                call()
        finally:
            for one, method in wrapped:
                delattr(one, method)

    def of(self, name: str) -> tuple[float, float]:
        """Give a part's FLOPs and bytes per row."""
        return (
            self.flops.get(name, 0.0) / self.num_rows,
            self.bytes.get(name, 0.0) / self.num_rows,
        )

    def _counted(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._within.append([0.0, 0.0])
            with flop_counter() as flops, ByteCounter() as traffic:
                result = method(*args, **kwargs)
            inner = self._within.pop()
            own = [flops.get_total_flops(), traffic.total]
            if self._within:
                self._within[-1] = [a + b for a, b in zip(self._within[-1], own, strict=True)]
            self.flops[name] = self.flops.get(name, 0.0) + own[0] - inner[0]
            self.bytes[name] = self.bytes.get(name, 0.0) + own[1] - inner[1]
            return result

        return counted


class ByteCounter(TorchDispatchMode):
    """Adds up the sizes of what each operation reads and writes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operation and count its tensors; a view moves nothing."""
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            used = [*tree_leaves(args), *tree_leaves(result)]
            self.total += sum(t.numel() * t.element_size() for t in used if isinstance(t, Tensor))
        return result
