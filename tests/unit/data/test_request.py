"""Single requests of plain values against the reader's path, which decodes Arrow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from torch import Tensor

from rankloom.data.batch import Batch, join_batches
from rankloom.data.plan import Decoder, decode_table
from rankloom.data.request import RequestDecoder
from rankloom.data.statistics import Moments, Quantiles
from rankloom.data.transforms import Transforms
from rankloom.data.vocabulary import Vocabulary
from rankloom.schema import (
    DenseFeature,
    LogEncoding,
    QuantileEncoding,
    Roles,
    Schema,
    SequenceColumn,
    SequenceFeature,
    SparseFeature,
    VectorFeature,
    VocabularyConfig,
)

COUNTED = VocabularyConfig()
WORDS = ["", "a", "b\0", "Zürich", "a text of thirty bytes or more", "東京", "b"]
SCHEMA = Schema(
    {
        "user_id": SparseFeature(side="user", vocabulary=COUNTED),
        "city": SparseFeature(side="user", vocabulary=COUNTED, default="b"),
        "age": DenseFeature(side="user", default=30.1),
        "clicks": DenseFeature(side="user", encode=LogEncoding()),
        "profile": VectorFeature(side="user", dim=3, default="zeros"),
        "interests": SparseFeature(side="user", table="city", pooling="mean", weights="strength"),
        "device": SparseFeature(side="context", hash_buckets=7),
        "hour": SparseFeature(side="context", num_embeddings=24, default=5),
        "budget": DenseFeature(side="context", encode=QuantileEncoding()),
        "item_id": SparseFeature(side="item", num_embeddings=50),
        "brand": SparseFeature(side="item", vocabulary=COUNTED),
        "shop": SparseFeature(side="item", hash_buckets=1000),
        "maker": SparseFeature(side="item", hash_buckets=9, default="b"),
        "tags": SparseFeature(side="item", hash_buckets=11, pooling="sum"),
        "topics": SparseFeature(
            side="item", num_embeddings=20, default=19, pooling="sum", weights="topic_weights"
        ),
        "price": DenseFeature(side="item", encode=LogEncoding(), default=-1.0),
        "image": VectorFeature(side="item", dim=2, default="zeros"),
        "place": SparseFeature(side="cross", vocabulary=COUNTED),
        "discount": DenseFeature(side="cross", encode=QuantileEncoding()),
        "seen": SequenceFeature(
            side="user",
            columns={
                "item": SequenceColumn(table="item_id"),
                "shop": SequenceColumn(table="shop", column="shops"),
                "brand": SequenceColumn(table="brand", default="a"),
            },
            max_length=4,
            time="seen_at",
            first_event="first_seen",
        ),
        "searches": SequenceFeature(
            side="context", columns={"word": SequenceColumn(vocabulary=COUNTED)}, max_length=100
        ),
    },
    roles=Roles(event_time="now"),
)


def vocabulary(*keys: int | str) -> Vocabulary:
    return Vocabulary(pa.array(keys), np.ones(len(keys), np.int64))


VOCABULARIES = {
    "user_id": vocabulary(7, -3, 10**15, 12),
    "city": vocabulary("b", "Zürich", "", "a"),
    "brand": vocabulary(*WORDS[1:]),
    "place": vocabulary(1, 2, 3),
    "searches.word": vocabulary("a", "東京"),
}
TRANSFORMS = Transforms(
    VOCABULARIES,
    {
        "age": Moments(0.0, 1.0),
        "budget": Quantiles((1.0,)),
        "discount": Quantiles((1.0,)),
    },
)
DECODER = RequestDecoder(SCHEMA, {name: one.index for name, one in VOCABULARIES.items()})
LOG_DECODER = Decoder(SCHEMA, TRANSFORMS, layout="grouped", with_labels=False)

INT, TEXT, FLOAT = pa.int64(), pa.string(), pa.float64()
KINDS_OF_REQUEST = {
    "user_id": INT,
    "city": TEXT,
    "age": FLOAT,
    "clicks": INT,
    "profile": pa.list_(FLOAT),
    "interests": pa.list_(TEXT),
    "strength": pa.list_(FLOAT),
    "device": TEXT,
    "hour": INT,
    "budget": FLOAT,
    "now": INT,
    "seen_item": pa.list_(INT),
    "shops": pa.list_(INT),
    "seen_brand": pa.list_(TEXT),
    "seen_at": pa.list_(INT),
    "first_seen": INT,
    "searches_word": pa.list_(TEXT),
}
KINDS_OF_CANDIDATES = {
    "item_id": INT,
    "brand": TEXT,
    "shop": INT,
    "maker": TEXT,
    "tags": pa.list_(INT),
    "topics": pa.list_(INT),
    "topic_weights": pa.list_(FLOAT),
    "price": FLOAT,
    "image": pa.list_(FLOAT),
    "place": INT,
    "discount": FLOAT,
}
PLACES = {
    "user": set(KINDS_OF_REQUEST) - {"device", "hour", "budget", "now", "searches_word"},
    "context": {"device", "hour", "budget", "now", "searches_word"},
}


class Values:
    """Draws values, nulls among them."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def or_null(self, value: Any) -> Any:
        return None if self.rng.random() < 0.2 else value

    def whole(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high))

    def word(self) -> str | None:
        return self.or_null(self.rng.choice(WORDS).item())

    def number(self) -> float:
        return float(self.rng.normal() * 10.0 ** self.rng.integers(-6, 7))

    def number_or_missing(self) -> float | None:
        return self.or_null(float("nan") if self.rng.random() < 0.2 else self.number())

    def big(self) -> int:
        return int(self.rng.integers(-(2**63), 2**63 - 1))

    def many(self, draw: Any, length: int) -> list[Any]:
        return [draw() for _ in range(length)]

    def user(self) -> dict[str, Any]:
        known = [7, -3, 10**15, 12, 99]
        listed = self.whole(0, 4)
        given = {
            "user_id": self.or_null(int(self.rng.choice(known))),
            "city": self.word(),
            "age": self.number_or_missing(),
            "clicks": self.big(),
            "profile": self.or_null(self.many(self.number, 3)),
            "interests": self.many(self.word, listed),
            "strength": self.many(self.number_or_missing, listed),
            **self.history(),
        }
        if self.rng.random() < 0.2:
            given |= {"interests": None, "strength": None}
        return given

    def history(self) -> dict[str, Any]:
        length = self.whole(0, 9)
        names = ("seen_item", "shops", "seen_brand", "seen_at")
        if length == 0 and self.rng.random() < 0.5:
            return {**dict.fromkeys(names), "first_seen": 3}
        items: list[int | None] = self.many(lambda: self.whole(0, 50), length)
        # What is dropped is not looked at.
        items[:-4] = [self.or_null(1000) for _ in items[:-4]]
        return {
            "seen_item": items,
            "shops": self.many(lambda: self.or_null(self.big()), length),
            "seen_brand": self.many(self.word, length),
            "seen_at": sorted(self.many(lambda: self.whole(0, 2**31), length)),
            "first_seen": self.whole(0, 100),
        }

    def context(self) -> dict[str, Any]:
        return {
            "device": self.word(),
            "hour": self.or_null(self.whole(0, 24)),
            "budget": self.number_or_missing(),
            "now": self.whole(0, 2**31),
            "searches_word": self.or_null(self.many(self.word, self.whole(0, 3))),
        }

    def candidate(self) -> dict[str, Any]:
        listed = self.whole(0, 3)
        given = {
            "item_id": self.whole(0, 50),
            "brand": self.word(),
            "shop": self.or_null(self.big()),
            "maker": self.word(),
            "tags": self.or_null(self.many(lambda: self.or_null(self.big()), listed)),
            "topics": self.many(lambda: self.or_null(self.whole(0, 20)), listed),
            "topic_weights": self.many(self.number_or_missing, listed),
            "price": self.number_or_missing(),
            "image": self.or_null(self.many(self.number, 2)),
            "place": self.or_null(self.whole(0, 5)),
            "discount": self.number_or_missing(),
        }
        if self.rng.random() < 0.2:
            given |= {"topics": None, "topic_weights": None}
        return given

    def request(self) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
        return self.user(), self.many(self.candidate, self.whole(1, 6)), self.context()


