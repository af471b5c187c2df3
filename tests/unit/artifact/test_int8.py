from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit.artifact.tampering import WEIGHTS, Copy
from torch.testing import assert_close

from rankloom.api import TrainResult, export
from rankloom.artifact.export import Exported
from rankloom.artifact.ranker import load
from rankloom.embedding import FusedTables
from rankloom.embedding.int8_tables import Int8Tables, quantize_rows
from rankloom.ops.int8 import dequantize, quantize
from rankloom.tensor_files import read_tensors

PARTS = ("tables", "user")


def test_rounding_is_off_by_half_a_scale_at_most(generator: torch.Generator) -> None:
    x = torch.randn(7, 50, generator=generator) * torch.logspace(-6, 6, 7).unsqueeze(1)
    values, scale = quantize(x, 1)
    assert (values.dtype, scale.shape) == (torch.int8, (7, 1))
    # One more ulp for each of the two roundings in float32.
    assert bool(((values * scale - x).abs() <= scale * 0.5001).all())
    assert values.abs().amax(1).tolist() == [127] * 7


def test_rounding_by_hand() -> None:
    values, scale = quantize(torch.tensor([[0.0, 2.54, -1.27, 0.03], [0.0, 0.0, 0.0, 0.0]]), 1)
    assert values.tolist() == [[0, 127, -64, 2], [0, 0, 0, 0]]
    assert_close(scale, torch.tensor([[0.02], [1.0]]))
    assert_close(dequantize(values, scale)[0], torch.tensor([0.0, 2.54, -1.28, 0.04]))


def test_a_scale_may_be_shared_along_any_dimension() -> None:
    values, scale = quantize(torch.tensor([[1.0, 10.0], [0.5, -20.0]]), 0)
    assert values.tolist() == [[127, 64], [64, -127]]
    assert_close(scale, torch.tensor([[1 / 127, 20 / 127]]))


def test_int8_tables_give_the_rows_of_dequantized_ones(generator: torch.Generator) -> None:
    tables = FusedTables({"user": 5, "item": 9}, 6, init_std={}, generator=generator)
    values, scale = quantize_rows(tables.weight)
    plain = FusedTables({"user": 5, "item": 9}, 6, init_std={}, generator=generator)
    plain.weight = values * scale.unsqueeze(1)
    ids = {"a": torch.tensor([0, 8, 8]), "b": torch.tensor([4])}
    names = {"a": "item", "b": "user"}
    found = Int8Tables(tables, values, scale).look_up(ids, names)
    expected = plain.look_up(ids, names)
    assert torch.equal(found.rows, expected.rows)
    assert_close(found.vectors.detach(), expected.vectors.detach(), rtol=0, atol=0)


@pytest.fixture(scope="module")
def quantized(trained: TrainResult, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(trained, tmp_path_factory.mktemp("int8") / "artifact", quantize=PARTS)


def test_export_reports_the_error_of_each_part(quantized: Exported) -> None:
    about = quantized.quantized
    assert about.parts == PARTS
    assert all(0 < about.largest_error[part] < 1e-2 for part in PARTS)
    assert max(quantized.verification.largest_error.values()) <= quantized.verification.tolerance
    tensors = read_tensors(quantized.folder / WEIGHTS)
    narrow = [one for name, one in tensors.items() if name.startswith("table/")]
    weights = [one for name, one in tensors.items() if name.endswith("__int8")]
    scales = [one for name, one in tensors.items() if name.startswith("scale/")]
    scales += [one for name, one in tensors.items() if name.endswith("__scale")]
    assert len(weights) == 2
    assert {one.dtype for one in (*narrow, *weights)} == {torch.int8}
    saved = sum(3 * one.numel() for one in (*narrow, *weights))
    assert about.saved_bytes == saved - sum(4 * one.numel() for one in scales)
    assert not [name for name in tensors if name + "__int8" in tensors]


def test_a_written_program_dequantizes_its_weights(quantized: Exported) -> None:
    programs = quantized.folder / "programs"
    ops = {
        name: [one["op"] for one in json.loads((programs / f"{name}.json").read_text())["nodes"]]
        for name in ("user", "candidate")
    }
    assert ops["user"].count("rankloom.dequantize.default") == 2
    assert "rankloom.dequantize.default" not in ops["candidate"]


def test_scores_stay_within_the_stated_tolerance(quantized: Exported, written: Path) -> None:
    ranker, plain = load(quantized.folder), load(written)
    largest = 0.0
    for one in json.loads((written / "golden.json").read_text())["requests"]:
        raw = one["user"], one["candidates"], one["context"]
        found, expected = ranker.score(*raw), plain.score(*raw)
        for task, scores in expected.items():
            largest = max(largest, float(np.abs(found[task] - scores).max()))
    assert 0 < largest <= ranker.manifest.tolerance


@pytest.mark.parametrize("part", ["scale/item", "table/item", "__scale", "__int8"])
def test_a_changed_scale_or_weight_is_found(quantized: Exported, tmp_path: Path, part: str) -> None:
    copy = Copy(quantized.folder, tmp_path / "copy")

    def change(tensors: dict[str, torch.Tensor]) -> None:
        (name, *_) = [name for name in tensors if name.endswith(part)]
        tensors[name] = tensors[name] * 9 if "scale" in part else tensors[name] // 2

    message = copy.change_tensors(WEIGHTS, change).refused()
    level = "user/" if part.startswith("__") else "inputs/"
    assert f"golden request 0: {level}" in message, message


@pytest.mark.parametrize("form", ["short", "wide", "double", "gone"])
def test_scales_that_do_not_fit_are_refused(quantized: Exported, tmp_path: Path, form: str) -> None:
    copy = Copy(quantized.folder, tmp_path / "copy")

    def change(tensors: dict[str, torch.Tensor]) -> None:
        scale = tensors.pop("scale/item")
        if form != "gone":
            other = {"short": scale[1:], "wide": scale.unsqueeze(1), "double": scale.double()}
            tensors["scale/item"] = other[form]

    message = copy.change_tensors(WEIGHTS, change).refused()
    assert "table 'item' must have one float32 scale for each row. Got " in message
