"""Random batches of a built model, for counting costs and for capture."""

from __future__ import annotations

import torch

from rankloom.data.batch import Batch
from rankloom.data.sample import sample_batch
from rankloom.models.build import Model

CAPTURE_ROWS = (3, 1, 2)
"""Rows of each request in an example for capture, where R, B and N must differ."""


def example_batch(
    model: Model, *, rows_of_request: tuple[int, ...] = CAPTURE_ROWS, full_histories: bool = False
) -> Batch:
    """Draw a batch that a model can read, always the same one.

    Args:
        model: Its schema and table sizes are kept to.
        rows_of_request: Rows of each request.
        full_histories: Whether some history has `max_length` events.
    """
    schema = model.schema
    longest = max((f.max_length for f in schema.sequences.values()), default=1)
    return sample_batch(
        schema,
        {n: s for group in model.embedder.table_groups() for n, s in group.sizes.items()},
        rows_of_request=rows_of_request,
        generator=torch.Generator().manual_seed(0),
        max_history=longest if full_histories else min(longest, 20),
    )
