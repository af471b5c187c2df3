"""What single requests may hold beside plain values: arrays of all kinds, and more than is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from rankloom.data.batch import Jagged
from rankloom.data.key_index import build_key_index
from rankloom.data.plan import Decoder, decode_table
from rankloom.data.request import RequestDecoder
from rankloom.data.texts import Texts
from rankloom.data.transforms import Transforms
from rankloom.schema import (
    DenseFeature,
    Roles,
    Schema,
    SequenceColumn,
    SequenceFeature,
    SparseFeature,
    VectorFeature,
    VocabularyConfig,
)

COUNTED = VocabularyConfig()
INDEXES = {"place": build_key_index(np.array([1, 2]))}


def decoder(*, event_time: str | None = None, **features: Any) -> RequestDecoder:
    return RequestDecoder(Schema(features, roles=Roles(event_time=event_time)), INDEXES)


ROW = SparseFeature(side="item", num_embeddings=10)
NUMBER = DenseFeature(side="item")


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64])
def test_ids_of_any_width_are_int64_and_copied(kind):
    given = np.array([3, 9], kind)
    ids = decoder(item=ROW).decode({}, {"item": given}).ids["item"]
    given[0] = 0
    assert isinstance(ids, Tensor)
    assert ids.dtype == torch.int64
    assert ids.tolist() == [3, 9]


def test_arrays_of_two_dimensions_are_lists():
    tags = SparseFeature(side="item", num_embeddings=10, pooling="sum")
    image = VectorFeature(side="item", dim=2)
    images = np.array([[0.5, 1.0], [2.0, 3.0], [4.0, 5.0]], np.float32)
    batch = decoder(tags=tags, image=image).decode(
        {}, {"tags": np.array([[1, 2], [3, 4], [5, 6]]), "image": images}
    )
    found = batch.ids["tags"]
    assert isinstance(found, Jagged)
    assert found.values.tolist() == [1, 2, 3, 4, 5, 6]
    assert found.offsets.tolist() == [0, 2, 4, 6]
    assert batch.vectors["image"].tolist() == images.tolist()
    images[:] = 0
    assert batch.vectors["image"].max() == 5.0


def test_whole_numbers_are_rounded_once():
    # float64 would drop the last 1 and leave a tie, which goes down to 2**60.
    number = 2**60 + 2**36 + 1
    for given in ([number], np.array([number])):
        found = decoder(price=NUMBER).decode({}, {"price": given}).numbers["price"]
        assert found.tolist() == [2.0**60 + 2.0**37]


@pytest.mark.parametrize("given", [[2**64 - 1, -2, 2**63], np.array([-1, 2**64 - 2, 2**63], "O")])
def test_hashed_ids_may_be_unsigned(given):
    shop = SparseFeature(side="item", hash_buckets=10**9)
    found = decoder(shop=shop).decode({}, {"shop": given}).ids["shop"]
    # The same 64 bits have the same bucket.
    signed = decoder(shop=shop).decode({}, {"shop": [-1, -2, -(2**63)]}).ids["shop"]
    log = Decoder(Schema({"shop": shop}), Transforms(), layout="grouped", with_labels=False)
    kind = pa.list_(pa.uint64())
    line = pa.table({"shop": pa.array([[2**64 - 1, 2**64 - 2, 2**63]], kind)})
    expected = decode_table(line, log).ids["shop"]
    assert torch.equal(found, signed)  # type: ignore[arg-type]
    assert torch.equal(found, expected)  # type: ignore[arg-type]


def test_a_masked_value_is_null():
    given = {
        "place": np.ma.array([1, 2], mask=[False, True]),
        "price": np.ma.array([1.5, 2.5], mask=[True, False]),
    }
    place = SparseFeature(side="item", vocabulary=COUNTED)
    price = DenseFeature(side="item", default=0.5)
    batch = decoder(place=place, price=price).decode({}, given)
    assert batch.ids["place"].tolist() == [2, 0]  # type: ignore[union-attr]
    assert batch.numbers["price"].tolist() == [0.5, 2.5]


def test_a_vocabulary_of_nothing_takes_any_id():
    index = {"item": build_key_index(Texts.of([]))}
    schema = Schema({"item": SparseFeature(side="item", vocabulary=COUNTED)})
    for given in ([1, None], ["a", None]):
        ids = RequestDecoder(schema, index).decode({}, {"item": given}).ids["item"]
        assert ids.tolist() == [1, 0]  # type: ignore[union-attr]


def test_what_no_feature_reads_is_ignored():
    given = {"item": [3, 5], "note": "a text", "other": [1]}
    batch = decoder(item=ROW).decode({"x": object()}, given, {"y": [1]})
    assert batch.ids["item"].tolist() == [3, 5]  # type: ignore[union-attr]


def test_candidates_are_counted_where_nothing_is_read_of_them():
    hour = decoder(hour=SparseFeature(side="context", num_embeddings=24))
    batch = hour.decode({}, {"anything": ["a", "b"]}, {"hour": 3})
    assert batch.request_index.tolist() == [0, 0]
    assert hour.decode({}, [{"anything": 1}], {"hour": 3}).num_rows == 1


def test_the_event_time_may_stand_with_the_user():
    seen = SequenceFeature(
        side="user", columns={"item": SequenceColumn(num_embeddings=9)}, time="at"
    )
    reader = decoder(seen=seen, item=ROW, event_time="now")
    user = {"seen_item": [1, 2], "at": [5, 7]}
    for where in ({"now": 10}, {"now": 10, "item": 3}):
        in_context = reader.decode(user, {"item": [1]}, where).sequences["seen"].times
        with_user = reader.decode({**user, **where}, {"item": [1]}).sequences["seen"].times
        assert in_context["age_newest"].tolist() == with_user["age_newest"].tolist() == [3.0]
