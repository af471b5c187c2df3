"""Arrays, texts and jagged lists in place of Python's lists: the same batch, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rankloom.data.batch import Batch, Events, Jagged
from rankloom.data.key_index import build_key_index
from rankloom.data.plain_lists import Ragged, shown
from rankloom.data.plain_values import PlainColumn
from rankloom.data.request import RequestDecoder
from rankloom.data.texts import Texts
from rankloom.errors import DataError
from rankloom.schema import (
    DenseFeature,
    Schema,
    SequenceColumn,
    SequenceFeature,
    SparseFeature,
    VectorFeature,
    VocabularyConfig,
)

COUNTED = VocabularyConfig()
INDEXES = {
    "place": build_key_index(np.array([4, 7])),
    "word": build_key_index(Texts.of(["a", "Zürich"])),
}


def ragged(lists: list[list[Any]], dtype: Any = None) -> Ragged:
    entries = [one for each in lists for one in each]
    values = Texts.of(entries) if dtype is None else np.array(entries, dtype)
    return Ragged(values, np.cumsum([0, *map(len, lists)]))


def both(feature: Any, as_lists: Any, other: Any) -> tuple[Batch, Batch]:
    """Decode one column of the feature's side twice."""
    decoder = RequestDecoder(Schema({"x": feature, "n": NUMBER}), INDEXES)
    count = len(as_lists) if feature.side == "item" else 1

    def decoded(values: Any) -> Batch:
        candidates = {"n": [0.0] * count}
        if feature.side == "item":
            return decoder.decode({}, {"x": values, **candidates})
        return decoder.decode({"x": values}, candidates)

    return decoded(as_lists), decoded(other)


NUMBER = DenseFeature(side="item")


def assert_same(first: Any, second: Any) -> None:
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype
        assert torch.equal(first, second)
    elif isinstance(first, Jagged):
        assert_same(first.values, second.values)
        assert_same(first.offsets, second.offsets)
    else:
        assert isinstance(first, Events)
        assert_same(first.offsets, second.offsets)
        assert_same(first.first_event, second.first_event)
        for name, column in first.columns.items():
            assert_same(column, second.columns[name])


NUMBERS = [[4, 9], [], [7]]
WORDS = [["a", "x"], [], ["Zürich", "", "a"]]
OF_ROWS = SparseFeature(side="item", num_embeddings=10, pooling="sum")
OF_PLACES = SparseFeature(side="item", table="place", vocabulary=COUNTED, pooling="sum")
HASHED = SparseFeature(side="item", hash_buckets=1000, pooling="mean")
OF_WORDS = SparseFeature(side="item", table="word", vocabulary=COUNTED, pooling="sum")


@pytest.mark.parametrize(
    ("feature", "lists", "other"),
    [
        (OF_ROWS, NUMBERS, ragged(NUMBERS, np.int16)),
        (OF_PLACES, NUMBERS, ragged(NUMBERS, np.int64)),
        (HASHED, NUMBERS, ragged(NUMBERS, np.uint64)),
        (OF_WORDS, WORDS, ragged(WORDS)),
        (HASHED, WORDS, ragged(WORDS)),
        (HASHED, [[], []], ragged([[], []], np.int64)),
    ],
)
def test_jagged_candidates_are_as_their_lists(feature: Any, lists: Any, other: Any) -> None:
    first, second = both(feature, lists, other)
    assert_same(first.ids["x"], second.ids["x"])


def test_vectors_may_be_jagged_if_all_are_as_wide() -> None:
    image = VectorFeature(side="item", dim=2)
    lists = [[0.5, 1.0], [2.0, 3.1]]
    first, second = both(image, lists, ragged(lists, np.float64))
    assert_same(first.vectors["x"], second.vectors["x"])
    with pytest.raises(DataError, match=r"must have 2 numbers. Got \[3.0\] in candidate 1"):
        both(image, lists, ragged([[0.5, 1.0], [3.0]], np.float64))


