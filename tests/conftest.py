"""A tiny schema, a tiny batch, seeds, deterministic mode."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

from rankloom.data.batch import Batch, Events, Jagged
from rankloom.schema import (
    BinaryTask,
    DenseFeature,
    LogEncoding,
    Schema,
    SequenceColumn,
    SequenceFeature,
    SparseFeature,
)

# A shared machine stalls at times, and a failure must come back when the test is run again.
settings.register_profile("tests", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def tiny_schema() -> Schema:
    """Give one feature of each kind of id, at user, request and candidate rate."""
    return Schema(
        {
            "user": SparseFeature(side="user", num_embeddings=4),
            "history": SequenceFeature(
                side="user", columns={"item": SequenceColumn(table="item")}, max_length=9
            ),
            "hour": SparseFeature(side="context", num_embeddings=3),
            "item": SparseFeature(side="item", num_embeddings=6),
            "tags": SparseFeature(side="item", num_embeddings=5, pooling="sum"),
            "price": DenseFeature(side="item", encode=LogEncoding()),
        },
        tasks={"click": BinaryTask(label="click")},
    )


@pytest.fixture
def tiny_batch() -> Batch:
    """Give two requests, of two rows and of one; the second has no history."""
    return Batch(
        ids={
            "user": torch.tensor([1, 3]),
            "hour": torch.tensor([0, 2]),
            "item": torch.tensor([5, 2, 5]),
            "tags": Jagged(values=torch.tensor([1, 4]), offsets=torch.tensor([0, 2, 2, 2])),
        },
        numbers={"price": torch.tensor([0.0, 1.0, -1.0])},
        vectors={},
        sequences={
            "history": Events(
                columns={"item": torch.tensor([2, 0, 5])},
                offsets=torch.tensor([0, 3, 3]),
                first_event=torch.tensor([0, 0]),
            )
        },
        request_index=torch.tensor([0, 0, 1]),
        num_requests=2,
        labels={"click": torch.tensor([1.0, 0.0, 0.0])},
    )
