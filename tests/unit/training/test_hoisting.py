from __future__ import annotations

import pytest

from rankloom.contract import Subject
from rankloom.errors import HoistError
from rankloom.hoist import HoistedNetwork
from rankloom.models import Model
from rankloom.training.hoisting import network_to_train


def model(norm: str = "none") -> Model:
    values = {"hidden_dims": (24, 16), "norm": norm}
    return Subject.in_slot("interaction", "mlp", values).build().train()


@pytest.mark.parametrize(
    ("hoist", "is_grouped", "is_hoisted"),
    [
        (None, True, True),
        (None, False, False),
        (True, False, True),
        (False, True, False),
    ],
)
def test_grouped_logs_are_hoisted_unless_told_otherwise(
    hoist: bool | None, is_grouped: bool, is_hoisted: bool
) -> None:
    plain = model()
    network = network_to_train(plain, hoist=hoist, is_grouped=is_grouped)
    assert isinstance(network, HoistedNetwork) == is_hoisted
    assert is_hoisted or network is plain.network


def test_batch_norm_cannot_be_hoisted_and_says_so() -> None:
    with pytest.raises(HoistError, match="BatchNorm"):
        network_to_train(model("batch"), hoist=True, is_grouped=True)


def test_by_default_such_a_network_trains_plain(caplog: pytest.LogCaptureFixture) -> None:
    plain = model("batch")
    assert network_to_train(plain, hoist=None, is_grouped=True) is plain.network
    assert "training row by row" in caplog.text
