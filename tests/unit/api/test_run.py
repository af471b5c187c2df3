from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from rankloom.api.run import load_run, run_json_schema
from rankloom.errors import ConfigError
from rankloom.heads import HEADS
from rankloom.interaction import INTERACTIONS
from rankloom.sequence import SEQUENCES
from rankloom.tokenization import TOKENIZATIONS

GOOD = (files("rankloom.cli") / "quickstart.yaml").read_text(encoding="utf-8")


def good() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(GOOD)
    return values


def problems_of(values: dict[str, Any], overrides: Any = ()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_run(values, overrides)
    return [line.strip() for line in str(caught.value).splitlines()]


TEN = {
    "data.trian": ("x", "Did you mean 'train'?"),
    "schema.user_id.vocabulry": ({}, "Did you mean 'vocabulary'?"),
    "schema.age.encode.num_buckets": (1, "must be at least 2. Got 1."),
    "roles.usr": ("user_id", "Did you mean 'user'?"),
    "tasks.love.given": ("liek", "no task is named 'liek'. Did you mean 'like'?"),
    "model.interaction.num_layer": (2, "Did you mean 'num_layers'?"),
    "model.tokenization.groups.film": (["itme_id"], "Did you mean 'item_id'?"),
    "training.epochs": ("5", "must be a whole number. Got '5'."),
    "training.schedule.kind": ("cosin", "Did you mean 'cosine'?"),
    "evaluations": ({}, "Did you mean 'evaluation'?"),
}


def test_ten_mistakes_are_all_reported() -> None:
    first, *lines = problems_of(good(), {path: value for path, (value, _) in TEN.items()})
    assert first == "run has 10 mistakes:"
    found = {path: rest for path, _, rest in (line.partition(": ") for line in lines)}
    # A wrong `kind` is a mistake of the mapping that holds it.
    expected = {path.removesuffix(".kind"): end for path, (_, end) in TEN.items()}
    assert found.keys() == expected.keys()
    for path, end in expected.items():
        assert found[path].endswith(end), found[path]


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("data.train", 5, "data.train: must be a path or a list of paths. Got 5."),
        ("data.train", [], "data.train: must be a path or a list of paths. Got ()."),
        ("schemas", {}, "schemas: unknown key. Did you mean 'schema'?"),
        ("features", {}, "features: unknown key."),
        ("tasks", [], "tasks: must be a mapping of names to values. Got ()."),
        (
            "model.sequence",
            {"histori": {"kind": "masked_mean"}},
            "model.sequence.histori: no sequence feature has this name. Did you mean 'history'?",
        ),
        (
            "model.embedding.tables",
            {"itme": {"embedding_dim": 8}},
            "model.embedding.tables.itme: no table has this name. Did you mean 'item'?",
        ),
        (
            "schema.history.columns.item_id.table",
            "itme",
            (
                "schema.history.columns.item_id.table: no feature says how values become rows of "
                "'itme'. Did you mean 'item'?"
            ),
        ),
        ("model.head.kind", "no.such:Head", "model.head: kind: cannot import 'no.such:Head'"),
        ("tasks.like.label", "rating => 4", "tasks.like.label: must be a column or"),
    ],
)
def test_one_mistake_is_one_line(path: str, value: Any, line: str) -> None:
    (found,) = problems_of(good(), {path: value})
    assert found.startswith(f"run: {line}")


def test_another_architecture_brings_its_own_options() -> None:
    values = {"model.interaction": {"kind": "rankmixer"}, "model.tokenization.global_token": False}
    run = load_run(good(), values)
    assert run.config.model.interaction.kind == "rankmixer"


def test_a_missing_part_is_named() -> None:
    values = good()
    del values["model"], values["tasks"]
    assert problems_of(values)[1:] == ["tasks: is missing. Add it.", "model: is missing. Add it."]


def test_reads_back_what_it_saved(tmp_path: Path) -> None:
    run = load_run(good(), ["training.epochs=2"])
    path = tmp_path / "again.yaml"
    run.save(path)
    again = load_run(path)
    assert again.config == run.config
    assert again.config.digest() == run.config.digest()
    assert again.config.training.epochs == 2
    assert again.name == "again"
    assert list(again.schema.features) == list(good()["schema"])


def test_the_file_is_named_in_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD.replace("epochs: 5", "epoch: 5"))
    with pytest.raises(ConfigError) as caught:
        load_run(path)
    expected = f"{path}: training.epoch: unknown key. Did you mean 'epochs'?"
    assert str(caught.value) == expected


def test_the_values_given_are_not_changed() -> None:
    values = good()
    load_run(values, {"training.epochs": 2})
    assert values == good()


def schemas_of(node: Any) -> list[dict[str, Any]]:
    """Give every mapping within a JSON Schema."""
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [
        *([node] if isinstance(node, dict) else []),
        *(found for one in inner for found in schemas_of(one)),
    ]


def test_the_json_schema_knows_each_architecture_and_its_options() -> None:
    schema = json.loads(json.dumps(run_json_schema()))
    nodes = schemas_of(schema)
    kinds = {
        one["properties"]["kind"].get("const"): one["properties"]
        for one in nodes
        if "kind" in one.get("properties", {})
    }
    tables = (INTERACTIONS, SEQUENCES, TOKENIZATIONS, HEADS)
    assert {name for table in tables for name in table} <= kinds.keys()
    assert "description" in kinds["tokenmixer_large"]["num_layers"]
    assert {"sparse", "dense", "sequence", "vector", "binary", "positive"} <= kinds.keys()
    assert {"rowwise_adagrad", "adam", "cosine", "quantile"} <= kinds.keys()


def conforms(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """Check a value by the few words of JSON Schema that ours uses."""
    if "$ref" in schema:
        return conforms(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema:
        return any(conforms(value, one, root) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    kind = schema["type"]
    if kind in {"integer", "number"}:
        wanted: Any = int if kind == "integer" else (int, float)
        return isinstance(value, wanted) and not isinstance(value, bool)
    if not isinstance(value, types[kind]):
        return False
    if kind == "array":
        inner = schema.get("prefixItems") or [schema.get("items", {})] * len(value)
        return all(conforms(v, s, root) for v, s in zip(value, inner, strict=True))
    if kind == "object":
        known, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        return set(schema.get("required", ())) <= value.keys() and all(
            conforms(v, known[k], root)
            if k in known
            else more is True or (more is not False and conforms(v, more, root))
            for k, v in value.items()
        )
    return "pattern" not in schema or schema["pattern"] in value


def test_the_json_schema_accepts_a_good_file_and_refuses_wrong_keys() -> None:
    schema = run_json_schema()
    assert conforms(good(), schema, schema)
    assert conforms(load_run(good()).config.to_dict(), schema, schema)
    for path in ("schemas", "training.epoch", "model.interaction.num_layer", "schema.age.encod"):
        values = good()
        *parents, last = path.split(".")
        target = values
        for name in parents:
            target = target[name]
        target[last] = 2
        assert not conforms(values, schema, schema), path
    for part in ("interaction", "tokenization"):
        values = good()
        del values["model"][part]["kind"]
        assert not conforms(values, schema, schema), part
