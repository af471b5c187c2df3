from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rankloom.config import apply_overrides, parse_yaml, read_yaml
from rankloom.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1E5", 1e5), ("-2.5e+1", -25.0), (".5e1", 5.0), ("1.0", 1.0)],
)
def test_reads_numbers_with_an_exponent(text: str, value: float) -> None:
    read = parse_yaml(f"lr: {text}", where="run")["lr"]
    assert isinstance(read, float)
    assert read == value


@pytest.mark.parametrize("text", ["e5", "1e", "v1e5", "1e5x", "'1e5'"])
def test_leaves_other_words_alone(text: str) -> None:
    assert parse_yaml(f"name: {text}", where="run") == {"name": text.strip("'")}


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "top:\n  a: 1\n  a: 2", "x: {a: 1, a: 2}"])
def test_refuses_a_key_given_twice(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^run: line \d: key 'a' is given twice. Remove one.$"):
        parse_yaml(text, where="run")


def test_merges_do_not_count_as_twice() -> None:
    values = parse_yaml("base: &b {a: 1, c: 2}\nown: {<<: *b, a: 3}", where="run")
    assert values["own"] == {"a": 3, "c": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "run line 1: is not YAML"),
        ("a: !!python/object/apply:os.getcwd []", "run line 1: is not YAML"),
        ("a: !!python/name:os.getcwd", "run line 1: is not YAML"),
        ("a: 1\n---\nb: 2", "run line 2: is not YAML"),
        ("? [a]\n: 3", "run line 1: is not YAML"),
        ("a: &a {b: *a}", "run line 1: is not YAML"),
        ("a: " + "[" * 1200, "run: is not YAML"),
        ("\0", "run: is not YAML"),
        ("a: 2026-13-45", "run: a value cannot be read (month must be in 1..12)"),
        ("a: " + "1" * 5000, "run: a value cannot be read"),
        ("- 1", "run: must be a mapping of names to values. Got a list."),
        ("", "run: must be a mapping of names to values. Got nothing."),
        ("3: x", "run: must be a mapping of names to values."),
    ],
)
def test_what_is_no_run_file_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, where="run")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_refuses_a_file_of_many_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"a: 1\n#" + b"x" * 4 * 2**20)
    with pytest.raises(ConfigError, match="is larger than 4194304 bytes"):
        read_yaml(path)
    with pytest.raises(ConfigError, match="is larger than 4194304 bytes"):
        parse_yaml(path.read_text(), where="run")


def test_says_why_a_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe4")
    for name, reason in (
        ("none.yaml", "No such file"),
        ("", "Is a directory"),
        ("latin.yaml", "is not UTF-8"),
    ):
        with pytest.raises(ConfigError, match=f"cannot be read .{reason}"):
            read_yaml(tmp_path / name)


VALUES: dict[str, Any] = {"model": {"kind": "mlp", "dims": [1]}, "epochs": 1}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("epochs=2", {**VALUES, "epochs": 2}),
        ("model.kind=cross", {**VALUES, "model": {"kind": "cross", "dims": [1]}}),
        ("model.dims=[4, 5]", {**VALUES, "model": {"kind": "mlp", "dims": [4, 5]}}),
        ("model={rate: 2}", {**VALUES, "model": {"kind": "mlp", "dims": [1], "rate": 2}}),
        (
            "model={kind: mlp, rate: 2}",
            {**VALUES, "model": {"kind": "mlp", "dims": [1], "rate": 2}},
        ),
        ("model={kind: cross}", {**VALUES, "model": {"kind": "cross"}}),
        ("training.dense.lr=1e-3", {**VALUES, "training": {"dense": {"lr": 0.001}}}),
        ("epochs=null", {**VALUES, "epochs": None}),
        ("label=rating >= 4", {**VALUES, "label": "rating >= 4"}),
        ("label=rating == 4", {**VALUES, "label": "rating == 4"}),
        (" epochs = 3", {**VALUES, "epochs": 3}),
    ],
)
def test_sets_a_value_by_its_path(override: str, expected: dict[str, Any]) -> None:
    assert apply_overrides(VALUES, [override]) == expected


def test_a_path_goes_through_what_is_nothing() -> None:
    assert apply_overrides({"training": None}, ["training.lr=1"]) == {"training": {"lr": 1}}


def test_later_overrides_win_and_nothing_given_is_changed() -> None:
    values = {"a": {"b": 1}}
    own = {"c": 1}
    assert apply_overrides(values, {"a.b": 2, "d": own, "d.c": 3}) == {"a": {"b": 2}, "d": {"c": 3}}
    assert (values, own) == ({"a": {"b": 1}}, {"c": 1})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", "--set epochs: must read path.to.key=value."),
        ("=3", "--set =3: must read path.to.key=value."),
        ("epochs.lr=1", "--set epochs.lr: epochs is 1, not a mapping."),
        ("model.dims.x.y=1", "--set model.dims.x.y: model.dims is a list, not a mapping."),
        ("a=[", "--set a=[ line 1: is not YAML"),
        ("a={b: 1, b: 2}", "--set a={b: 1, b: 2}: line 1: key 'b' is given twice."),
        ("a=!!python/name:os.getcwd", "--set a=!!python/name:os.getcwd line 1: is not YAML"),
        ("a=2026-13-45", "--set a=2026-13-45: a value cannot be read"),
    ],
)
def test_refuses_an_override_that_leads_nowhere(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides(VALUES, [override])
    assert str(caught.value).startswith(message)