@pytest.mark.parametrize(
    ("side_feature", "plain", "other"),
    [
        (SparseFeature(side="item", hash_buckets=99), ["a", "é", ""], Texts.of(["a", "é", ""])),
        (
            SparseFeature(side="item", table="word", vocabulary=COUNTED, default="a"),
            ["a", "b"],
            Texts.of(["a", "b"]),
        ),
    ],
)
def test_texts_are_as_their_list(side_feature: Any, plain: Any, other: Any) -> None:
    first, second = both(side_feature, plain, other)
    assert_same(first.ids["x"], second.ids["x"])


def history(max_length: int, table: str) -> SequenceFeature:
    return SequenceFeature(
        side="user",
        columns={"item": SequenceColumn(table=table, column="x")},
        max_length=max_length,
    )


@pytest.mark.parametrize("max_length", [2, 50])
@pytest.mark.parametrize(
    ("plain", "other"),
    [
        ([4, 9, 7, 4], np.array([4, 9, 7, 4], np.int32)),
        ([4, None, 7], np.array([4, None, 7], "O")),
        ([4, None, 7], np.ma.array([4, 0, 7], mask=[False, True, False])),
        ([], np.array([])),
        (["a", "x", "Zürich"], Texts.of(["a", "x", "Zürich"])),
        (["a", "x", "Zürich"], np.array(["a", "x", "Zürich"])),
        ([], Texts.of([])),
    ],
)
def test_a_users_history_is_as_its_list(max_length: int, plain: Any, other: Any) -> None:
    is_text = isinstance(other, Texts) or other.dtype.kind == "U"
    tables = {
        "place": SparseFeature(side="user", table="place", vocabulary=COUNTED),
        "word": SparseFeature(side="user", table="word", vocabulary=COUNTED),
    }
    features = {"x": history(max_length, "word" if is_text else "place"), "n": NUMBER}
    decoder = RequestDecoder(Schema({**tables, **features}), INDEXES)
    rest = {"place": 4, "word": "a"}
    first = decoder.decode({**rest, "x": plain}, {"n": [0.0]})
    second = decoder.decode({**rest, "x": other}, {"n": [0.0]})
    assert_same(first.sequences["x"], second.sequences["x"])


def test_an_array_stays_an_array_when_it_is_opened() -> None:
    given = np.arange(5)
    offsets, entries = PlainColumn("x", [given], "user").lists()
    assert offsets.tolist() == [0, 5]
    assert entries.values is given


@pytest.mark.parametrize(
    ("values", "got"),
    [
        (ragged([[1, 50], [3]], np.int64), "Got 50 in candidate 0."),
        (ragged([["a"], ["b"]]), "Got 'a' in candidate 0 and 1 more"),
        (Texts.of(["a", "b"]), "must be a list. Got 'a' in candidate 0 and 1 more"),
    ],
)
def test_a_wrong_value_is_named_as_in_lists(values: Any, got: str) -> None:
    decoder = RequestDecoder(Schema({"x": OF_ROWS}), {})
    messages = []
    for given in (values, values.tolist()):
        with pytest.raises(DataError) as raised:
            decoder.decode({}, {"x": given})
        messages.append(str(raised.value))
    assert messages[0] == messages[1]
    assert got in messages[0]


def test_jagged_lists_where_one_value_belongs_are_refused_as_lists_are() -> None:
    single = SparseFeature(side="item", num_embeddings=10)
    decoder = RequestDecoder(Schema({"x": single}), {})
    with pytest.raises(DataError, match=r"must be a whole number.*Got \[1, 2\] in candidate 0"):
        decoder.decode({}, {"x": ragged([[1, 2], []], np.int64)})


def test_errors_show_only_the_begin_of_what_is_long() -> None:
    assert shown(np.arange(10**6)) == "[0, 1, 2, 3, 4, 5, ...]"
    assert shown(np.zeros((3, 10**6), np.int8)).startswith("[[0, 0, 0, 0, 0, 0, ...], ")
    assert shown(Texts.of(["a"] * 9)) == "['a', 'a', 'a', 'a', 'a', 'a', ...]"
    assert shown(ragged([[1, 2], []], np.int64)) == "[[1, 2], []]"


def test_texts_are_taken_and_listed() -> None:
    texts = Texts.of(["a", "", "東京", "b"])
    assert texts.tolist() == ["a", "", "東京", "b"]
    assert texts.take(np.array([2, 0, 1])).tolist() == ["東京", "a", ""]
    assert texts[2] == "東京"
