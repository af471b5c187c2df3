"""Start from another run's weights although the schema has grown.

Tables are matched by name and their rows by key; dense parameters by name and shape, where a name
says which features a parameter belongs to. What has no match keeps its initial values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rankloom.data.columns import Ints
from rankloom.data.transforms import Transforms
from rankloom.models import Model
from rankloom.schema import UNIFIED, IdSource, Schema
from rankloom.tensor_files import read_tensors
from rankloom.tokenization.semantic_groups import SemanticGroups
from rankloom.training.checkpoint import (
    network_tensors,
    read_manifest,
    reading,
    table_tensors,
)


@dataclass(frozen=True)
class WarmStart:
    """What a warm start found."""

    matched_tables: int
    """Tables of the new model that the old one has."""
    tables: int
    """Tables of the new model."""
    matched_rows: int
    """Rows of the new tables that the old ones have."""
    rows: int
    """Rows of the new tables."""
    matched_parameters: int
    """Dense tensors of the new model that the old one has in the same shape."""
    parameters: int
    """Dense tensors of the new model."""

    def __str__(self) -> str:
        return (
            f"{self.matched_tables} of {self.tables} tables "
            f"({self.matched_rows:,} of {self.rows:,} rows), "
            f"{self.matched_parameters} of {self.parameters} dense tensors"
        )


@dataclass(frozen=True)
class _Log:
    """What says which value a row of a table stands for."""

    schema: Schema
    transforms: Transforms


def warm_start(
    model: Model,
    transforms: Transforms,
    *,
    checkpoint: Path,
    old_schema: Schema,
    old_transforms: Transforms,
) -> WarmStart:
    """Copy what matches from a checkpoint into a new model, in place.

    Args:
        model: The new model, of any schema and config.
        transforms: Its vocabularies.
        checkpoint: A checkpoint folder of the old run.
        old_schema: The old run's features. Where they are not the new run's in the same order,
            dense parameters are taken only with semantic groups, whose projections are named by
            group: elsewhere a column's place is all that says which feature it belongs to.
        old_transforms: The old run's vocabularies.

    Raises:
        CheckpointError: The checkpoint is damaged.
    """
    read_manifest(checkpoint)
    new_log, old_log = _Log(model.schema, transforms), _Log(old_schema, old_transforms)
    has_same_features = list(model.schema.features) == list(old_schema.features)
    old_tables = _read(checkpoint / "tables.safetensors")
    new_tables = model.embedder.tables()
    matched_tables = matched_rows = 0
    for name, table in new_tables.items():
        old = old_tables.get(name)
        if old is None or old.shape[1] != table.shape[1]:
            continue
        rows, old_rows = _matching_rows(name, table, old, new_log, old_log)
        table[rows] = old[old_rows]
        matched_tables += bool(len(rows))
        matched_rows += len(rows)
    numeric = {n: t for n, t in table_tensors(model).items() if n not in new_tables}
    copied = _copy_same_shape(numeric, old_tables)
    dense = network_tensors(model)
    if has_same_features or isinstance(model.network.tokenization, SemanticGroups):
        copied += _copy_same_shape(dense, _read(checkpoint / "network.safetensors"))
    return WarmStart(
        matched_tables=matched_tables,
        tables=len(new_tables),
        matched_rows=matched_rows,
        rows=sum(len(table) for table in new_tables.values()),
        matched_parameters=copied,
        parameters=len(dense) + len(numeric),
    )


def _read(path: Path) -> dict[str, Tensor]:
    with reading(path):
        return read_tensors(path)


def _matching_rows(
    name: str, table: Tensor, old: Tensor, new_log: _Log, old_log: _Log
) -> tuple[Tensor, Tensor]:
    """Give the rows of a new table that an old one has, and where."""
    # An embedding set has the rows of the feature's own table.
    base = name.partition("@")[0]
    ways = [log.schema.tables().get(base) for log in (new_log, old_log)]
    if base == UNIFIED:
        rows, old_rows = _matching_unified_rows(new_log.schema, old_log.schema)
    elif all(way is not None and way.vocabulary is not None for way in ways):
        vocabulary = new_log.transforms.vocabularies[base]
        found = vocabulary.rows_of(old_log.transforms.vocabularies[base])
        rows = np.flatnonzero(found >= 0)
        old_rows = found[rows]
    else:
        is_same = [_fixed_rows(way) for way in ways]
        # Rows by number mean the same, however many there are; those of hashes do not.
        count = min(len(table), len(old)) if is_same[0] == is_same[1] else 0
        rows = old_rows = np.arange(count)
    return torch.from_numpy(rows), torch.from_numpy(old_rows)


def _fixed_rows(way: IdSource | None) -> tuple[str, int | None]:
    """Give what must be equal for equal rows to mean the same; none for buckets of numbers."""
    if way is None or way.num_embeddings is not None:
        return "number", None
    return ("key", None) if way.vocabulary is not None else ("hash", way.hash_buckets)


def _matching_unified_rows(new: Schema, old: Schema) -> tuple[Ints, Ints]:
    """Match hashed rows by number, and those of missing values by their table's name."""
    if new.unified is None or old.unified is None:
        return np.arange(0), np.arange(0)
    count = new.unified.hash_buckets
    if count != old.unified.hash_buckets:
        return np.arange(0), np.arange(0)
    places = {table: place for place, table in enumerate(old.unified_tables())}
    matched = [(at, places[t]) for at, t in enumerate(new.unified_tables()) if t in places]
    rows = [np.append(np.arange(count), [count + pair[n] for pair in matched]) for n in (0, 1)]
    return rows[0].astype(np.int64), rows[1].astype(np.int64)


@torch.no_grad()
def _copy_same_shape(new: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> int:
    copied = 0
    for name, tensor in new.items():
        if name in old and old[name].shape == tensor.shape:
            tensor.copy_(old[name])
            copied += 1
    return copied
