from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rankloom.data.batch import Batch
from rankloom.embedding import Embedder, EmbeddingConfig, FusedTables, TableConfig
from rankloom.ops.segment import sum_by_id
from rankloom.schema import Schema, SparseFeature

SIZES = {"user": 4, "hour": 3, "item": 6, "tags": 5}


@pytest.fixture
def embedder(tiny_schema: Schema, generator: torch.Generator) -> Embedder:
    config = EmbeddingConfig(embedding_dim=2, tables={"user": TableConfig(embedding_dim=3)})
    return Embedder(tiny_schema, SIZES, {}, config, generator=generator)


def test_tables_of_one_width_stand_in_one_weight(embedder: Embedder) -> None:
    assert [(g.dim, g.sizes) for g in embedder.table_groups()] == [
        (2, {"hour": 3, "item": 6, "tags": 5}),
        (3, {"user": 4}),
    ]
    assert [tuple(g.weight.shape) for g in embedder.table_groups()] == [(14, 2), (4, 3)]


def test_tables_are_views_that_may_be_written(embedder: Embedder) -> None:
    tables = embedder.tables()
    assert {name: tuple(table.shape) for name, table in tables.items()} == {
        "hour": (3, 2),
        "item": (6, 2),
        "tags": (5, 2),
        "user": (4, 3),
    }
    tables["item"].fill_(7.0)
    weight = embedder.table_groups()[0].weight
    assert (weight == 7.0).all(dim=1).tolist() == [False] * 3 + [True] * 6 + [False] * 5


def test_a_new_feature_leaves_names_and_shapes_of_the_others(
    tiny_schema: Schema, embedder: Embedder, generator: torch.Generator
) -> None:
    first = {"age": SparseFeature(side="user", num_embeddings=9)}
    grown = Schema({**first, **tiny_schema.features}, tasks=tiny_schema.tasks)
    sizes = {"age": 9, **SIZES}
    new = Embedder(grown, sizes, {}, embedder.config, generator=generator).tables()
    old = {name: table.shape for name, table in embedder.tables().items()}
    assert {name: table.shape for name, table in new.items() if name != "age"} == old


def test_tables_are_no_parameters_and_no_part_of_the_state(embedder: Embedder) -> None:
    # What an optimizer or a clipping would see as dense, and what would be stored fused.
    assert list(embedder.parameters()) == []
    assert [name for name in embedder.state_dict() if "weight" in name] == []


def test_looked_up_vectors_are_leaves_that_receive_the_gradient(
    embedder: Embedder, tiny_batch: Batch
) -> None:
    inputs, lookups = embedder(tiny_batch)
    loss = 3.0 * inputs.features["item"].sum() + inputs.sequences["history"].events.sum()
    loss.backward()
    narrow, wide = lookups
    assert all(one.vectors.is_leaf and one.vectors.requires_grad for one in lookups)
    assert wide.vectors.grad is None  # `user` took no part
    assert narrow.vectors.grad is not None
    rows, gradient = sum_by_id(narrow.rows, narrow.vectors.grad)
    item = {int(row) - 3: g[0].item() for row, g in zip(rows, gradient, strict=True) if g.any()}
    # Twice 3 for the item 5 of two rows, and 1 for each event: 2, 0 and 5.
    assert item == {0: 1.0, 2: 3.0 + 1.0, 5: 6.0 + 1.0}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_nothing_requires_them(
    embedder: Embedder, tiny_batch: Batch, mode: type[torch.no_grad]
) -> None:
    with mode():
        inputs, lookups = embedder(tiny_batch)
    assert not any(one.vectors.requires_grad for one in lookups)
    assert not any(value.requires_grad for value in inputs.features.values())


class _Largest(TorchDispatchMode):
    """Keeps the size of the largest new tensor that any operation gave."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            sizes = [one.numel() for one in tree_leaves(result) if isinstance(one, Tensor)]
            self.numel = max([self.numel, *sizes])
        return result


def test_no_dense_gradient_of_a_table_ever_appears(generator: torch.Generator) -> None:
    tables = FusedTables({"a": 50_000, "b": 50_000}, 2, init_std={}, generator=generator)
    ids = {"a": torch.tensor([1, 49_999]), "b": torch.tensor([0])}
    with _Largest() as seen:
        lookup = tables.look_up(ids, {"a": "a", "b": "b"})
        lookup.vectors.square().sum().backward()
    assert lookup.rows.tolist() == [1, 49_999, 50_000]
    assert seen.numel == 6
