from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rankloom.data.batch import Batch, Events, Jagged
from rankloom.data.statistics import Moments, Quantiles
from rankloom.embedding import Embedder, EmbeddingConfig, TableConfig
from rankloom.errors import SchemaError
from rankloom.schema import (
    DenseFeature,
    LinearEncoding,
    LogEncoding,
    QuantileEncoding,
    Rate,
    Schema,
    SequenceColumn,
    SequenceFeature,
    SparseFeature,
    VectorFeature,
)

SIZES = {"user": 4, "hour": 3, "item": 6, "tags": 5}


def make(schema: Schema, sizes: Mapping[str, int] = SIZES, **options: Any) -> Embedder:
    """Make an embedder whose table rows are readable: table t holds 100 t + 10 row + column."""
    config = options.pop("config", EmbeddingConfig(embedding_dim=2))
    statistics = options.pop("statistics", {})
    generator = torch.Generator().manual_seed(0)
    embedder = Embedder(schema, sizes, statistics, config, generator=generator, **options)
    for number, (_, table) in enumerate(sorted(embedder.tables().items())):
        rows, width = table.shape
        ids, columns = torch.arange(rows)[:, None], torch.arange(width)
        table.copy_(100.0 * number + 10 * ids + columns)
    return embedder


def at(table: int, row: int) -> list[float]:
    return [100.0 * table + 10 * row, 100.0 * table + 10 * row + 1]


HOUR, ITEM, TAGS, USER = range(4)  # tables in the order of their names, as `make` numbers them


def test_looks_up_single_ids_at_requests_and_at_rows(
    tiny_schema: Schema, tiny_batch: Batch
) -> None:
    features = make(tiny_schema)(tiny_batch).inputs.features
    assert features["user"].tolist() == [at(USER, 1), at(USER, 3)]
    assert features["hour"].tolist() == [at(HOUR, 0), at(HOUR, 2)]
    assert features["item"].tolist() == [at(ITEM, 5), at(ITEM, 2), at(ITEM, 5)]
    assert list(features) == ["user", "hour", "item", "tags", "price"]


def test_places_come_from_the_batch(tiny_schema: Schema, tiny_batch: Batch) -> None:
    inputs = make(tiny_schema, ids=("item",))(tiny_batch.with_slots()).inputs
    assert inputs.request_index.tolist() == [0, 0, 1]
    assert inputs.slots is not None
    assert inputs.slots.tolist() == [[0, 1], [2, 3]]
    assert {name: value.tolist() for name, value in inputs.ids.items()} == {"item": [5, 2, 5]}


def bag(weights: list[float] | None) -> Batch:
    tags = Jagged(
        values=torch.tensor([1, 4, 2]),
        offsets=torch.tensor([0, 2, 2, 3]),
        weights=None if weights is None else torch.tensor(weights),
    )
    return Batch(
        ids={"tags": tags},
        numbers={},
        vectors={},
        sequences={},
        request_index=torch.arange(3),
        num_requests=3,
    )


@pytest.mark.parametrize(
    ("pooling", "weights", "expected"),
    [
        ("sum", None, [[50.0, 52.0], [0.0, 0.0], [20.0, 21.0]]),
        ("mean", None, [[25.0, 26.0], [0.0, 0.0], [20.0, 21.0]]),
        ("sum", [2.0, 0.5, 3.0], [[40.0, 42.5], [0.0, 0.0], [60.0, 63.0]]),
        ("mean", [2.0, 0.5, 3.0], [[20.0, 21.25], [0.0, 0.0], [60.0, 63.0]]),
    ],
)
def test_pools_several_ids(
    pooling: Any, weights: list[float] | None, expected: list[list[float]]
) -> None:
    name = None if weights is None else "w"
    tags = SparseFeature(side="item", num_embeddings=5, pooling=pooling, weights=name)
    features = make(Schema({"tags": tags}), {"tags": 5})(bag(weights)).inputs.features
    assert features["tags"].tolist() == expected


def test_a_batch_of_empty_bags_is_zero(tiny_schema: Schema, tiny_batch: Batch) -> None:
    none = Jagged(values=torch.tensor([], dtype=torch.int64), offsets=torch.zeros(4).long())
    batch = replace(tiny_batch, ids={**tiny_batch.ids, "tags": none})
    assert make(tiny_schema)(batch).inputs.features["tags"].tolist() == [[0.0, 0.0]] * 3


def test_histories_are_padded_on_the_left(tiny_schema: Schema, tiny_batch: Batch) -> None:
    embedder = make(tiny_schema, length_multiple={"history": 4})
    history = embedder(tiny_batch).inputs.sequences["history"]
    padding = [0.0, 0.0]
    assert history.events.tolist() == [
        [padding, at(ITEM, 2), at(ITEM, 0), at(ITEM, 5)],
        [padding] * 4,
    ]
    assert history.mask.tolist() == [[False, True, True, True], [False] * 4]
    assert history.times == {}


