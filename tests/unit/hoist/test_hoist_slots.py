"""Networks whose own code puts a request's candidates side by side."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.unit.hoist.tiny import INDEX, Tiny, hoisted_equals_plain
from torch import Tensor

from rankloom.data.batch import make_slots
from rankloom.errors import HoistError
from rankloom.hoist import hoist
from rankloom.layers.protocols import Inputs, Output
from rankloom.ops import expand, from_slots, softmax_fp32, to_slots
from rankloom.schema import Rate

Between = Callable[[Tensor], Tensor]


class SetWise(Tiny):
    """Takes (B, 4) candidates and (R, 4) users to their requests' places and back.

    Args:
        between: (R, N, 8) -> (R, N, ...).
    """

    def __init__(self, between: Between) -> None:
        super().__init__(lambda: None, {"c": (4,), "u": (4,)})  # type: ignore[arg-type, return-value]
        self.between = between

    def forward(self, inputs: Inputs) -> Output:
        user = expand(inputs.features["u"], inputs.request_index)
        assert inputs.slots is not None
        assert inputs.slot_of_row is not None
        placed = to_slots(torch.cat((inputs.features["c"], user), dim=1), inputs.slots)
        return Output({"t": from_slots(self.between(placed), inputs.slot_of_row)}, {})

    def inputs(self, index: tuple[int, ...] = INDEX, seed: int = 0) -> Inputs:
        inputs = super().inputs(index, seed)
        slots, slot_of_row = make_slots(inputs.request_index, index[-1] + 1)
        return inputs._replace(slots=slots, slot_of_row=slot_of_row)


def attend(x: Tensor) -> Tensor:
    """Attend to the request's places, as a mask tells the empty ones."""
    logits = torch.einsum("rnd,rmd->rnm", x, x)
    is_empty = (x == 0).all(dim=2)[:, None]
    return torch.bmm(softmax_fp32(logits.masked_fill(is_empty, -1e9)), x)


BODIES: dict[str, Between] = {
    "mean over places": lambda x: x - x.sum(dim=1, keepdim=True),
    "attention": attend,
    "heads as queries": lambda x: x.unflatten(2, (2, 4)).flatten(1, 2).unflatten(1, (-1, 2)),
}


@pytest.mark.parametrize("name", BODIES)
def test_candidates_of_a_request_may_be_mixed(name: str) -> None:
    hoisted = hoisted_equals_plain(SetWise(BODIES[name]))
    assert Rate.CANDIDATE in hoisted.programs.by_rate


@pytest.mark.parametrize("mix", [lambda x: x - x.mean(dim=0), lambda x: x.flip(0)])
def test_requests_may_not_be_mixed(mix: Between) -> None:
    network = SetWise(mix)
    with pytest.raises(HoistError, match="runs along rows"):
        hoist(network, network.inputs())


def test_places_are_read_by_their_operations_alone() -> None:
    class Reads(SetWise):
        def forward(self, inputs: Inputs) -> Output:
            assert inputs.slot_of_row is not None
            return Output({"t": inputs.features["c"][:, 0] + inputs.slot_of_row}, {})

    network = Reads(lambda x: x)
    with pytest.raises(HoistError, match="reads request_index or slots"):
        hoist(network, network.inputs())


def test_rows_are_placed_by_the_requests_own_slots() -> None:
    class Elsewhere(SetWise):
        def forward(self, inputs: Inputs) -> Output:
            assert inputs.slot_of_row is not None
            placed = to_slots(inputs.features["c"], torch.zeros(3, 3, dtype=torch.int64))
            return Output({"t": from_slots(placed, inputs.slot_of_row)}, {})

    network = Elsewhere(lambda x: x)
    with pytest.raises(HoistError, match="by other places than slots"):
        hoist(network, network.inputs())
