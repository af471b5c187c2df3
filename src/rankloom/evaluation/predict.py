"""Score batches with a model, without gradients."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from rankloom.data.batch import Batch
from rankloom.losses import predictions
from rankloom.models import Model
from rankloom.ops.device import Precision, autocast_for


class Scorer:
    """A model in evaluation mode on a device.

    Args:
        model: Is moved to the device and switched to evaluation mode.
        device: Where to score.
        precision: Of matmuls.
    """

    def __init__(self, model: Model, *, device: torch.device, precision: Precision) -> None:
        self.model = model.to(device).train(False)
        self.device = device
        self._autocast: AbstractContextManager[Any] = autocast_for(precision, device)

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Predict every row.

        Returns:
            Task -> (B,) float64 on the CPU: a probability or a mean. Float64, so that logits which
            differ do not become equal probabilities near 0 or 1.
        """
        batch = batch.to(self.device)
        with self._autocast:
            output = self.model.network(self.model.embedder(batch).inputs)
        logits = {task: value.double() for task, value in output.logits.items()}
        return {task: value.cpu() for task, value in predictions(logits, self.model.schema).items()}
