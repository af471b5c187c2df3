"""The same batch in another form: some of its rows, or every request repeated row by row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rankloom.data.batch import Batch, Jagged


def take_rows(batch: Batch, order: Tensor) -> Batch:
    """Give some rows of a batch of one request, in an order."""
    ids = {
        name: _take(value, order) if _is_per_row(value, batch) else value
        for name, value in batch.ids.items()
    }
    numbers = {n: v[order] if len(v) == batch.num_rows else v for n, v in batch.numbers.items()}
    return replace(
        batch,
        ids=ids,
        numbers=numbers,
        labels={task: value[order] for task, value in batch.labels.items()},
        request_index=batch.request_index[order],
    ).with_slots()


def flatten(batch: Batch) -> Batch:
    """Give the flat form of a grouped batch: every request's columns repeated row by row."""
    index = batch.request_index

    def spread(value: Tensor | Jagged) -> Tensor | Jagged:
        return value if _is_per_row(value, batch) else _take(value, index)

    sequences = {}
    for name, events in batch.sequences.items():
        columns = {
            key: _take(Jagged(values=value, offsets=events.offsets), index)
            for key, value in events.columns.items()
        }
        times = {
            key: value[index]
            if key == "age_newest"
            else _take(Jagged(values=value, offsets=events.offsets), index).values
            for key, value in events.times.items()
        }
        sequences[name] = replace(
            events,
            columns={key: value.values for key, value in columns.items()},
            offsets=next(iter(columns.values())).offsets,
            first_event=events.first_event[index],
            times=times,
        )
    return replace(
        batch,
        ids={name: spread(value) for name, value in batch.ids.items()},
        numbers={n: v if len(v) == len(index) else v[index] for n, v in batch.numbers.items()},
        sequences=sequences,
        request_index=torch.arange(len(index)),
        num_requests=len(index),
    ).with_slots()


def _is_per_row(value: Tensor | Jagged, batch: Batch) -> bool:
    length = len(value.offsets) - 1 if isinstance(value, Jagged) else len(value)
    return length == batch.num_rows


def _take(value: Any, order: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value[order]
    bounds = value.offsets.tolist()
    parts = [value.values[bounds[n] : bounds[n + 1]] for n in order.tolist()]
    lengths = torch.tensor([len(part) for part in parts])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return replace(value, values=torch.cat(parts), offsets=offsets)