@pytest.mark.parametrize(("longest", "length"), [(0, 4), (1, 4), (4, 4), (5, 8)])
def test_the_padded_length_is_a_multiple(
    tiny_schema: Schema, tiny_batch: Batch, longest: int, length: int
) -> None:
    events = Events(
        columns={"item": torch.arange(longest)},
        offsets=torch.tensor([0, 0, longest]),
        first_event=torch.zeros(2).long(),
    )
    embedder = make(tiny_schema, length_multiple={"history": 4})
    history = embedder(replace(tiny_batch, sequences={"history": events})).inputs.sequences
    assert history["history"].events.shape == (2, length, 2)
    assert history["history"].mask.sum(dim=1).tolist() == [0, longest]


def timed(count: int) -> tuple[Schema, Batch]:
    columns = {"item": SequenceColumn(num_embeddings=6), "star": SequenceColumn(num_embeddings=6)}
    schema = Schema({"seen": SequenceFeature(side="user", columns=columns, time="at")})
    events = Events(
        columns={"item": torch.tensor([1, 2, 3])[:count], "star": torch.tensor([4, 5, 0])[:count]},
        offsets=torch.tensor([0, 1, count]),
        first_event=torch.zeros(2).long(),
        times={
            "gap_previous": torch.tensor([0.0, 0.0, 60.0])[:count],
            "gap_newest": torch.tensor([0.0, 60.0, 0.0])[:count],
            "age_newest": torch.tensor([7.0, 8.0]),
        },
    )
    return schema, Batch(
        ids={},
        numbers={},
        vectors={},
        sequences={"seen": events},
        request_index=torch.arange(2),
        num_requests=2,
    )


def test_columns_stand_side_by_side_and_times_stand_with_their_events() -> None:
    schema, batch = timed(3)
    sizes = {"seen.item": 6, "seen.star": 6}
    embedder = make(schema, sizes, length_multiple={"seen": 2})
    history = embedder(batch).inputs.sequences["seen"]
    padding = [0.0] * 4
    assert history.events.tolist() == [
        [padding, [10.0, 11.0, 140.0, 141.0]],
        [[20.0, 21.0, 150.0, 151.0], [30.0, 31.0, 100.0, 101.0]],
    ]
    assert history.times["gap_previous"].tolist() == [[0.0, 0.0], [0.0, 60.0]]
    assert history.times["gap_newest"].tolist() == [[0.0, 0.0], [60.0, 0.0]]
    assert history.times["age_newest"].tolist() == [7.0, 8.0]


def test_as_many_events_as_requests_are_no_mistake() -> None:
    schema, batch = timed(2)
    history = make(schema, {"seen.item": 6, "seen.star": 6})(batch).inputs.sequences["seen"]
    assert history.times["gap_newest"].shape == (2, 8)
    assert history.times["gap_newest"][1, -1] == 60.0
    assert history.times["age_newest"].shape == (2,)


def numbers(feature: DenseFeature, values: list[float], statistics: Any = None) -> Tensor:
    count = len(values)
    batch = Batch(
        ids={},
        numbers={"x": torch.tensor(values)},
        vectors={},
        sequences={},
        request_index=torch.arange(count),
        num_requests=count,
    )
    embedder = make(Schema({"x": feature}), {}, statistics={"x": statistics} if statistics else {})
    return embedder(batch).inputs.features["x"]


def test_encodes_numbers() -> None:
    linear = DenseFeature(side="item")
    plain = DenseFeature(side="item", encode=LinearEncoding(standardize=False))
    log = DenseFeature(side="item", encode=LogEncoding())
    moments = Moments(mean=2.0, deviation=4.0)
    assert numbers(linear, [2.0, 6.0, 0.0], moments).tolist() == [[0.0], [1.0], [-0.5]]
    assert numbers(plain, [2.0, -6.0]).tolist() == [[2.0], [-6.0]]
    # e - 1 and 1 - e: log(1 + |x|) is 1, with the number's sign.
    x = 1.718281828
    torch.testing.assert_close(numbers(log, [x, -x, 0.0]), torch.tensor([[1.0], [-1.0], [0.0]]))


def test_quantiles_have_a_row_for_missing_and_one_per_bucket() -> None:
    feature = DenseFeature(side="item", encode=QuantileEncoding(num_buckets=3))
    values = [float("nan"), -5.0, 0.99, 1.0, 3.9, 4.0, 1e9]
    found = numbers(feature, values, Quantiles((1.0, 4.0)))
    assert found[:, 0].tolist() == [0.0, 10.0, 10.0, 20.0, 20.0, 30.0, 30.0]


@pytest.mark.parametrize("encode", [LinearEncoding(), QuantileEncoding()])
def test_an_encoding_without_its_statistics_is_refused(encode: Any) -> None:
    with pytest.raises(SchemaError, match=r"^schema\.x\.encode: needs statistics"):
        numbers(DenseFeature(side="item", encode=encode), [1.0])


