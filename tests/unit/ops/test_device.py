from __future__ import annotations

import contextlib
import itertools
import time
from typing import Any, Literal

import pytest
import torch

from rankloom.errors import ConfigError
from rankloom.ops.device import (
    autocast_for,
    choose_device,
    choose_precision,
    has_bf16_units,
    matmul_rate,
)

CPU = torch.device("cpu")


def with_units(monkeypatch: pytest.MonkeyPatch, **capabilities: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"amx_bf16": True}, True),
        ({"avx512_bf16": True}, True),
        ({"avx2": True, "avx512_f": True, "amx_bf16": False}, False),
        ({}, False),
    ],
)
def test_knows_which_cpus_have_bf16_units(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: bool
) -> None:
    with_units(monkeypatch, **capabilities)
    assert has_bf16_units(CPU) is expected


@pytest.mark.parametrize(
    ("wanted", "units", "chosen"),
    [
        ("auto", True, "bf16"),
        ("auto", False, "fp32"),
        ("fp32", True, "fp32"),
        ("fp32", False, "fp32"),
        ("bf16", True, "bf16"),
    ],
)
def test_chooses_bf16_where_it_has_units(
    monkeypatch: pytest.MonkeyPatch, wanted: Any, units: bool, chosen: str
) -> None:
    with_units(monkeypatch, amx_bf16=units)
    assert choose_precision(wanted, CPU) == chosen


def test_refuses_bf16_where_it_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    with_units(monkeypatch)
    with pytest.raises(ConfigError, match=r"^training\.precision: this cpu has no bf16 units"):
        choose_precision("bf16", CPU)


@pytest.mark.parametrize(
    ("wanted", "has_cuda", "chosen"),
    [("auto", False, "cpu"), ("auto", True, "cuda"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_chooses_a_device_that_is_there(
    monkeypatch: pytest.MonkeyPatch,
    wanted: Literal["auto", "cpu", "cuda"],
    has_cuda: bool,
    chosen: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    assert choose_device(wanted) == torch.device(chosen)


def test_refuses_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"^training\.device: this machine has no CUDA device"):
        choose_device("cuda")


def test_fp32_runs_without_autocast() -> None:
    assert isinstance(autocast_for("fp32", CPU), contextlib.nullcontext)
    with autocast_for("bf16", CPU):
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") is torch.bfloat16


def test_a_context_may_be_entered_again() -> None:
    context = autocast_for("bf16", CPU)
    for _ in range(2):
        with context:
            assert torch.is_autocast_enabled("cpu")
        assert not torch.is_autocast_enabled("cpu")


def test_the_rate_is_that_of_the_best_product(monkeypatch: pytest.MonkeyPatch) -> None:
    # The clock: begin; then for each product a look at the limit, a start and an end.
    ticks = iter([0.0, 0.1, 1.0, 1.5, 0.2, 2.0, 2.25, 0.3, 3.0, 4.0, 9.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(torch, "mm", lambda *_, out: out)
    assert matmul_rate("fp32", CPU, seconds=5.0) == 2 * 1024**3 / 0.25
    assert next(ticks, None) is None


def test_one_product_is_made_however_short_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", itertools.count(0.0, 10.0).__next__)
    monkeypatch.setattr(torch, "mm", lambda *_, out: out)
    assert matmul_rate("fp32", CPU, seconds=0.001) == 2 * 1024**3 / 10.0
