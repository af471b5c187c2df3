from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.unit.hoist.tiny import Tiny
from torch import Tensor

from rankloom.errors import HoistError
from rankloom.hoist import hoist
from rankloom.hoist.rules import RULES
from rankloom.hoist.rules.pointwise import pointwise
from rankloom.hoist.verify import check_border, check_equal, largest_error

ROLL = torch.ops.aten.roll.default


def body(u: Tensor, c: Tensor, w: dict[str, Tensor]) -> Tensor:
    return F.linear(torch.cat([u.relu(), c], dim=1), w["w"])


def test_equal_programs_pass_and_their_error_is_given() -> None:
    network = Tiny(body, {"u": (8,), "c": (4,)}, {"w": (3, 12)})
    hoisted = hoist(network, network.inputs())
    batches = [network.inputs(seed=seed) for seed in range(3)]
    error = check_equal(network, hoisted, batches, tolerance=1e-12)
    assert error == largest_error(network, hoisted, batches)


def test_other_weights_are_caught() -> None:
    network = Tiny(body, {"u": (8,), "c": (4,)}, {"w": (3, 12)})
    hoisted = hoist(network, network.inputs())
    with torch.no_grad():
        network.w["w"][1, 2] += 1e-6  # folded constants still hold the old value
    with pytest.raises(HoistError, match=r"error of [\d.e-]+, allowed are 1e-10"):
        check_equal(network, hoisted, [network.inputs()], tolerance=1e-10)


def test_nan_is_caught() -> None:
    network = Tiny(body, {"u": (8,), "c": (4,)}, {"w": (3, 12)})
    hoisted = hoist(network, network.inputs())
    inputs = network.inputs()
    inputs.features["c"][0] = float("nan")
    with pytest.raises(HoistError, match="nan"):
        check_equal(network, hoisted, [inputs], tolerance=1.0)


def test_an_operation_that_lies_about_its_rows_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rolled requests are not rolled rows."""
    monkeypatch.setitem(RULES, ROLL, pointwise)
    network = Tiny(lambda u, c: u.roll(1, 0) * c, {"u": (8,), "c": (8,)})
    hoisted = hoist(network, network.inputs())
    with pytest.raises(HoistError, match="do not give the plain network's scores"):
        check_equal(network, hoisted, [network.inputs()], tolerance=1e-6)


def test_the_border_names_what_is_held() -> None:
    network = Tiny(body, {"u": (8,), "c": (4,)}, {"w": (3, 12)})
    hoisted = hoist(network, network.inputs())
    assert check_border(network, hoisted, network.inputs()) == ["relu"]


def test_a_candidate_in_a_held_value_is_caught() -> None:
    """A rule that gives a mixed value a user's rate is what the check is for."""
    network = Tiny(lambda u, c: (u + c) * c, {"u": (8,), "c": (8,)})
    hoisted = hoist(network, network.inputs())
    assert check_border(network, hoisted, network.inputs()) == ["expand"]
    hoisted.border.append("add")
    with pytest.raises(HoistError, match=r"depend on candidates\. Got add"):
        check_border(network, hoisted, network.inputs())
