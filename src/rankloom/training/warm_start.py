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

from rankloom.data.transforms import Transforms
from rankloom.models import Model
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


def warm_start(
    model: Model,
    transforms: Transforms,
    *,
    checkpoint: Path,
    old_transforms: Transforms,
    has_same_features: bool,
) -> WarmStart:
    """Copy what matches from a checkpoint into a new model, in place.

    Args:
        model: The new model, of any schema and config.
        transforms: Its vocabularies.
        checkpoint: A checkpoint folder of the old run.
        old_transforms: The old run's vocabularies.
        has_same_features: Whether both runs have the same features in the same order. If not, dense
            parameters are taken only with semantic groups, whose projections are named by group:
            elsewhere a column's place is all that says which feature it belongs to.

    Raises:
        CheckpointError: The checkpoint is damaged.
    """
    read_manifest(checkpoint)
    old_tables = _read(checkpoint / "tables.safetensors")
    new_tables = model.embedder.tables()
    matched_tables = matched_rows = 0
    for name, table in new_tables.items():
        old = old_tables.get(name)
        if old is None or old.shape[1] != table.shape[1]:
            continue
        rows, old_rows = _matching_rows(name, table, old, transforms, old_transforms)
        table[rows] = old[old_rows]
        matched_tables += 1
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
    name: str, table: Tensor, old: Tensor, transforms: Transforms, old_transforms: Transforms
) -> tuple[Tensor, Tensor]:
    """Give the rows of a new table that an old one has, and where."""
    # An embedding set has the vocabulary of the feature's own table.
    base = name.partition("@")[0]
    new_vocabulary = transforms.vocabularies.get(base)
    old_vocabulary = old_transforms.vocabularies.get(base)
    if new_vocabulary is None or old_vocabulary is None:
        rows = torch.arange(min(len(table), len(old)))
        return rows, rows
    found = new_vocabulary.rows_of(old_vocabulary)
    rows_found = np.flatnonzero(found >= 0)
    return torch.from_numpy(rows_found), torch.from_numpy(found[rows_found])


@torch.no_grad()
def _copy_same_shape(new: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> int:
    copied = 0
    for name, tensor in new.items():
        if name in old and old[name].shape == tensor.shape:
            tensor.copy_(old[name])
            copied += 1
    return copied
