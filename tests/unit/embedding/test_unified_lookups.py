"""The unified table in the embedder, against a plain lookup for each feature."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rankloom.data.batch import Batch, Events, Jagged
from rankloom.embedding import Embedder, EmbeddingConfig, TableConfig
from rankloom.errors import ConfigError
from rankloom.models import ModelConfig, build_model
from rankloom.schema import Schema, UnifiedConfig
from rankloom.training.config import RowwiseAdagradConfig
from rankloom.training.sparse import sparse_optimizer

UNIFIED = UnifiedConfig(hash_buckets=20, lookups={"item": 2, "tags": 3})
SIZES = {"unified": 24}


@pytest.fixture
def schema(tiny_schema: Schema) -> Schema:
    return Schema(tiny_schema.features, tasks=tiny_schema.tasks, unified=UNIFIED)


@pytest.fixture
def batch(tiny_batch: Batch) -> Batch:
    """Give the tiny batch, with rows of the unified table: 1, 1, 2 and 3 of a value."""
    tags = tiny_batch.ids["tags"]
    assert isinstance(tags, Jagged)
    return replace(
        tiny_batch,
        ids={
            "user": torch.tensor([[4], [23]]),
            "hour": torch.tensor([[4], [0]]),
            "item": torch.tensor([[3, 19], [4, 4], [3, 19]]),
            "tags": replace(tags, values=torch.tensor([[1, 2, 3], [5, 5, 5]])),
        },
        sequences={
            "history": Events(
                columns={"item": torch.tensor([[3, 19], [8, 9], [4, 4]])},
                offsets=torch.tensor([0, 3, 3]),
                first_event=torch.tensor([0, 0]),
            )
        },
    )


def make(schema: Schema, config: EmbeddingConfig | None = None) -> Embedder:
    generator = torch.Generator().manual_seed(1)
    return Embedder(
        schema, SIZES, {}, config or EmbeddingConfig(embedding_dim=4), generator=generator
    )


def test_equals_a_plain_lookup_of_each_feature(schema: Schema, batch: Batch) -> None:
    embedder = make(schema)
    table = embedder.tables()["unified"]
    inputs = embedder(batch).inputs
    features = inputs.features
    torch.testing.assert_close(features["user"], table[[4, 23]], rtol=0, atol=0)
    items = torch.cat([table[[3, 4, 3]], table[[19, 4, 19]]], dim=1)
    torch.testing.assert_close(features["item"], items, rtol=0, atol=0)
    bag = torch.cat([table[1] + table[5], table[2] + table[5], table[3] + table[5]])
    torch.testing.assert_close(features["tags"][0], bag)
    assert not features["tags"][1:].any()
    events = inputs.sequences["history"].events[0, -3:]
    expected = torch.cat([table[[3, 8, 4]], table[[19, 9, 4]]], dim=1)
    torch.testing.assert_close(events, expected, rtol=0, atol=0)
    layout = embedder.layout()
    widths = {name: one.width for name, one in layout.features.items()}
    assert widths == {"user": 4, "hour": 4, "item": 8, "tags": 12, "price": 1}
    assert dict(layout.sequences["history"].columns) == {"item": 8}
    assert dict(layout.sequences["history"].candidate) == {"item": "item"}
    assert dict(layout.tables) == {"unified": (24, 4)}


def test_a_row_that_several_features_use_takes_one_step_of_their_sum(
    schema: Schema, batch: Batch
) -> None:
    embedder = make(schema)
    before = embedder.tables()["unified"].clone()
    inputs, lookups = embedder(batch)
    assert len(lookups) == 1
    (inputs.features["user"].sum() + 2 * inputs.features["hour"].sum()).backward()
    optimizer = sparse_optimizer(embedder.table_groups(), RowwiseAdagradConfig(lr=0.5, eps=1e-12))
    optimizer.step(lookups)
    moved = before - embedder.tables()["unified"]
    # Rows 4 (user and hour: gradient 3), 23 (user) and 0 (hour); Adagrad's first step is lr.
    torch.testing.assert_close(moved[[4, 23, 0]], torch.full((3, 4), 0.5))
    assert moved.count_nonzero() == 12


def test_its_width_is_set_like_any_table_s(schema: Schema, batch: Batch) -> None:
    config = EmbeddingConfig(tables={"unified": TableConfig(embedding_dim=3)})
    features = make(schema, config)(batch).inputs.features
    assert features["item"].shape == (3, 6)


def test_a_model_for_another_unified_table_is_refused(schema: Schema) -> None:
    config = ModelConfig.model_validate({"interaction": {"kind": "linear"}})
    with pytest.raises(ConfigError, match="unified: is not the schema's"):
        build_model(config, schema, table_sizes=SIZES)
