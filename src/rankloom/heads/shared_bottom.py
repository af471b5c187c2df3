"""A shared bottom and a tower per task.

Paper: Caruana, "Multitask Learning", Machine Learning 28, 1997, doi:10.1023/A:1007379606734.
Layer: y_k = w_k tower_k(bottom(x)) + b_k for task k.
Differs from the paper: the bottom is empty by default, as the interaction is shared already.
Cost: P + Q + K * (S + U + 1) parameters; P + K * S multiply-adds per row.
Shapes: B rows, K tasks; P, Q the bottom's matrices and offsets, S, U a tower's.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt
from torch import Generator, Tensor, nn

from rankloom.config import Config
from rankloom.layers.linear import linear
from rankloom.layers.mlp import MLP, Activation, NormKind
from rankloom.layers.protocols import Inputs, Layout, Stack


class SharedBottomConfig(Config):
    """Hyper-parameters of `SharedBottom`."""

    kind: Literal["shared_bottom"] = "shared_bottom"
    """Name of the head."""
    shared_dims: tuple[PositiveInt, ...] = ()
    """Hidden widths of the network that all tasks share."""
    hidden_dims: tuple[PositiveInt, ...] = (64,)
    """Hidden widths of each task's tower; empty for one linear layer."""
    activation: Activation = "relu"
    """Activation after each hidden layer."""
    norm: NormKind = "none"
    """Norm before each activation; `batch` mixes rows while training."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping an element after each hidden layer, rounded to 1/256."""


class SharedBottom(nn.Module):
    """One logit per task from the last readout.

    Example:
        >>> SharedBottomConfig(hidden_dims=(32,)).shared_dims
        ()
    """

    Config: ClassVar[type[Config]] = SharedBottomConfig

    def __init__(self, config: SharedBottomConfig, layout: Layout, *, generator: Generator) -> None:
        super().__init__()
        self.config, self.in_dim, self.tasks = config, layout.out_dim, tuple(layout.tasks)
        self.bottom = _mlp(layout.out_dim, config.shared_dims, config, generator=generator)
        # A prefix, because a task may be called what a module dictionary calls its methods.
        self.towers = nn.ModuleDict()
        for task in self.tasks:
            tower = _mlp(self.bottom.out_dim, config.hidden_dims, config, generator=generator)
            logit = linear(tower.out_dim, 1, generator=generator)
            self.towers[f"task_{task}"] = nn.Sequential(tower, logit)

    def cost_letters(self) -> dict[str, int]:
        """Give tasks, and the sizes of bottom and tower that the header names."""
        per_width = 1 if self.config.norm == "none" else 3
        bottom = (self.in_dim, *self.config.shared_dims)
        tower = (bottom[-1], *self.config.hidden_dims)
        return {
            "K": len(self.tasks),
            "P": _products(bottom),
            "Q": per_width * sum(bottom[1:]),
            "S": _products((*tower, 1)),
            "U": per_width * sum(tower[1:]),
        }

    def forward(self, stack: Stack, inputs: Inputs) -> dict[str, Tensor]:
        """Give task -> (B,) logits."""
        del inputs
        x = self.bottom(stack.readout())
        return {task: self.towers[f"task_{task}"](x)[:, 0] for task in self.tasks}


def _mlp(
    in_dim: int, hidden_dims: Sequence[int], config: SharedBottomConfig, *, generator: Generator
) -> MLP:
    return MLP(
        in_dim,
        hidden_dims,
        activation=config.activation,
        norm=config.norm,
        dropout=config.dropout,
        generator=generator,
    )


def _products(widths: Sequence[int]) -> int:
    return sum(a * b for a, b in pairwise(widths))
