"""The run file: everything a training needs, checked as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from rankloom.atomic import write_text
from rankloom.config import Config, apply_overrides, read_yaml, validation_problems
from rankloom.config.problems import either
from rankloom.errors import ConfigError, did_you_mean, join_problems
from rankloom.evaluation import EvaluationConfig
from rankloom.models import ModelConfig
from rankloom.schema import (
    UNIFIED,
    AnyFeature,
    AnyTask,
    BinaryTask,
    Roles,
    Schema,
    Share,
    UnifiedConfig,
)
from rankloom.training import TrainingConfig

T = TypeVar("T")
Files = Annotated[
    str | Annotated[tuple[str, ...], Field(min_length=1)],
    either("a path or a list of paths"),
]
"""A path or glob, or several."""


SPLITS = ("train", "valid", "test")


class KeepNegatives(Config):
    """Leaves out negatives while the training log is read; others in each epoch."""

    task: str
    """Binary task, given none, that all others are given at the end of their chain. Its
    probabilities are corrected to those of the whole log."""
    ratio: Share
    """Share of its negatives that are kept; 1 leaves everything as it is."""


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
    keep_negatives: KeepNegatives | None = None
    """Train on a share of the negatives; evaluation reads all."""

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
    schema = Schema(
        config.features,
        roles=config.roles,
        tasks=_trained_tasks(config),
        unified=config.model.embedding.unified,
    )
    return Run(config, schema, name)


def run_json_schema() -> dict[str, Any]:
    """Give the JSON Schema of a run file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **RunConfig.model_json_schema(by_alias=True),
        "title": "RankLoom run file",
    }


def _trained_tasks(config: RunConfig) -> dict[str, AnyTask]:
    """Give the tasks, knowing of the negatives that the log lacks and of those left out by us."""
    tasks, sampling = dict(config.tasks), config.data.keep_negatives
    if sampling is not None:
        task = tasks[sampling.task]
        assert isinstance(task, BinaryTask)
        kept = task.negatives_kept * sampling.ratio
        tasks[sampling.task] = task.model_copy(update={"negatives_kept": kept})
    return tasks


def _sampling_problems(sampling: KeepNegatives, schema: Schema) -> list[str]:
    """List why a task's negatives cannot be left out."""
    where, task = "data.keep_negatives.task", schema.tasks.get(sampling.task)
    if task is None:
        hint = did_you_mean(sampling.task, schema.tasks)
        return [f"{where}: no task is named {sampling.task!r}.{hint}"]
    if not isinstance(task, BinaryTask) or task.given is not None:
        what = "positive" if task.given is None else f"given {task.given!r}"
        return [
            f"{where}: must be binary and given none. {sampling.task!r} is {what}. Name another."
        ]
    others = [name for name in schema.tasks if schema.chain(name)[-1] != sampling.task]
    if sampling.ratio < 1 and others:
        what = f"without negatives of {sampling.task!r}, tasks not given it learn other rates"
        return [f"{where}: {what}. Got {', '.join(others)}. Set their given, or take them out."]
    return []


def _cross_problems(values: Mapping[str, Any], *, is_valid: bool) -> list[str]:
    """Look for what does not fit together, also in a file whose single values are wrong.

    Only what the wrong parts cannot have caused is reported.
    """
    raw = {key: _mapping(values.get(key)) for key in ("schema", "tasks", "model", "data")}
    features = _readable(raw["schema"], TypeAdapter(AnyFeature))
    tasks = _readable(raw["tasks"], TypeAdapter(AnyTask))
    problems: list[str] = []
    roles = _parsed(values.get("roles"), TypeAdapter(Roles)) or Roles()
    raw_unified = _mapping(raw["model"].get("embedding")).get(UNIFIED)
    unified = _parsed(raw_unified, TypeAdapter(UnifiedConfig))
    partial = Schema.unchecked(features, roles=roles, tasks={}, unified=unified)
    if len(features) == len(raw["schema"]) and (unified or raw_unified is None):
        problems += partial.problems()
    if len(tasks) == len(raw["tasks"]):
        alone = Schema.unchecked({}, roles=Roles(), tasks=tasks)
        sampling = _parsed(raw["data"].get("keep_negatives"), TypeAdapter(KeepNegatives))
        wrong = alone.problems()
        problems += wrong or (_sampling_problems(sampling, alone) if sampling else [])
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
        known = set(partial.tables()) | set(partial.dense) | ({UNIFIED} if unified else set())
        for name in _mapping(_mapping(model.get("embedding")).get("tables")):
            if name not in known:
                hint = did_you_mean(name, known)
                problems.append(f"model.embedding.tables.{name}: no table has this name.{hint}")
    return problems


def _readable(raw: Mapping[str, Any], adapter: TypeAdapter[Any]) -> dict[str, Any]:
    found = {name: _parsed(value, adapter) for name, value in raw.items()}
    return {name: value for name, value in found.items() if value is not None}


def _parsed(value: Any, adapter: TypeAdapter[T]) -> T | None:
    """Read a value; none if it is wrong."""
    try:
        return adapter.validate_python(value)
    except ValidationError:
        return None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
