"""Decoded columns as tensors of a `Batch`, without copies."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rankloom.data.batch import Batch, Events, Jagged
from rankloom.data.columns import Array, Block, Lists, Plain


def to_batch(block: Block) -> Batch:
    """Give all lines of a block as one batch; each must have at least one row."""
    columns = block.requests | block.rows
    lists = {key: column for key, column in columns.items() if isinstance(column, Lists)}
    named: dict[str, dict[str, Tensor]] = {}
    for (field, name), column in columns.items():
        if isinstance(column, Plain):
            named.setdefault(field, {})[name] = _tensor(column.values)
    jagged = {name: _jagged(c) for (field, name), c in lists.items() if field == "ids"}
    sequences = {
        name: _events(column, name, named)
        for (field, name), column in lists.items()
        if field == "sequences"
    }
    if block.row_offsets is None:
        request_index = torch.arange(block.num_requests)
    else:
        request_index = _tensor(np.repeat(np.arange(block.num_requests), block.num_rows_of_each()))
    return Batch(
        ids={**named.get("ids", {}), **jagged},
        numbers=named.get("numbers", {}),
        vectors=named.get("vectors", {}),
        sequences=sequences,
        request_index=request_index,
        num_requests=block.num_requests,
        labels=named.get("labels", {}),
        masks=named.get("masks", {}),
        weights=named.get("weights", {}),
        keys=named.get("keys", {}),
    )


def _tensor(values: Array) -> Tensor:
    # Arrow's own memory is read-only; torch has no such tensors.
    return torch.from_numpy(values if values.flags.writeable else values.copy())


def _jagged(column: Lists) -> Jagged:
    weights = column.values.get("weights")
    return Jagged(
        values=_tensor(column.values["ids"]),
        offsets=_tensor(column.offsets),
        weights=None if weights is None else _tensor(weights),
    )


def _events(column: Lists, name: str, named: dict[str, dict[str, Tensor]]) -> Events:
    columns: dict[str, Tensor] = {}
    times: dict[str, Tensor] = {}
    for at, values in column.values.items():
        kind, _, inner = at.partition("/")
        (columns if kind == "columns" else times)[inner] = _tensor(values)
    age = named.get("age_newest", {}).get(name)
    if age is not None:
        times["age_newest"] = age
    return Events(
        columns=columns,
        offsets=_tensor(column.offsets),
        first_event=named["first_event"][name],
        times=times,
    )
