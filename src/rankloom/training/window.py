"""What is summed between two records of the log."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rankloom.losses import LossValues
from rankloom.training.step import StepResult


@dataclass
class Window:
    """Sums over steps; tensors, so that no step waits for the device."""

    losses: LossValues | None = None
    """Sums of the losses."""
    grad_norm: Tensor | None = None
    """Of the last step."""
    steps: int = 0
    """Steps added."""
    rows: int = 0
    """Rows of the steps made since `began`."""
    began: float = field(default_factory=time.perf_counter)
    """When the clock was started."""

    def add(self, result: StepResult, num_rows: int) -> None:
        """Add a step."""
        losses = result.losses
        if self.losses is not None:
            losses = LossValues(
                self.losses.total + losses.total,
                {name: self.losses.tasks[name] + value for name, value in losses.tasks.items()},
                {n: self.losses.auxiliary[n] + value for n, value in losses.auxiliary.items()},
            )
        self.losses, self.grad_norm = losses, result.grad_norm
        self.steps += 1
        self.rows += num_rows

    def mean_losses(self) -> tuple[dict[str, float], dict[str, float]]:
        """Give the means of task losses and auxiliary terms; at least one step was added."""
        assert self.losses is not None
        tasks, auxiliary = self.losses.tasks, self.losses.auxiliary
        return (
            {name: float(value) / self.steps for name, value in tasks.items()},
            {name: float(value) / self.steps for name, value in auxiliary.items()},
        )

    def restart_clock(self) -> None:
        """Leave out of the speed what was done so far."""
        self.rows, self.began = 0, time.perf_counter()

    def to_dict(self) -> dict[str, Any]:
        """Give plain values from which `from_dict` goes on bit for bit; empty without a step."""
        if self.losses is None:
            return {}
        return {
            "steps": self.steps,
            "total": float(self.losses.total),
            "tasks": {name: float(value) for name, value in self.losses.tasks.items()},
            "auxiliary": {name: float(value) for name, value in self.losses.auxiliary.items()},
            "grad_norm": None if self.grad_norm is None else float(self.grad_norm),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], device: torch.device) -> Window:
        """Go on with what `to_dict` gave; its speed counts from now on."""
        if not values:
            return cls()

        def tensors(found: Mapping[str, float]) -> dict[str, Tensor]:
            return {name: torch.tensor(value, device=device) for name, value in found.items()}

        norm = values["grad_norm"]
        return cls(
            LossValues(
                torch.tensor(values["total"], device=device),
                tensors(values["tasks"]),
                tensors(values["auxiliary"]),
            ),
            None if norm is None else torch.tensor(norm, device=device),
            steps=values["steps"],
        )