def columns_of(candidates: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [one[name] for one in candidates] for name in KINDS_OF_CANDIDATES}


def log_of(requests: list[tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]]) -> pa.Table:
    """Give a grouped log with a line for each request."""
    kinds = {**KINDS_OF_REQUEST, **{n: pa.list_(k) for n, k in KINDS_OF_CANDIDATES.items()}}
    lines = [{**user, **columns_of(rows), **context} for user, rows, context in requests]
    return pa.Table.from_pylist(lines, schema=pa.schema(kinds))


def tensors_of(value: Any, path: str = "") -> dict[str, Tensor | int | None]:
    """List all that a batch holds, in order."""
    if isinstance(value, Tensor | int) or value is None:
        return {path: value}
    parts = value if isinstance(value, dict) else vars(value)
    found: dict[str, Tensor | int | None] = {}
    for name, part in parts.items():
        found |= tensors_of(part, f"{path}/{name}")
    return found


def assert_same(given: Batch, expected: Batch) -> None:
    found, wanted = tensors_of(given), tensors_of(expected)
    assert list(found) == list(wanted)
    for path, tensor in wanted.items():
        other = found[path]
        if not isinstance(tensor, Tensor):
            assert other == tensor, path
            continue
        assert isinstance(other, Tensor)
        assert (other.dtype, other.shape) == (tensor.dtype, tensor.shape), path
        # To the bit, and NaN equals NaN.
        assert np.array_equal(
            other.numpy(), tensor.numpy(), equal_nan=tensor.is_floating_point()
        ), path


