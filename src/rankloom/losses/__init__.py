"""From logits to losses and predictions; the link of each task lives here."""

from rankloom.losses.loss import Loss, LossValues
from rankloom.losses.tasks import predictions, row_losses

__all__ = ["Loss", "LossValues", "predictions", "row_losses"]
