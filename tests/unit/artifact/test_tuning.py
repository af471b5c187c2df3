"""What an artifact leaves to the machine: ways that agree, and the choice between them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn
from torch.testing import assert_close

from rankloom.api import TrainResult, export
from rankloom.artifact import tuning
from rankloom.artifact.int8_products import (
    PackedProduct,
    has_packed_products,
    with_packed_products,
)
from rankloom.artifact.quantize import dequantized, quantize_weights
from rankloom.artifact.ranker import load
from rankloom.artifact.verify import verify
from rankloom.hoist import Program
from rankloom.hoist.call import aten
from rankloom.ops.int8 import quantize

CPU = torch.device("cpu")
needs_kernels = pytest.mark.skipif(
    not has_packed_products(CPU), reason="torch has no fp16 kernels for this processor"
)


def program_of(constants: dict[str, Tensor], width: int) -> Program:
    """Three products, one of each kind: a linear layer, then two per-token ones."""
    holder, graph = nn.Module(), fx.Graph()
    for name, value in constants.items():
        holder.register_buffer(name, value)
    x = graph.placeholder("x")
    at = {name: graph.get_attr(name) for name in constants}
    flat = graph.call_function(aten.linear.default, (x, at["first"], at["bias"]))
    tokens = graph.call_function(aten.reshape.default, (flat, [-1, 3, width]))
    turned = graph.call_function(aten.permute.default, (tokens, [1, 0, 2]))
    second = graph.call_function(aten.baddbmm.default, (at["shift"], turned, at["second"]))
    third = graph.call_function(aten.bmm.default, (second, at["third"]))
    graph.output((third,))
    return Program(fx.GraphModule(holder, graph), ["x"], ["y"])


@pytest.fixture
def quantized() -> Program:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) / 8

    constants = {
        "first": draw(3 * 48, 40),
        "bias": draw(3 * 48),
        "second": draw(3, 48, 64),
        "shift": draw(3, 1, 64),
        "third": draw(3, 64, 32),
    }
    program, made = quantize_weights(program_of(constants, 48))
    assert {name.partition("__")[0] for name in made} == {"first", "second", "third"}
    return program


@needs_kernels
@pytest.mark.parametrize("num_rows", [1, 4, 17])
def test_packed_products_are_those_of_dequantized_weights(
    quantized: Program, num_rows: int
) -> None:
    x = torch.randn(num_rows, 40, generator=torch.Generator().manual_seed(1))
    packed = with_packed_products(quantized)
    assert sum(isinstance(one, PackedProduct) for one in packed.module.modules()) == 3
    (expected,) = dequantized(quantized)({"x": x})
    (found,) = packed({"x": x})
    # The same whole numbers, added in another order: far below the error of rounding to int8.
    assert_close(found, expected, rtol=1e-5, atol=1e-5)
    (by_node,) = quantized({"x": x})
    assert_close(by_node, expected)


@needs_kernels
def test_all_int8_values_are_exact_in_fp16() -> None:
    values = torch.arange(-127, 128, dtype=torch.int8).reshape(1, 1, -1)
    product = PackedProduct(values, torch.full((1, 1, 1), 0.5))
    ones = torch.eye(255)
    assert_close(product(ones)[:, 0], values[0, 0] * 0.5, rtol=0, atol=0)


@needs_kernels
def test_a_weight_whose_scale_runs_along_its_outputs_is_not_packed() -> None:
    weight = torch.randn(16, 8, generator=torch.Generator().manual_seed(2))
    program, _ = quantize_weights(program_with(weight))
    assert not any(
        isinstance(m, PackedProduct) for m in with_packed_products(program).module.modules()
    )
    x = torch.randn(2, 8, generator=torch.Generator().manual_seed(3))
    assert_close(with_packed_products(program)({"x": x}), dequantized(program)({"x": x}))


def program_with(weight: Tensor) -> Program:
    """A linear layer whose weight was rounded along the wrong dimension."""
    values, scale = quantize(weight, dim=0)
    holder, graph = nn.Module(), fx.Graph()
    holder.register_buffer("values", values)
    holder.register_buffer("scale", scale)
    x, factors = graph.placeholder("x"), (graph.get_attr("values"), graph.get_attr("scale"))
    made = graph.call_function(torch.ops.rankloom.dequantize.default, factors)
    graph.output((graph.call_function(aten.linear.default, (x, made)),))
    return Program(fx.GraphModule(holder, graph), ["x"], ["y"])


def test_the_fastest_way_is_chosen() -> None:
    runs = {"slow": lambda: time.sleep(0.004), "fast": lambda: time.sleep(0.0005)}
    choice = tuning._choose("user", runs, CPU)
    assert choice.chosen == "fast"
    assert choice.seconds["slow"] > 2 * choice.seconds["fast"] > 0
    assert "user program: fast (slow 4" in str(choice)
    assert tuning._choose("user", {"only": lambda: None}, CPU).seconds == {}


def test_a_candidate_program_in_bf16_stays_within_the_stated_tolerance(
    trained: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = export(trained, tmp_path / "artifact", quantize=["candidate"]).folder
    if not tuning.has_bf16_units(CPU):
        assert load(folder).choices == ()
    # As on a machine with units for it, where it is the faster way.
    monkeypatch.setattr(tuning, "has_bf16_units", lambda _: True)
    monkeypatch.setattr(tuning, "_choose", lambda name, *_: tuning.Choice(name, "bf16", {}))
    found = verify(folder)
    assert [choice.chosen for choice in found.choices] == ["bf16"]
    assert 1e-5 < max(found.largest_error.values()) <= found.tolerance < 0.1