@pytest.mark.parametrize("seed", range(60))
def test_a_request_is_what_the_reader_makes_of_its_line(seed):
    user, candidates, context = request = Values(seed).request()
    expected = decode_table(log_of([request]), LOG_DECODER)
    assert_same(DECODER.decode(user, columns_of(candidates), context), expected)
    assert_same(DECODER.decode(user, candidates, context), expected)


def as_array(values: list[Any]) -> Any:
    """Give an array where NumPy has one of such values, and a list of arrays for lists."""
    if any(isinstance(value, list) for value in values):
        return [value if value is None else as_array(value) for value in values]
    if any(isinstance(value, str) for value in values if value is not None):
        # A fixed-width array drops final zeros.
        return np.array(values, object)
    return np.array(values) if None not in values else np.array(values, object)


@pytest.mark.parametrize("seed", range(60))
def test_arrays_give_what_lists_give(seed):
    user, candidates, context = Values(seed).request()
    expected = DECODER.decode(user, candidates, context)
    arrays = {name: as_array(values) for name, values in columns_of(candidates).items()}
    user = {n: as_array(v) if isinstance(v, list) else as_array([v])[0] for n, v in user.items()}
    assert_same(DECODER.decode(user, arrays, context), expected)


@pytest.mark.parametrize("seed", range(10))
def test_joined_requests_are_the_log_of_all(seed):
    values = Values(seed)
    requests = [values.request() for _ in range(4)]
    joined = join_batches([DECODER.decode(*one) for one in requests])
    assert_same(joined, decode_table(log_of(requests), LOG_DECODER))


def test_joining_leaves_slots_out_and_one_batch_as_it_is():
    batch = DECODER.decode(*Values(0).request())
    assert_same(join_batches([batch.with_slots()]), batch)


def test_columns_lists_what_is_read_and_where():
    assert {place: set(names) for place, names in DECODER.columns().items()} == {
        **PLACES,
        "candidates": set(KINDS_OF_CANDIDATES),
    }
