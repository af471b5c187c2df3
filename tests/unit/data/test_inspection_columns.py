from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from rankloom.data.inspection import profile as profile_module
from rankloom.data.inspection.coded import NULL_HASH, Coded, combine, hash_lists
from rankloom.data.inspection.names import hint, identifier, is_history_name, is_same_name, words
from rankloom.data.inspection.profile import ColumnProfile


def summary_of(array: pa.Array, chunks: int = 2):
    profile = ColumnProfile("x", array.type)
    for at in range(chunks):
        part = array.slice(at * len(array) // chunks, len(array) // chunks)
        profile.add(Coded.of(part))
    return profile.summary()


@pytest.mark.parametrize(
    "values",
    [
        pa.array([3, None, 3, 1], pa.int16()),
        pa.array(["b", None, "b", "a"]),
        pa.array([2.5, None, 2.5, -0.0]),
        pa.array([True, None, True, False]),
        pa.array(["b", None, "b", "a"]).dictionary_encode(),
        pa.array([dt.date(2020, 1, 2), None, dt.date(2020, 1, 2), None]),
    ],
)
def test_equal_values_have_equal_hashes(values):
    hashes = Coded.of(values).row_hashes()
    assert hashes[0] == hashes[2]
    assert hashes[1] == NULL_HASH
    assert len(set(hashes[:2].tolist())) == 2


def test_numbers_hash_alike_in_every_chunk_and_width():
    one = Coded.of(pa.array([7, 8], pa.int8())).row_hashes()
    other = Coded.of(pa.array([8, 9, 7], pa.int64())).row_hashes()
    assert one.tolist() == other[[2, 0]].tolist()
    zeros = Coded.of(pa.array([0.0, -0.0])).row_hashes()
    assert zeros[0] == zeros[1]


def test_numbers_of_values():
    coded = Coded.of(pa.array([2, None, 5]))
    np.testing.assert_array_equal(coded.row_numbers(), [2, np.nan, 5])
    np.testing.assert_array_equal(coded.row_numbers(np.array([2, 0])), [5, 2])
    assert np.isnan(Coded.of(pa.array(["a"])).row_numbers()).all()


def test_lists_differ_by_values_order_and_length():
    lists = pa.array([[1, 2], [2, 1], [1], [1, 2], [], None, [1, 1]])
    hashes = hash_lists(lists).tolist()
    assert hashes[0] == hashes[3]
    assert hashes[4] == hashes[5]  # a null list is an empty one
    assert len(set(hashes)) == 5


def test_combined_hashes_depend_on_the_column():
    one, other = np.array([1, 2], np.uint64), np.array([2, 1], np.uint64)
    assert combine([one, other])[0] != combine([one, other])[1]


def test_a_profile_counts():
    found = summary_of(pa.array([1.0, None, float("nan"), 4.0, float("inf"), 1.0, 1.0, -3.0]))
    assert (found.num_values, found.num_nulls, found.num_nan, found.num_infinite) == (8, 1, 1, 1)
    assert (found.low, found.high) == (-3, 4)
    assert found.frequent[0] == (1.0, 3)
    assert found.null_share == 0.25
    assert not found.is_constant


def test_a_profile_of_texts_and_of_nothing():
    texts = summary_of(pa.array(["a", "b", "a", "a"]))
    assert (texts.distinct, texts.low, texts.frequent) == (2, None, (("a", 3), ("b", 1)))
    assert texts.rarest == 1
    assert summary_of(pa.array([None, None], pa.int64())).is_all_null
    assert summary_of(pa.array([5, 5])).is_constant


def test_lists_beyond_the_limit_still_give_extremes(monkeypatch):
    monkeypatch.setattr(profile_module, "MAX_LIST_VALUES", 2)
    profile = ColumnProfile("x", pa.list_(pa.int64()))
    profile.add_lists(pa.array([[1, 2], [900, -4], [], None]))
    found = profile.summary()
    assert (found.low, found.high) == (-4, 900)
    assert (found.mean_length, found.max_length) == (1.0, 2)
    assert not found.is_exact


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("oracle_click", "oracle"),
        ("userId", "user"),
        ("uid", "user"),
        ("item_id", "item"),
        ("adgroup_id", "item"),
        ("article_id", "item"),
        ("request_id", "request"),
        ("session_id", "request"),
        ("timestamp", "time"),
        ("event_time", "time"),
        ("position", "position"),
        ("is_click", "label"),
        ("long_view", "label"),
        ("rating", "rating"),
        ("watch_time", "outcome"),
        ("watch_s", "outcome"),
        ("play_time_ms", "outcome"),
        ("conversion_time", "outcome"),
        ("click_timestamp", "outcome"),
        ("instance weight", "weight"),
        ("hour", "moment"),
        ("wage per hour", None),
        ("category_id", "id"),
        ("price", "number"),
        ("num_clicks", "number"),
        ("x7", None),
    ],
)
def test_what_names_mean(name, meaning):
    assert hint(name) == meaning


def test_words_of_names():
    assert words("historyItemIds_2") == ("history", "item", "ids", "2")
    assert is_history_name("user_hist_items")
    assert not is_history_name("histogram")
    assert identifier("own business / self-employed") == "own_business_self_employed"
    assert is_same_name("history_item_id", "item_id")
    assert not is_same_name("history_creator", "item_id")
