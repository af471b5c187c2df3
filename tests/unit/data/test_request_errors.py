"""What single requests may not hold, and what is said then; nothing but DataError is raised."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rankloom.data.key_index import build_key_index
from rankloom.data.request import RequestDecoder
from rankloom.data.texts import Texts
from rankloom.errors import DataError
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
INDEXES = {"place": build_key_index(np.array([1, 2])), "brand": build_key_index(Texts.of(["a"]))}


def decoder(*, event_time: str | None = None, **features: Any) -> RequestDecoder:
    return RequestDecoder(Schema(features, roles=Roles(event_time=event_time)), INDEXES)


ROW = SparseFeature(side="item", num_embeddings=10)
NUMBER = DenseFeature(side="item")


def refused(reader: RequestDecoder, *request: Any) -> str:
    with pytest.raises(DataError) as error:
        reader.decode(*request)
    return str(error.value)


IN_ROWS = "candidates: column 'x' must be a whole number from 0 to 9. Got {}. Give the row of a"
IN_LOG = "candidates: column 'x' must be {}, as in the training log. Got {}. Cast it."
IN_HASH = (
    "candidates: column 'x' must be a text or a whole number of 64 bits, the same in all values. "
    "Got {}. Cast it."
)


@pytest.mark.parametrize(
    ("given", "got"),
    [
        ([1, 10], "10 in candidate 1"),
        ([-1, 10], "-1 in candidate 0 and 1 more after it"),
        ([1, 2.0], "2.0 in candidate 1"),
        ([True, 1], "True in candidate 0"),
        (["1", "2"], "'1' in candidate 0 and 1 more after it"),
        ([[1], 2], "[1] in candidate 0"),
        ([2**63, 1], "9223372036854775808 in candidate 0"),
        ([10**5000, 1], "a huge number in candidate 0"),
        (np.array([2**63, 1], np.uint64), "9223372036854775808 in candidate 0"),
        (np.array([1, 10]), "10 in candidate 1"),
        (np.array([1.0, np.nan]), "1.0 in candidate 0 and 1 more after it"),
        (np.array([True, False]), "True in candidate 0 and 1 more after it"),
        (np.ones((2, 2), int), "[1, 1] in candidate 0 and 1 more after it"),
    ],
)
def test_a_row_must_be_one_of_the_table(given, got):
    assert IN_ROWS.format(got) in refused(decoder(x=ROW), {}, {"x": given})


def test_a_row_needs_a_value():
    message = refused(decoder(x=ROW), {}, {"x": [1, None]})
    assert message == "candidates: column 'x' has no value. Got null in candidate 1. Give one."


@pytest.mark.parametrize(
    ("table", "given", "kind", "got"),
    [
        ("place", ["1", 2], "a whole number of 64 bits", "'1' in candidate 0"),
        ("place", [1.0, 2], "a whole number of 64 bits", "1.0 in candidate 0"),
        ("place", [None, True], "a whole number of 64 bits", "True in candidate 1"),
        ("place", [1, 2**63], "a whole number of 64 bits", "9223372036854775808 in candidate 1"),
        (
            "place",
            np.array([1, 2**63], np.uint64),
            "a whole number of 64 bits",
            "9223372036854775808 in candidate 1",
        ),
        ("place", [float("nan"), 2], "a whole number of 64 bits", "nan in candidate 0"),
        ("brand", ["a", 2], "a text", "2 in candidate 1"),
        ("brand", [None, b"a"], "a text", "b'a' in candidate 1"),
        ("brand", np.array([1, 2]), "a text", "1 in candidate 0 and 1 more after it"),
    ],
)
def test_an_id_must_be_of_the_kind_of_the_vocabulary(table, given, kind, got):
    feature = SparseFeature(side="item", table=table)
    named = {table: SparseFeature(side="user", vocabulary=COUNTED)}
    reader = decoder(x=feature, **named)
    assert refused(reader, {table: None}, {"x": given}) == IN_LOG.format(kind, got)


@pytest.mark.parametrize(
    ("given", "got"),
    [
        (["a", 1], "1 in candidate 1"),
        ([1, "a"], "'a' in candidate 1"),
        ([None, 1.5], "1.5 in candidate 1"),
        ([2**64, 1], "18446744073709551616 in candidate 0"),
        ([-(2**63) - 1, 1], "-9223372036854775809 in candidate 0"),
        ([np.timedelta64(1, "s"), 1], "datetime.timedelta(seconds=1) in candidate 0"),
        (np.array([1, 2], "m8[ns]"), "1 in candidate 0 and 1 more after it"),
    ],
)
def test_a_hashed_id_must_be_a_text_or_whole(given, got):
    feature = SparseFeature(side="item", hash_buckets=5)
    assert refused(decoder(x=feature), {}, {"x": given}) == IN_HASH.format(got)


def test_half_a_surrogate_pair_is_refused():
    message = refused(
        decoder(x=SparseFeature(side="item", hash_buckets=5)), {}, {"x": ["a", "\ud800"]}
    )
    assert "must be a text that UTF-8 can hold" in message
    assert "Got '\\ud800' in candidate 1." in message


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([1.0, float("nan")], "has no number. Got nan in candidate 1. Give one."),
        ([None, 1.0], "has no number. Got null in candidate 0. Give one."),
        ([1.0, -np.inf], "must be finite (below 3.4e38). Got -inf in candidate 1. Clip it."),
        (np.array([1e39, 1]), "must be finite (below 3.4e38). Got 1e+39 in candidate 0. Clip it."),
        ([1, 10**400], "must be finite (below 3.4e38). Got 1000"),
        ([1.0, 10**5000], "must be finite (below 3.4e38). Got a huge number in candidate 1. Clip"),
        ([1.0, "2"], "must be a number. Got '2' in candidate 1. Cast it."),
        ([1j, 2.0], "must be a number. Got 1j in candidate 0. Cast it."),
        ([[1.0], [2.0, 3.0]], "must be a number. Got [1.0] in candidate 0 and 1 more after it."),
        (np.ones((2, 2)), "must be a number. Got [1.0, 1.0] in candidate 0 and 1 more after it."),
        (np.array([1, 2], "m8[s]"), "must be a number. Got datetime.timedelta(seconds=1) in cand"),
    ],
)
def test_a_number_must_be_one(given, said):
    message = refused(decoder(x=NUMBER), {}, {"x": given})
    assert message.startswith(f"candidates: column 'x' {said}")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([[1.0, 2.0], [1.0]], "must have 2 numbers. Got [1.0] in candidate 1. Give a vector of"),
        (np.ones((2, 3)), "must have 2 numbers. Got [1.0, 1.0, 1.0] in candidate 0 and 1 more"),
        ([None, [1.0, 2.0]], "has no value. Got null in candidate 0. Give a vector."),
        ([[1.0, 2.0], [1.0, None]], "has no number. Got null in candidate 1. Give one."),
        ([1.0, [1.0, 2.0]], "must be a list. Got 1.0 in candidate 0. Give a list of values."),
        (np.ones((2, 2, 2)), "must be a number. Got [1.0, 1.0] in candidate 0 and 3 more after"),
    ],
)
def test_a_vector_must_have_its_width(given, said):
    message = refused(decoder(x=VectorFeature(side="item", dim=2)), {}, {"x": given})
    assert message.startswith(f"candidates: column 'x' {said}")


HISTORY = decoder(
    seen=SequenceFeature(
        side="user",
        columns={
            "item": SequenceColumn(num_embeddings=9),
            "shop": SequenceColumn(hash_buckets=5),
        },
        max_length=2,
        time="at",
        first_event="first",
    ),
    item=ROW,
    event_time="now",
)
USER = {"seen_item": [1, 2, 3], "seen_shop": ["a", "b", "c"], "at": [4, 5, 6], "first": 7}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"at": [4, 3, 6]}, "'at' must not decrease within a history. Got 3. Sort it by time"),
        ({"at": [2**63 - 1, -(2**63), 6]}, "'at' must not decrease within a history. Got -92233"),
        ({"at": [4, 5.0, 6]}, "'at' must be whole seconds. Got 5.0. Give a time, rounded down."),
        ({"at": [4, None, 6]}, "'at' must be whole seconds. Got null. Give a time, rounded down."),
        ({"at": [4, 5]}, "'at' must have lists as long as 'seen_item'. Got 2 entries beside 3."),
        ({"seen_shop": None}, "'seen_shop' must have lists as long as 'seen_item'. Got 0 entries"),
        ({"seen_item": 3}, "'seen_item' must be a list. Got 3. Give a list of values."),
        ({"seen_shop": "abc"}, "'seen_shop' must be a list. Got 'abc'. Give a list of values."),
        ({"seen_item": [1, 2, 9]}, "'seen_item' must be a whole number from 0 to 8. Got 9. Give"),
        ({"seen_shop": ["a", "b", 3]}, "'seen_shop' must be a text or a whole number of 64 bits"),
        ({"first": None}, "'first' must be a whole number. Got null. Give the absolute number of"),
        ({"first": 1.0}, "'first' must be a whole number. Got 1.0. Give the absolute number of"),
        ({"now": "1"}, "'now' must be whole seconds. Got '1'. Give a time, rounded down."),
    ],
)
def test_a_history_must_be_whole(given, said):
    message = refused(HISTORY, {**USER, **given}, {"item": [1]}, {"now": 9})
    assert message.startswith(f"user: column {said}")


def test_weights_must_be_as_many_as_ids():
    tags = SparseFeature(side="item", num_embeddings=9, pooling="sum", weights="w")
    given = {"tags": [[1], [1]], "w": [[1.0], [1.0, 2.0]]}
    assert refused(decoder(tags=tags), {}, given) == (
        "candidates: column 'w' must have lists as long as 'tags'. Got 2 entries beside 1 in "
        "candidate 1. Give one entry of each."
    )


def test_missing_columns_are_all_named():
    message = refused(HISTORY, {"seen_itme": [1], "at": [], 5: 6}, {"itemm": [1]}, {"nowhere": 1})
    assert message.splitlines() == [
        "request has 5 mistakes:",
        *(
            f"  {where}: column {name!r} is missing.{hint} "
            "Give its value, or None where there is none."
            for where, name, hint in [
                ("candidates", "item", " Did you mean 'itemm'?"),
                ("user", "seen_item", " Did you mean 'seen_itme'?"),
                ("user", "seen_shop", ""),
                ("user", "first", ""),
                ("user or context", "now", " Did you mean 'nowhere'?"),
            ]
        ),
    ]


def test_the_candidate_that_lacks_a_column_is_named():
    message = refused(decoder(item=ROW, price=NUMBER), {}, [{"item": 1, "price": 2.0}, {"item": 1}])
    assert message == (
        "candidates: column 'price' is missing in candidate 1. Give its value, or None where "
        "there is none."
    )


@pytest.mark.parametrize("candidates", [[], {"x": []}, {"x": np.array([])}])
def test_there_must_be_a_candidate(candidates):
    assert refused(decoder(x=NUMBER), {}, candidates) == (
        "candidates: their number must be 1 to 1000000. Got 0. Give at least one, or ask several "
        "times."
    )


@pytest.mark.parametrize("given", ["ab", 3, np.array(3), iter([1]), torch.tensor([1]), None, {}])
def test_a_column_of_candidates_must_be_a_list(given):
    message = refused(decoder(x=ROW), {}, {"x": given})
    start = "candidates: column 'x' must be a list of one value for each candidate. Got "
    assert message.startswith(start)
    assert message.endswith(". Give a list.")


def test_columns_of_candidates_must_have_one_length():
    message = refused(decoder(item=ROW, price=NUMBER), {}, {"item": [1, 2], "price": [1.0]})
    assert message == (
        "candidates: all columns must have one length. Got item: 2, price: 1. Give one value for "
        "each candidate."
    )


@pytest.mark.parametrize("candidates", [None, 5, "ab", "", ["a"], [{"x": 1}, None], object()])
def test_arguments_must_be_mappings(candidates):
    message = refused(decoder(x=ROW), [1], candidates, [])
    first, user, context, rows = message.splitlines()
    assert first == "request has 3 mistakes:"
    assert user == "  user: must be a mapping of columns to values. Got [1]. Give a dict."
    assert context == "  context: must be a mapping of columns to values. Got []. Give a dict."
    assert rows.startswith("  candidates: must be a mapping of columns to lists, or a list of map")


def test_all_problems_come_at_once():
    user = {**USER, "at": [3, 2, 1], "first": "a"}
    assert refused(HISTORY, {**user, "seen_shop": 4}, {"item": "ab"}).splitlines() == [
        "request has 2 mistakes:",
        (
            "  candidates: column 'item' must be a list of one value for each candidate. Got 'ab'. "
            "Give a list."
        ),
        "  user or context: column 'now' is missing. Give its value, or None where there is none.",
    ]
    reader = decoder(item=ROW, price=NUMBER, age=DenseFeature(side="user"))
    message = refused(reader, {"age": "old"}, {"item": [1, 99], "price": [1.0, None]})
    assert [line.split("'")[1] for line in message.splitlines()[1:]] == ["item", "price", "age"]
