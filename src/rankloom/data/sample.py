"""Random batches that fit a schema, for counting costs, capture and contract checks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rankloom.data.batch import Batch, Events, Jagged
from rankloom.schema import BinaryTask, Rate, Schema


def sample_batch(
    schema: Schema,
    table_sizes: Mapping[str, int],
    *,
    rows_of_request: tuple[int, ...],
    generator: torch.Generator,
    max_history: int = 20,
    ids_per_bag: int = 3,
) -> Batch:
    """Draw a batch at random: ids, numbers, histories and labels of the right form.

    Args:
        schema: The features and tasks.
        table_sizes: Table -> num_embeddings.
        rows_of_request: Rows of each request, all at least 1.
        generator: Source of the values.
        max_history: Events of a history at most; the first request's history is empty where
            there are several.
        ids_per_bag: Ids of a row with several, at most.
    """
    num_requests, num_rows = len(rows_of_request), sum(rows_of_request)
    draw = _Draw(generator)
    columns = {(c.feature, c.name): c for c in schema.id_columns()}

    def rows_at(rate: Rate) -> int:
        return num_rows if rate is Rate.CANDIDATE else num_requests

    ids: dict[str, Tensor | Jagged] = {}
    sequences: dict[str, Events] = {}
    for name, feature in schema.sparse.items():
        rows, at = rows_at(feature.rate), columns[name, None]
        size = table_sizes[at.stored_in]
        if feature.pooling is None:
            ids[name] = draw.ids(size, rows, at.lookups)
            continue
        offsets = draw.offsets(rows, ids_per_bag)
        count = int(offsets[-1])
        weights = draw.uniform(count) if feature.weights else None
        values = draw.ids(size, count, at.lookups)
        ids[name] = Jagged(values=values, offsets=offsets, weights=weights)
    for name, sequence in schema.sequences.items():
        offsets = draw.offsets(num_requests, min(max_history, sequence.max_length))
        count = int(offsets[-1])
        times: dict[str, Tensor] = {}
        if sequence.time is not None:
            times = {
                "gap_previous": draw.uniform(count) * 3600,
                "gap_newest": draw.uniform(count) * 86400,
            }
            if schema.roles.event_time is not None:
                times["age_newest"] = draw.uniform(num_requests) * 3600
        sequences[name] = Events(
            columns={
                inner: draw.ids(table_sizes[at.stored_in], count, at.lookups)
                for inner in sequence.columns
                for at in [columns[name, inner]]
            },
            offsets=offsets,
            first_event=torch.zeros(num_requests, dtype=torch.int64),
            times=times,
        )
    labels = {
        name: (draw.uniform(num_rows) < 0.4).float()
        if isinstance(task, BinaryTask)
        else draw.uniform(num_rows) * 10
        for name, task in schema.tasks.items()
    }
    return Batch(
        ids=ids,
        numbers={name: draw.normal(rows_at(f.rate)) for name, f in schema.dense.items()},
        vectors={name: draw.normal(rows_at(f.rate), f.dim) for name, f in schema.vectors.items()},
        sequences=sequences,
        request_index=torch.repeat_interleave(
            torch.arange(num_requests), torch.tensor(rows_of_request)
        ),
        num_requests=num_requests,
        labels=labels,
    ).with_slots()


class _Draw:
    """Random tensors from one generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def ids(self, size: int, count: int, lookups: int | None) -> Tensor:
        shape = (count,) if lookups is None else (count, lookups)
        return torch.randint(size, shape, generator=self.generator)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def offsets(self, rows: int, longest: int) -> Tensor:
        lengths = torch.randint(longest + 1, (rows,), generator=self.generator)
        if rows > 1:
            lengths[0] = 0
        lengths[-1] = longest
        return torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
