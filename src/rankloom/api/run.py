"""The run file: everything a training needs, checked as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from rankloom.atomic import write_text
from rankloom.config import Config, apply_overrides, read_yaml, validation_problems
from rankloom.config.problems import either
from rankloom.errors import ConfigError, did_you_mean, join_problems
from rankloom.evaluation import EvaluationConfig
from rankloom.models import ModelConfig
from rankloom.schema import AnyFeature, AnyTask, Roles, Schema
from rankloom.training import TrainingConfig

Files = Annotated[
    str | Annotated[tuple[str, ...], Field(min_length=1)],
    either("a path or a list of paths"),
]
"""A path or glob, or several."""


SPLITS = ("train", "valid", "test")


class DataConfig(Config):
    """Where the log is."""

    train: Files
    """Parquet files to train on: paths or globs."""
    valid: Files | None = None
    """Parquet files to choose the best checkpoint by."""
    test: Files | None = None
    """Parquet files for the final evaluation."""
    layout: Literal["flat", "grouped"] = "flat"
    """flat: one line a row. grouped: one line a request, its candidates' columns as lists."""

    def files(self, split: str) -> tuple[str, ...]:
        """Give the paths and globs of train, valid or test.

        Raises:
            ConfigError: There is no such split, or the run file names no files for it.
        """
        if split not in SPLITS:
            raise ConfigError(
                f"split: must be one of {', '.join(SPLITS)}. Got {split!r}."
                f"{did_you_mean(split, SPLITS)}"
            )
        found = getattr(self, split)
        if found is None:
            raise ConfigError(f"data.{split}: is missing. Name its Parquet files.")
        return (found,) if isinstance(found, str) else found


class RunConfig(Config):
    """A whole run file."""

    data: DataConfig
    """Where the log is."""
    features: Annotated[dict[str, AnyFeature], Field(alias="schema", min_length=1)]
    """Name -> feature."""
    roles: Roles = Roles()
    """Which columns mean what."""
    tasks: Annotated[dict[str, AnyTask], Field(min_length=1)]
    """Name -> task."""
    model: ModelConfig
    """What fills the slots."""
    training: TrainingConfig = TrainingConfig()
    """How it is trained."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """What is measured."""


@dataclass(frozen=True)
class Run:
    """A checked run file."""

    config: RunConfig
    """Its values, defaults filled in."""
    schema: Schema
    """Features, roles and tasks as one."""
    name: str
    """The file's name without its ending; names the run folder."""

    def save(self, path: Path) -> None:
        """Write the resolved values as YAML that reads back to an equal run."""
        write_text(path, yaml.safe_dump(self.config.to_dict(), sort_keys=False))


def load_run(
    source: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | Iterable[str] = ()
) -> Run:
    """Read and check a run file.

    Args:
        source: A YAML file, or its values.
        overrides: `{"training.epochs": 2}`, or texts `training.epochs=2`.

    Raises:
        ConfigError: With every mistake of the file at once.
    """
    if isinstance(source, Mapping):
        where, name, values = "run", "run", dict(source)
    else:
        path = Path(source)
        where, name, values = str(path), path.stem, read_yaml(path)
    values = apply_overrides(values, overrides)
    problems: list[str] = []
    config: RunConfig | None = None
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        problems = validation_problems(error)
    problems += _cross_problems(values, is_valid=config is not None)
    if problems or config is None:
        raise ConfigError(join_problems(list(dict.fromkeys(problems)), where=where))
    schema = Schema(config.features, roles=config.roles, tasks=config.tasks)
    return Run(config, schema, name)


def run_json_schema() -> dict[str, Any]:
    """Give the JSON Schema of a run file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **RunConfig.model_json_schema(by_alias=True),
        "title": "RankLoom run file",
    }


def _cross_problems(values: Mapping[str, Any], *, is_valid: bool) -> list[str]:
    """Look for what does not fit together, also in a file whose single values are wrong.

    Only what the wrong parts cannot have caused is reported.
    """
    raw = {key: _mapping(values.get(key)) for key in ("schema", "tasks", "model")}
    features = _readable(raw["schema"], TypeAdapter(AnyFeature))
    tasks = _readable(raw["tasks"], TypeAdapter(AnyTask))
    problems: list[str] = []
    partial = Schema.unchecked(features, roles=Roles(), tasks={})
    if len(features) == len(raw["schema"]):
        problems += partial.problems()
    if len(tasks) == len(raw["tasks"]):
        problems += Schema.unchecked({}, roles=Roles(), tasks=tasks).problems()
    model = raw["model"]
    for name in _mapping(model.get("sequence")):
        if name not in raw["schema"]:
            hint = did_you_mean(name, partial.sequences)
            problems.append(f"model.sequence.{name}: no sequence feature has this name.{hint}")
    groups = _mapping(_mapping(model.get("tokenization")).get("groups"))
    for group, members in groups.items():
        for member in members if isinstance(members, (list, tuple)) else ():
            if member not in raw["schema"] and isinstance(member, str):
                hint = did_you_mean(member, raw["schema"])
                problems.append(
                    f"model.tokenization.groups.{group}: no feature is named {member!r}.{hint}"
                )
    if is_valid and len(features) == len(raw["schema"]):
        known = set(partial.tables()) | set(partial.dense)
        for name in _mapping(_mapping(model.get("embedding")).get("tables")):
            if name not in known:
                hint = did_you_mean(name, known)
                problems.append(f"model.embedding.tables.{name}: no table has this name.{hint}")
    return problems


def _readable(raw: Mapping[str, Any], adapter: TypeAdapter[Any]) -> dict[str, Any]:
    found = {}
    for name, value in raw.items():
        try:
            found[name] = adapter.validate_python(value)
        except ValidationError:
            continue
    return found


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
