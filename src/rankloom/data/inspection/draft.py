"""A run file drafted for a log: values that load, and comments that say why."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import yaml

from rankloom.data.inspection.features import Proposed
from rankloom.data.inspection.profile import Summary
from rankloom.data.inspection.shape import Shape
from rankloom.data.inspection.tasks import TaskGuess

WIDTH = 96
SMALL_LOG = 20_000
LARGE_LOG = 1_000_000
_HEAD = "Drafted by `rankloom data inspect`: read the reasons, and mend what the data cannot say."


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A run file."""

    values: dict[str, Any]
    """What it says."""
    reasons: dict[str, dict[str, str]]
    """Section -> name -> why."""
    left_out: dict[str, str]
    """Column -> why it is no feature."""

    def to_yaml(self) -> str:
        """Write it with the reasons as comments."""
        lines = [*_comment(_HEAD)]
        for section, values in self.values.items():
            reasons = self.reasons.get(section, {})
            if section in {"schema", "tasks", "roles"} or reasons:
                lines.append(f"{section}:")
                for name, value in values.items():
                    lines += _comment(reasons[name], indent="  ") if name in reasons else []
                    lines.append(f"  {flow(name)}: {flow(value)}")
            else:
                lines.append(f"{section}: {flow(values)}")
            if section == "schema" and self.left_out:
                lines += _comment("Left out:", indent="  ")
                for column, why in self.left_out.items():
                    lines += _comment(f"- {column!r}: {why}", indent="  ")
        return "\n".join(lines) + "\n"


def flow(value: Any) -> str:
    """Write a value on one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**9)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _comment(text: str, *, indent: str = "") -> list[str]:
    """Break a comment into lines; a column's name may hold anything."""
    words = re.sub(r"[^\x20-\x7e]+", " ", text).split()
    lines, line = [], f"{indent}#"
    for word in words:
        if len(line) + len(word) >= WIDTH:
            lines.append(line)
            line = f"{indent}#  "
        line += f" {word}"
    return [*lines, line]


def make_draft(
    files: Mapping[str, Sequence[str]],
    shape: Shape,
    proposed: Proposed,
    tasks: Sequence[TaskGuess],
    summaries: Mapping[str, Summary],
    num_rows: int,
) -> Draft | None:
    """Draft a run file; none where there is no task or no feature.

    Args:
        files: Split -> paths.
        shape: How the log is laid out.
        proposed: The features.
        tasks: What is predicted.
        summaries: What each column holds.
        num_rows: Of the training log.
    """
    if not proposed.features or not any(task.kind == "binary" for task in tasks):
        return None
    left_out = dict(proposed.left_out)
    roles = {
        role: column
        for role, column in shape.roles.items()
        if _can_be_role(role, column, shape, summaries)
    }
    features = {name: dict(values) for name, values in proposed.features.items()}
    model, why = _model(features)
    data: dict[str, Any] = {split: _one_or_many(paths) for split, paths in files.items() if paths}
    values: dict[str, Any] = {
        "data": data | {"layout": shape.layout},
        "schema": features,
        "roles": roles,
        "tasks": {task.name: task.to_dict() for task in tasks},
        "model": model,
        "training": {"epochs": 2, "batch_size": _batch_size(num_rows)},
        "evaluation": {"gauc_by": "user"} if "user" in roles else {},
    }
    reasons = {
        "schema": proposed.reasons,
        "tasks": {task.name: task.reason for task in tasks},
        "model": why,
    }
    values = {key: value for key, value in values.items() if value}
    return Draft(values=values, reasons=reasons, left_out=left_out)


def _one_or_many(paths: Sequence[str]) -> str | list[str]:
    return paths[0] if len(paths) == 1 else list(paths)


def _batch_size(num_rows: int) -> int:
    if num_rows <= SMALL_LOG:
        return 256
    return 4096 if num_rows > LARGE_LOG else 1024


def _can_be_role(role: str, column: str, shape: Shape, summaries: Mapping[str, Summary]) -> bool:
    """Tell whether the reader takes a column for its role."""
    leaf = shape.leaf(column)
    is_whole = pa.types.is_integer(leaf)
    if role in {"event_time", "position"}:
        return bool(is_whole) and not summaries[column].num_nulls
    return column in shape.scalars and column in summaries


def _model(features: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    item_tables = {
        str(feature.get("table", name))
        for name, feature in features.items()
        if feature["kind"] == "sparse" and feature["side"] == "item"
    }
    sequence, why = {}, {}
    for name, feature in features.items():
        if feature["kind"] != "sequence":
            continue
        tables = [column.get("table") for column in feature["columns"].values()]
        reads = all(table in item_tables for table in tables)
        sequence[name] = {"kind": "din" if reads else "masked_mean"}
        why["sequence"] = "din weighs events by the candidate; it needs tables of the item's own"
    model = {
        "embedding": {"embedding_dim": 16},
        "sequence": sequence,
        "interaction": {"kind": "dcn_v2", "num_layers": 3, "hidden_dims": [128, 64]},
        "head": {"kind": "shared_bottom", "hidden_dims": [32]},
    }
    return {key: value for key, value in model.items() if value}, why
