"""Which form of the network a training runs: plain, or computed once for each request."""

from __future__ import annotations

import logging

from torch import nn

from rankloom.errors import HoistError
from rankloom.hoist import HoistedNetwork
from rankloom.models import Model
from rankloom.models.example import example_batch

logger = logging.getLogger(__name__)


def network_to_train(model: Model, *, hoist: bool | None, is_grouped: bool) -> nn.Module:
    """Give the network in the form that its steps run.

    Args:
        model: On its device, in training mode.
        hoist: As the run file says; None hoists grouped logs where the network can be hoisted.
        is_grouped: Whether the log is grouped by request.

    Raises:
        HoistError: `hoist` is true and the network cannot be hoisted.
    """
    if hoist is False or (hoist is None and not is_grouped):
        return model.network
    device = next(model.network.parameters()).device
    try:
        return HoistedNetwork(model.network, model.embedder(example_batch(model).to(device)).inputs)
    except HoistError as error:
        if hoist:
            raise
        logger.warning("training row by row, not hoisted: %s", error)
        return model.network
