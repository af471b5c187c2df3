from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from rankloom.artifact.program_file import from_json, to_json
from rankloom.contract import Subject
from rankloom.errors import ArtifactError
from rankloom.hoist import Program, hoist
from rankloom.hoist.capture import inputs_by_path
from rankloom.models.example import example_batch
from rankloom.schema import Rate


def written(name: str) -> tuple[dict[Rate, Program], dict[Rate, str], Any]:
    model = Subject.of(name).build().train(False)
    inputs = model.embedder(example_batch(model)).inputs
    programs = dict(hoist(model.network, inputs).programs.by_rate)
    return programs, {rate: to_json(program) for rate, program in programs.items()}, inputs


@pytest.mark.parametrize("name", ["din", "rankmixer"])
def test_a_program_read_back_gives_the_same_numbers(name: str) -> None:
    programs, texts, inputs = written(name)
    values = dict(inputs_by_path(inputs))
    with torch.no_grad():
        for rate, program in programs.items():
            again = from_json(texts[rate], dict(program.module.named_buffers()))
            expected = program(values)
            assert_close(again(values), expected, rtol=0, atol=0)
            assert (again.inputs, again.outputs) == (program.inputs, program.outputs)
            assert to_json(again).count('"op"') == texts[rate].count('"op"')
            values.update(zip(program.outputs, expected, strict=False))


def hostile(**changes: Any) -> str:
    content: dict[str, Any] = {
        "format_version": 1,
        "inputs": ["features/item"],
        "outputs": [],
        "nodes": [
            {"name": "x", "op": "input"},
            {"name": "w", "op": "constant", "target": "w"},
            {"name": "y", "op": "aten.linear.default", "args": [{"node": "x"}, {"node": "w"}]},
        ],
        "results": [{"node": "y"}],
    }
    return json.dumps({**content, **changes})


def node(**entry: Any) -> dict[str, Any]:
    return {"nodes": [{"name": "x", "op": "input"}, {"name": "y", **entry}]}


def test_the_small_program_itself_is_sound() -> None:
    program = from_json(hostile(), {"w": torch.ones(2, 3)})
    (result,) = program({"features/item": torch.ones(4, 3)})
    assert_close(result, torch.full((4, 2), 3.0))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"format_version": 2}, "must have format_version 1. Got '2'"),
        (node(op="builtins.eval", args=["1"]), "unknown operation. Got 'builtins.eval'"),
        (node(op="aten.set_.source_Tensor", args=[]), "unknown operation"),
        (node(op="call_method", args=[]), "unknown operation"),
        (node(op=["aten"], args=[]), "unknown operation"),
        (node(op="aten.relu.default", args=[{"node": "y"}]), "uses a node before it is made"),
        (node(op="aten.relu.default", args=[{"node": "z"}]), "uses a node before it is made"),
        (node(op="aten.relu.default", args=[{"code": "B * 2"}]), "argument of unknown form"),
        (node(op="aten.reshape.default", args=[{"node": "x"}, [10**30]]), "too large"),
        (node(op="constant", target="../weights"), "constant that there is not"),
        (node(op="input"), "names 1 inputs. Got '2 input nodes'"),
        ({"nodes": [{"name": "x y", "op": "input"}]}, "without a proper name"),
        ({"nodes": [{"name": "x", "op": "input"}] * 2}, "names node 'x' twice"),
        ({"nodes": "x"}, "needs a list of nodes"),
        ({"results": []}, "has no results"),
        ({"results": [{"node": "nowhere"}]}, "uses a node before it is made"),
    ],
)
def test_hostile_programs_are_refused(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        from_json(hostile(**changes), {"w": torch.ones(2, 3)}, where="candidate.json")
    assert what in str(caught.value)
    assert str(caught.value).startswith("candidate.json: ")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"nodes": NaN}', "null"])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError):
        from_json(text, {})
