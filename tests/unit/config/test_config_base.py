from __future__ import annotations

import math
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import Field, PositiveInt, ValidationError

from rankloom.config import Config, OneOf, validation_problems
from rankloom.config.problems import either, problem


class InnerConfig(Config):
    width: PositiveInt = 4
    rate: float = 0.5


class OuterConfig(Config):
    hidden_dims: tuple[int, ...] = (8,)
    groups: dict[str, tuple[str, ...]] = {}
    inner: InnerConfig = InnerConfig()
    parts: Annotated[dict[str, InnerConfig], Field(alias="all_parts")] = {}
    default: Annotated[int | str | None, either("a whole number or a text")] = None
    mode: Literal["fast", "exact"] = "fast"


def problems_of(values: object) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        OuterConfig.model_validate(values)
    return validation_problems(caught.value)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"inner": {"width": "4"}}, "inner.width: must be a whole number. Got '4'."),
        ({"inner": {"width": 4.0}}, "inner.width: must be a whole number. Got 4.0."),
        ({"inner": {"width": True}}, "inner.width: must be a whole number. Got True."),
        ({"inner": {"width": 0}}, "inner.width: must be above 0. Got 0."),
        ({"inner": {"rate": math.inf}}, "inner.rate: must be a finite number. Got inf."),
        ({"inner": 3}, "inner: must be a mapping of names to values. Got 3."),
        ({"hidden_dims": 8}, "hidden_dims: must be a list. Got 8."),
        ({"hidden_dims": [8, "x"]}, "hidden_dims.1: must be a whole number. Got 'x'."),
        ({"mode": "exakt"}, "mode: must be one of 'fast' or 'exact'. Got 'exakt'."),
        ({"default": 1.5}, "default: must be a whole number or a text. Got 1.5."),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_path(values: object, line: str) -> None:
    assert problems_of(values) == [line]


def test_all_problems_come_together() -> None:
    values = {"inner": {"width": -1, "rate": "x"}, "mode": 3, "hidden_dims": ["a"]}
    assert [line.split(":")[0] for line in problems_of(values)] == [
        "hidden_dims.0",
        "inner.width",
        "inner.rate",
        "mode",
    ]


def test_an_unknown_key_names_the_nearest_at_any_depth() -> None:
    assert problems_of({"all_parts": {"a": {"widht": 3}}}) == [
        "all_parts.a.widht: unknown key. Did you mean 'width'?"
    ]


def test_an_unknown_key_without_a_near_one_lists_the_known() -> None:
    assert problems_of({"inner": {"zzz": 3}}) == ["inner.zzz: unknown key. Known: rate, width."]


def test_the_known_keys_are_those_a_file_uses() -> None:
    # `parts` is the attribute; the file says `all_parts`, so this must not be its own hint.
    assert problems_of({"parts": {}}) == ["parts: unknown key. Did you mean 'all_parts'?"]


def test_lists_become_tuples_also_within_mappings() -> None:
    config = OuterConfig.model_validate({"hidden_dims": [1, 2], "groups": {"a": ["x", "y"]}})
    assert config.hidden_dims == (1, 2)
    assert config.groups == {"a": ("x", "y")}


def test_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        InnerConfig().width = 3


def test_reads_back_what_it_wrote() -> None:
    config = OuterConfig.model_validate(
        {"groups": {"a": ["x"]}, "all_parts": {"p": {"width": 2}}, "default": 3, "mode": "exact"}
    )
    again = OuterConfig.model_validate(yaml.safe_load(yaml.safe_dump(config.to_dict())))
    assert again == config
    assert again.digest() == config.digest()


def test_the_digest_is_the_same_everywhere() -> None:
    # sha256 of {"width":4,"rate":0.5}, computed outside of Python.
    expected = "4087efe8d2879c4b24d1348150976c8068fee16dd114370967b4380d23a4c66a"
    assert InnerConfig().digest() == expected
    assert InnerConfig.model_validate({"rate": 0.5, "width": 4}).digest() == expected


def test_the_digest_knows_values_and_the_order_of_names() -> None:
    def digest(*names: str) -> str:
        return OuterConfig.model_validate({"groups": {name: ["x"] for name in names}}).digest()

    assert digest("a") != digest("b")
    # Models see features in the order of the file: another order is another model.
    assert digest("a", "b") != digest("b", "a")


class CatConfig(Config):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class DogConfig(Config):
    kind: Literal["dog"] = "dog"


Pet = Annotated[CatConfig | DogConfig, OneOf(CatConfig, DogConfig)]


class HomeConfig(Config):
    pet: Pet = CatConfig()


@pytest.mark.parametrize(
    ("given", "read"),
    [("dog", DogConfig()), ({"kind": "cat", "lives": 7}, CatConfig(lives=7)), (DogConfig(),) * 2],
)
def test_one_of_reads_a_mapping_a_name_or_a_config(given: object, read: Config) -> None:
    home = HomeConfig.model_validate({"pet": given})
    assert home.pet == read
    assert HomeConfig.model_validate(home.to_dict()) == home


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"kind": "dogg"}, "pet: kind must be one of cat, dog. Got 'dogg'. Did you mean 'dog'?"),
        ({"lives": 3}, "pet: `kind` is missing. Known: cat, dog."),
        (3, "pet: must be a mapping with `kind`. Got 3."),
        ({"kind": "cat", "live": 3}, "pet.live: unknown key. Did you mean 'lives'?"),
        ({"kind": "dog", "lives": 3}, "pet.lives: unknown key. Known: kind."),
    ],
)
def test_one_of_refuses_with_the_plain_path(given: object, line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        HomeConfig.model_validate({"pet": given})
    assert validation_problems(caught.value) == [line]


def test_a_problem_keeps_its_braces() -> None:
    error = problem("Got {x} of {0}.")
    assert str(error) == "Got {x} of {0}."
