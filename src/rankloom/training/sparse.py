"""Optimizers of tables: equal rows are summed, and only rows that were used are touched.

Shapes: V looked-up rows, U distinct ones, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rankloom.embedding import FusedTables, Lookup
from rankloom.errors import ConfigError, did_you_mean, join_problems
from rankloom.layers.memory import MemoryTable
from rankloom.ops.segment import sum_by_id
from rankloom.training.config import RowwiseAdagradConfig, SparseAdamConfig

Tables = FusedTables | MemoryTable


class SparseOptimizer(ABC):
    """Base of the table optimizers: dedupes, scales and applies; subclasses give the step.

    Args:
        groups: The embedder's groups of tables, and the network's memories.
        config: Learning rate and decay, per table where stated.

    Raises:
        ConfigError: The config names a table that does not exist.
    """

    def __init__(self, groups: Sequence[Tables], config: Any) -> None:
        self.groups = list(groups)
        self.config = config
        self.lr_factor = 1.0
        known = [name for group in self.groups for name in group.sizes]
        problems = [
            f"training.sparse.tables.{name}: no table has this name.{did_you_mean(name, known)}"
            for name in config.tables
            if name not in known
        ]
        if problems:
            raise ConfigError(join_problems(problems, where="run file" if problems[1:] else ""))
        self.num_steps = 0
        self.states = [self.new_state(group) for group in self.groups]
        if config.l2 or any(one.l2 for one in config.tables.values()):
            for group, state in zip(self.groups, self.states, strict=True):
                state["last_use"] = torch.zeros(len(group.weight), device=group.weight.device)
        self._options = [_TableOptions(group, config) for group in self.groups]

    @abstractmethod
    def new_state(self, group: Tables) -> dict[str, Tensor]:
        """Give a group's optimizer state: tensors with one entry per row."""

    @abstractmethod
    def update(self, state: dict[str, Tensor], rows: Tensor, gradient_UD: Tensor) -> Tensor:
        """Advance the state of the used rows and give (U, D) what to subtract, at rate 1."""

    @torch.no_grad()
    def step(self, lookups: Sequence[Lookup]) -> None:
        """Apply the gradients of the rows that were looked up or read, if they have any.

        A row's L2 penalty counts all steps since it was last used, so that over time a rare row is
        pulled to zero as if the penalty had touched the whole table in every step.
        """
        self.num_steps += 1
        for number, group in enumerate(self.groups):
            found = _gradients(group, lookups)
            if found is None:
                continue
            rows, gradient_UD = sum_by_id(*found)
            lr, decay, l2 = self._options[number].at(rows)
            if l2 is not None:
                last_use = self.states[number]["last_use"]
                idle_U1 = (self.num_steps - last_use[rows]).unsqueeze(1)
                gradient_UD = gradient_UD + (l2 * idle_U1) * group.weight[rows]
                last_use[rows] = self.num_steps
            delta_UD = self.update(self.states[number], rows, gradient_UD)
            if decay is not None:
                group.weight[rows] *= 1 - lr * self.lr_factor * decay
            group.weight.index_add_(0, rows, delta_UD.mul_(lr * -self.lr_factor))


def _gradients(group: Tables, lookups: Sequence[Lookup]) -> tuple[Tensor, Tensor] | None:
    """Give (V,) rows of a group and their (V, D) gradients, repeats included; none without any."""
    if isinstance(group, MemoryTable):
        gradient, group.weight.grad = group.weight.grad, None
        # The public accessors want equal rows summed already.
        return None if gradient is None else (gradient._indices()[0], gradient._values())  # noqa: SLF001
    used = [one for one in lookups if one.tables is group and one.vectors.grad is not None]
    if not used:
        return None
    rows = torch.cat([one.rows for one in used]) if used[1:] else used[0].rows
    gradients: list[Tensor] = [one.vectors.grad for one in used]  # type: ignore[misc]
    return rows, torch.cat(gradients) if used[1:] else gradients[0]


class _TableOptions:
    """Learning rate, decay and L2 penalty of a group's tables, looked up by row.

    Args:
        group: The tables.
        config: The optimizer's, with what differs from table to table.
    """

    def __init__(self, group: Tables, config: Any) -> None:
        self.starts = torch.tensor(list(group.offsets.values()), device=group.weight.device)
        self.by_name: dict[str, list[float]] = {}
        for name in ("lr", "weight_decay", "l2"):
            own = [getattr(config.tables.get(table), name, None) for table in group.sizes]
            default = getattr(config, name)
            self.by_name[name] = [default if value is None else value for value in own]

    def at(self, rows: Tensor) -> tuple[Any, ...]:
        """Give (lr, weight_decay, l2) at rows: a number, or (U, 1) where tables differ.

        What is zero for every table is None.
        """
        table: Tensor | None = None
        found: list[Any] = []
        for values in self.by_name.values():
            if len(set(values)) == 1:
                found.append(values[0] or None)
                continue
            if table is None:
                table = torch.bucketize(rows, self.starts.to(rows.device), right=True) - 1
            found.append(torch.tensor(values, device=rows.device)[table].unsqueeze(1))
        return tuple(found)


class RowwiseAdagrad(SparseOptimizer):
    """w -= lr * g / (sqrt(sum of mean(g^2)) + eps), one accumulator a row."""

    config: RowwiseAdagradConfig

    def new_state(self, group: Tables) -> dict[str, Tensor]:
        """One accumulator a row."""
        start = self.config.initial_accumulator
        return {"accumulator": torch.full((len(group.weight),), start, device=group.weight.device)}

    def update(self, state: dict[str, Tensor], rows: Tensor, gradient_UD: Tensor) -> Tensor:
        """Add mean(g^2) to the rows' accumulators; give g over their root."""
        accumulator = state["accumulator"]
        grown = accumulator[rows] + gradient_UD.square().mean(dim=1)
        accumulator[rows] = grown
        return gradient_UD / (grown.sqrt() + self.config.eps).unsqueeze(1)


class SparseAdam(SparseOptimizer):
    """Adam with its own step count for each row, so that a rare row's means are corrected too."""

    config: SparseAdamConfig

    def new_state(self, group: Tables) -> dict[str, Tensor]:
        """Two means for each number of a row, and how often the row was used."""
        weight = group.weight
        return {
            "mean": torch.zeros_like(weight),
            "square": torch.zeros_like(weight),
            "uses": torch.zeros(len(weight), device=weight.device),
        }

    def update(self, state: dict[str, Tensor], rows: Tensor, gradient_UD: Tensor) -> Tensor:
        """Advance both means of the used rows; give the corrected step."""
        beta1, beta2 = self.config.betas
        uses = state["uses"][rows] + 1
        state["uses"][rows] = uses
        mean = state["mean"][rows].lerp_(gradient_UD, 1 - beta1)
        state["mean"][rows] = mean
        square = state["square"][rows].lerp_(gradient_UD.square(), 1 - beta2)
        state["square"][rows] = square
        correction1 = (1 - torch.pow(beta1, uses)).unsqueeze(1)
        correction2 = (1 - torch.pow(beta2, uses)).unsqueeze(1)
        return (mean / correction1) / ((square / correction2).sqrt_() + self.config.eps)


def sparse_optimizer(groups: Sequence[Tables], config: Any) -> SparseOptimizer:
    """Build the optimizer that a config asks for."""
    kinds: dict[str, type[SparseOptimizer]] = {
        "rowwise_adagrad": RowwiseAdagrad,
        "adam": SparseAdam,
    }
    return kinds[config.kind](groups, config)
