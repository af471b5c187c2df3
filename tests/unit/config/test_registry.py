from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import ValidationError

from rankloom.config import (
    ArchitectureSpec,
    Choice,
    ChoiceOf,
    Config,
    resolve,
    validation_problems,
)
from rankloom.errors import ConfigError

OWN = """
from rankloom.config import Config

class CrossConfig(Config):
    num_layers: int = 3

class Cross:
    Config = CrossConfig

class Bare:
    pass
"""


class CrossConfig(Config):
    kind: Literal["cross"] = "cross"
    num_layers: int = 3


class Cross:
    Config: ClassVar[type[Config]] = CrossConfig


TABLE = {
    "cross": ArchitectureSpec(target=f"{__name__}:Cross", title="Crosses"),
    "deep": ArchitectureSpec(target="rankloom_does_not_have:This", title="Deep"),
}


class SlotConfig(Config):
    interaction: Annotated[Choice, ChoiceOf(TABLE)]


@pytest.fixture
def _own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_cross.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


def problems_of(given: object) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        SlotConfig.model_validate({"interaction": given})
    return validation_problems(caught.value)


@pytest.mark.parametrize("given", ["cross", {"kind": "cross"}, {"kind": "cross", "num_layers": 3}])
def test_reads_a_name_or_a_mapping(given: object) -> None:
    config = SlotConfig.model_validate({"interaction": given})
    assert config.interaction == Choice("cross", Cross, CrossConfig())
    assert SlotConfig.model_validate(config.to_dict()) == config


@pytest.mark.usefixtures("_own_module")
def test_reads_a_users_own_class_and_writes_it_back() -> None:
    values = {"interaction": {"kind": "own_cross:Cross", "num_layers": 5}}
    config = SlotConfig.model_validate(values)
    assert config.interaction.cls.__name__ == "Cross"
    assert config.interaction.config.to_dict() == {"num_layers": 5}
    assert config.to_dict() == values
    assert SlotConfig.model_validate(config.to_dict()) == config


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            "crsos",
            (
                "interaction: kind: unknown architecture 'crsos'. Did you mean 'cross'? "
                "Known: cross, deep, or a package.module:Class of your own."
            ),
        ),
        ({"num_layers": 3}, "interaction: `kind` is missing. Known: cross, deep."),
        (["cross"], "interaction: must be a mapping with `kind`. Got ('cross',)."),
        (
            {"kind": "cross", "num_layer": 3},
            "interaction.num_layer: unknown key. Did you mean 'num_layers'?",
        ),
        (
            {"kind": "cross", "num_layers": "x"},
            "interaction.num_layers: must be a whole number. Got 'x'.",
        ),
        (
            "own_cross:Bare",
            (
                "interaction: kind: 'own_cross:Bare' has no attribute `Config` that is a "
                "rankloom.Config. Add one."
            ),
        ),
    ],
)
@pytest.mark.usefixtures("_own_module")
def test_refuses_with_path_and_nearest_name(given: object, line: str) -> None:
    assert problems_of(given) == [line]


@pytest.mark.parametrize("kind", ["no_such_module:X", "own_cross:Missing", "deep"])
@pytest.mark.usefixtures("_own_module")
def test_says_what_cannot_be_imported(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"^model\.kind: cannot import '.*Is it installed\?$"):
        resolve(kind, TABLE, path="model.kind")


@pytest.mark.parametrize("kind", ["os", "os:", ":system", "os:path.join", "os;x:y", "..a:b"])
def test_a_target_is_a_module_and_a_class_and_nothing_else(kind: str) -> None:
    with pytest.raises(ConfigError, match="unknown architecture"):
        resolve(kind, TABLE, path="kind")


def test_only_the_chosen_module_is_imported() -> None:
    # `deep` points at a module that does not exist: choosing another one must not touch it.
    SlotConfig.model_validate({"interaction": "cross"})
    code = "import sys, rankloom.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_json_schema_lists_the_names_and_keys() -> None:
    table = {"cross": TABLE["cross"]}

    class Slots(Config):
        interaction: Annotated[Choice, ChoiceOf(table)]

    described = Slots.model_json_schema()["properties"]["interaction"]["anyOf"]
    assert set(described[0]["properties"]) == {"kind", "num_layers"}
    assert described[-1] == {"enum": ["cross"]}