def test_vectors_pass_through() -> None:
    vector = torch.tensor([[1.0, 2.0, 3.0]])
    batch = Batch(
        ids={},
        numbers={},
        vectors={"image": vector},
        sequences={},
        request_index=torch.tensor([0]),
        num_requests=1,
    )
    schema = Schema({"image": VectorFeature(side="item", dim=3)})
    assert make(schema, {})(batch).inputs.features["image"] is vector


def test_an_embedding_set_has_tables_of_its_own(tiny_schema: Schema, tiny_batch: Batch) -> None:
    embedder = make(tiny_schema, sets={"fm": 1})
    features = embedder(tiny_batch).inputs.features
    # Each sparse feature has one more vector; numbers and histories have none.
    assert [name for name in features if "@" in name] == [
        "user@fm",
        "hour@fm",
        "item@fm",
        "tags@fm",
    ]
    table = embedder.tables()["item@fm"]
    assert features["item@fm"].tolist() == table[[5, 2, 5]].tolist()
    assert embedder.tables()["item"].shape == (6, 2)
    assert table.shape == (6, 1)


def test_a_set_leaves_tables_of_sequences_alone() -> None:
    columns = {"item": SequenceColumn(table="item"), "star": SequenceColumn(num_embeddings=6)}
    schema = Schema(
        {
            "seen": SequenceFeature(side="user", columns=columns),
            "item": SparseFeature(side="item", num_embeddings=6),
        }
    )
    embedder = make(schema, {"item": 6, "seen.star": 6}, sets={"fm": 3})
    assert sorted(embedder.tables()) == ["item", "item@fm", "seen.star"]


def test_a_sequence_and_a_feature_share_a_table(tiny_schema: Schema, tiny_batch: Batch) -> None:
    embedder = make(tiny_schema)
    embedder.tables()["item"][5] = 7.0
    inputs = embedder(tiny_batch).inputs
    assert inputs.features["item"][0].tolist() == [7.0, 7.0]
    assert inputs.sequences["history"].events[0, -1].tolist() == [7.0, 7.0]


def test_the_layout_is_what_forward_gives(tiny_schema: Schema, tiny_batch: Batch) -> None:
    config = EmbeddingConfig(embedding_dim=2, tables={"item": TableConfig(embedding_dim=3)})
    embedder = make(tiny_schema, config=config, sets={"fm": 1})
    layout, inputs = embedder.layout(), embedder(tiny_batch).inputs
    assert {name: one.width for name, one in layout.features.items()} == {
        name: value.shape[1] for name, value in inputs.features.items()
    }
    assert list(layout.features) == list(inputs.features)
    assert layout.features["item"].rate is Rate.CANDIDATE
    assert layout.features["hour"].rate is Rate.REQUEST
    assert layout.sequences["history"].width == inputs.sequences["history"].events.shape[2] == 3
    assert layout.sequences["history"].candidate == {"item": "item"}
    assert layout.tables["item"] == (6, 3)
    assert layout.tables["item@fm"] == (6, 1)


def test_an_unknown_table_names_the_nearest(tiny_schema: Schema) -> None:
    config = EmbeddingConfig(tables={"itme": TableConfig(), "zzz": TableConfig()})
    with pytest.raises(SchemaError) as caught:
        make(tiny_schema, config=config)
    assert [line.strip() for line in str(caught.value).splitlines()] == [
        "run file has 2 mistakes:",
        "model.embedding.tables.itme: no feature has a table of this name. Did you mean 'item'?",
        "model.embedding.tables.zzz: no feature has a table of this name.",
    ]


@pytest.mark.parametrize("name", ["items", "type", "training", "forward", "weight"])
def test_a_feature_may_be_called_anything(name: str) -> None:
    features = {name: DenseFeature(side="item"), f"{name}_id": VectorFeature(side="item", dim=1)}
    embedder = make(Schema(features), {}, statistics={name: Moments(0.0, 1.0)})
    assert list(embedder.layout().features) == list(features)


def test_the_seed_alone_decides_the_values_and_the_deviation_scales_them(
    tiny_schema: Schema,
) -> None:
    def tables(seed: int, **options: Any) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        config = EmbeddingConfig(embedding_dim=4, **options)
        sizes = {**SIZES, "item": 2000}
        return Embedder(tiny_schema, sizes, {}, config, generator=generator).tables()

    first, again, other = tables(1), tables(1), tables(2)
    assert torch.equal(first["item"], again["item"])
    assert not torch.equal(first["item"], other["item"])
    own = tables(1, tables={"item": TableConfig(init_std=0.5)})
    # 8000 draws: the sample deviation lies within 4 % of the true one (5 standard errors).
    assert own["item"].std().item() == pytest.approx(0.5, rel=0.04)
    assert first["item"].std().item() == pytest.approx(0.01, rel=0.04)
