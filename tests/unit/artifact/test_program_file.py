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


@pytest.mark.parametrize("name", ["din", "transformer", "rankmixer"])
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


def makes(name: str, op: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Give a program whose second node makes something."""
    nodes = [{"name": "x", "op": "input"}]
    nodes += [{"name": name, "op": op, "args": list(args), "kwargs": kwargs}]  # type: ignore[dict-item]
    return {"nodes": nodes, "results": [{"node": name}]}


X = {"node": "x"}
HUGE = 2**40


@pytest.mark.parametrize(
    "changes",
    [
        makes("y", "aten.new_zeros.default", X, [HUGE]),
        makes("y", "aten.new_ones.default", X, [2**20, 2**20]),
        makes("y", "aten.new_full.default", X, [2**14, -1, 2**15], 1.0),
        makes("y", "aten.zeros.default", [HUGE]),
        makes("y", "aten.ones.default", size=[HUGE]),
        makes("y", "aten.full.default", [2**15, 2**15], 0.5),
        makes("y", "aten.expand.default", X, [HUGE, -1]),
        makes("y", "aten.expand.default", X, size=[2**10] * 3),
        makes("y", "aten.reshape.default", X, [-HUGE]),
        makes("y", "aten.conv1d.default", X, X, None, [1], [HUGE]),
    ],
)
def test_absurd_sizes_are_refused_when_a_program_is_read(changes: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match=r"node 'y' .* too large"):
        from_json(hostile(**changes), {})
    assert from_json(hostile(**makes("y", "aten.new_zeros.default", X, [2**14, 2**14])), {})


def test_the_end_of_a_slice_is_no_size() -> None:
    program = from_json(hostile(**makes("y", "aten.slice.Tensor", X, 0, 1, 2**63 - 1)), {})
    (result,) = program({"features/item": torch.arange(3)})
    assert_close(result, torch.tensor([1, 2]))


def test_nothing_in_a_file_becomes_code(capsys: pytest.CaptureFixture[str]) -> None:
    """A graph is written as Python code before it runs, its keywords and names as they are."""
    code = "memory_format=print('here'), implicit"
    with pytest.raises(ArtifactError, match="has other arguments than aten"):
        from_json(hostile(**makes("y", "aten.relu.default", X, **{code: True})), {})
    names = ("self", "class", "None", "torch", "device", "print", "node_0")
    for name in names:
        (one,) = makes(name, "aten.neg.default", X)["nodes"][1:]
        two = {"name": "z", "op": "aten.neg.default", "args": [{"node": name}]}
        nodes = [{"name": "x", "op": "input"}, one, two]
        program = from_json(hostile(nodes=nodes, results=[{"node": "z"}]), {})
        assert_close(program({"features/item": torch.ones(1)})[0], torch.ones(1))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "changes",
    [
        makes("y", "aten.relu.default", X, X),
        makes("y", "aten.relu.default", X, self=X),
        makes("y", "getitem", [1, 2], 0),
        makes("y", "getitem", X, "a"),
        makes("y", "mul", "a", 2**40),
        makes("y", "mul", [0], 2**40),
        makes("y", "mul", X, 2),
        makes("y", "mul", 2, b=3),
        makes("y", "rankloom.dequantize.default", X, X),
        {"results": [7]},
    ],
)
def test_arguments_that_an_operation_has_not_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match=r"^program: "):
        from_json(hostile(**changes), {})


def test_a_product_of_sizes_stays_small() -> None:
    """Python's numbers have no end: squared forty times, one would fill the memory."""
    nodes: list[Any] = [{"name": "x", "op": "input"}]
    nodes += [{"name": "s0", "op": "aten.sym_size.int", "args": [X, 0]}]
    for number in range(4):
        factor = {"node": f"s{number}"}
        nodes.append({"name": f"s{number + 1}", "op": "mul", "args": [factor, factor]})
    made = {"name": "y", "op": "aten.new_zeros.default", "args": [X, [{"node": "s2"}]]}
    program = from_json(hostile(nodes=[*nodes[:4], made], results=[{"node": "y"}]), {})
    assert len(program({"features/item": torch.ones(3)})[0]) == 81
    with pytest.raises(ArtifactError, match="node 's4' multiplies too many sizes"):
        from_json(hostile(nodes=[*nodes, made], results=[{"node": "y"}]), {})


def test_two_nodes_may_name_one_constant() -> None:
    constants = {"v": torch.tensor([1.0]), "w": torch.tensor([10.0])}
    targets = {"a": "v", "b": "v", "c": "w"}
    nodes: list[Any] = [{"name": n, "op": "constant", "target": t} for n, t in targets.items()]
    results = [{"node": name} for name in targets]
    program = from_json(hostile(inputs=[], nodes=nodes, results=results), constants)
    assert [float(one) for one in program({})] == [1.0, 1.0, 10.0]


def test_only_an_int8_weight_and_its_scale_are_dequantized() -> None:
    good = {"v": torch.ones(2, 3, dtype=torch.int8), "s": torch.full((2, 1), 0.5)}
    nodes: list[Any] = [{"name": n, "op": "constant", "target": n} for n in good]
    args = [{"node": "v"}, {"node": "s"}]
    nodes.append({"name": "y", "op": "rankloom.dequantize.default", "args": args})
    text = hostile(inputs=[], nodes=nodes, results=[{"node": "y"}])
    assert_close(from_json(text, good)({})[0], torch.full((2, 3), 0.5))
    for changes in (
        {"v": torch.ones(2, 3)},
        {"s": torch.ones(2)},
        {"s": torch.ones(3, 1)},
        {"s": torch.ones(2, 1).double()},
    ):
        with pytest.raises(ArtifactError, match="node 'y' has no int8 weight"):
            from_json(text, {**good, **changes})
