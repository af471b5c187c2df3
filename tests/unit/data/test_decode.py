from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from rankloom.data.decode import (
    NULL_KEY,
    IdMapping,
    decode_keys,
    decode_numbers,
    decode_sparse,
    decode_vectors,
)
from rankloom.data.hashing import hash_ids
from rankloom.data.raw import Origin, RawColumn
from rankloom.data.texts import Texts
from rankloom.data.vocabulary import Vocabulary
from rankloom.errors import DataError
from rankloom.schema import IdSource, VocabularyConfig

ROWS = IdMapping(IdSource(num_embeddings=10), None, None)
HASHED = IdMapping(IdSource(hash_buckets=7), None, None)


def raw(values: object, kind: pa.DataType | None = None, *, line: int = 0) -> RawColumn:
    return RawColumn("x", pa.array(values, kind), Origin("log.parquet", line))


def known(*keys: object, default: int | str | None = None) -> IdMapping:
    vocabulary = Vocabulary(pa.array(keys), np.ones(len(keys), np.int64))
    return IdMapping(IdSource(vocabulary=VocabularyConfig()), default, vocabulary)


@pytest.mark.parametrize("kind", [pa.int64(), pa.int32(), pa.uint8(), pa.uint64(), pa.int16()])
def test_rows_of_any_width_are_int64(kind):
    rows = ROWS.rows(raw([9, 0, 3], kind))
    assert rows.tolist() == [9, 0, 3]
    assert rows.dtype == np.int64


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 10], pa.int64()),
        ([1, -1], pa.int8()),
        ([1, -1], pa.int64()),
        ([1, 10], pa.uint8()),
        ([1, 2**63], pa.uint64()),
    ],
)
def test_a_row_outside_the_table_is_refused(values, kind):
    with pytest.raises(DataError, match=f"from 0 to 9. Got {values[1]} in row 101. Raise num"):
        ROWS.rows(raw(values, kind, line=100))


def test_null_is_refused_where_values_are_rows():
    with pytest.raises(DataError, match=r"'x' has no value. Got null in row 1. Set a default"):
        ROWS.rows(raw([1, None, 2]))


def test_a_default_stands_for_null():
    mapping = IdMapping(IdSource(num_embeddings=10), 7, None)
    assert mapping.rows(raw([1, None, 2], pa.int32())).tolist() == [1, 7, 2]
    assert known("a", "b", default="b").rows(raw(["a", None])).tolist() == [2, 3]


def test_a_default_of_another_type_is_refused():
    with pytest.raises(DataError, match=r"its default is of another type. Got 'a'"):
        known(1, 2, default="a").rows(raw([1, None]))


def test_a_vocabulary_has_rows_for_missing_and_unknown():
    assert known("a", "b").rows(raw(["b", None, "z"])).tolist() == [3, 0, 1]


def test_keys_of_another_type_than_the_vocabulary_are_refused():
    with pytest.raises(DataError, match=r"log.parquet: column 'x' does not fit its vocabulary"):
        known("a").rows(raw([1]))


def test_hashed_rows_leave_row_0_to_null():
    rows = HASHED.rows(raw(["a", None, "b"]))
    assert rows.tolist() == [
        1 + hash_ids(Texts.of(["a"]), num_buckets=7, seed=0)[0],
        0,
        1 + hash_ids(Texts.of(["b"]), num_buckets=7, seed=0)[0],
    ]
    many = HASHED.rows(raw(list(range(200))))
    assert (many.min(), many.max()) == (1, 7)


def test_several_ids_have_offsets_and_weights():
    weights = raw([[0.5, 2.0], [], [1.0]])
    lists = decode_sparse(raw([[1, 2], [], [3]]), weights, mapping=ROWS)
    assert lists.offsets.tolist() == [0, 2, 2, 3]
    assert lists.values["ids"].tolist() == [1, 2, 3]
    assert lists.values["weights"].tolist() == [0.5, 2.0, 1.0]


def test_a_null_list_is_one_missing_id_of_weight_one():
    weights = raw([[0.5, 2.0], None, [1.0]])
    lists = decode_sparse(raw([["a", "b"], None, ["b"]]), weights, mapping=known("a", "b"))
    assert lists.offsets.tolist() == [0, 2, 3, 4]
    assert lists.values["ids"].tolist() == [2, 3, 0, 3]
    assert lists.values["weights"].tolist() == [0.5, 2.0, 1.0, 1.0]


def test_a_bad_id_in_a_list_is_named_by_its_row():
    with pytest.raises(DataError, match=r"Got 12 in row 7"):
        decode_sparse(raw([[1, 2], [], [3, 12]], line=5), None, mapping=ROWS)


def test_lists_of_a_dictionary_are_decoded():
    kind = pa.list_(pa.dictionary(pa.int8(), pa.int64()))
    lists = decode_sparse(raw([[7], [3, None]], kind), None, mapping=IdMapping(ROWS.way, 5, None))
    assert lists.values["ids"].tolist() == [7, 3, 5]


def test_weights_must_be_as_many_as_ids():
    with pytest.raises(DataError, match=r"Got 1 entries beside 2 in row 1"):
        decode_sparse(raw([[1], [1, 2]]), raw([[1.0], [1.0]]), mapping=ROWS)


def test_lists_of_a_slice_are_its_own():
    whole = pa.array([[1, 2], [3], None, [4, 5]])
    column = RawColumn("x", whole.slice(1, 3), Origin("log.parquet"))
    lists = decode_sparse(column, None, mapping=IdMapping(ROWS.way, 9, None))
    assert lists.offsets.tolist() == [0, 1, 2, 4]
    assert lists.values["ids"].tolist() == [3, 9, 4, 5]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2], pa.int16()),
        ([1.0, 2.0], pa.float16()),
        ([Decimal("1.0"), Decimal("2.0")], pa.decimal128(5, 1)),
        ([1.0, 2.0], pa.float64()),
    ],
)
def test_numbers_of_any_type_are_float32(values, kind):
    numbers = decode_numbers(raw(values, kind))
    assert numbers.tolist() == [1.0, 2.0]
    assert numbers.dtype == np.float32


def test_booleans_are_numbers():
    assert decode_numbers(raw([True, None, False]), default=0.5).tolist() == [1.0, 0.5, 0.0]


@pytest.mark.parametrize("values", [[1.0, None, 2.0], [1.0, float("nan"), 2.0], [1, None, 2]])
def test_missing_numbers_become_the_default_or_nan_or_an_error(values):
    assert decode_numbers(raw(values), default=-1.0).tolist() == [1.0, -1.0, 2.0]
    kept = decode_numbers(raw(values), keep_missing=True)
    assert np.array_equal(kept, [1.0, np.nan, 2.0], equal_nan=True)
    with pytest.raises(DataError, match=r"'x' has no number. Got .* in row 1"):
        decode_numbers(raw(values))


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64(), pa.int8()])
def test_a_default_stands_for_null_in_any_type(kind):
    assert decode_numbers(raw([1, None], kind), default=0.5).tolist() == [1.0, 0.5]


def test_a_default_stands_for_nan_beside_null():
    assert decode_numbers(raw([None, float("nan"), 2.0]), default=0.5).tolist() == [0.5, 0.5, 2.0]


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), 1e39])
def test_an_infinite_number_is_refused_even_with_a_default(value):
    with pytest.raises(DataError, match=r"must be finite"):
        decode_numbers(raw([1.0, None, value]), default=0.0)


@pytest.mark.parametrize("kind", [pa.list_(pa.float64()), pa.list_(pa.float32(), 2)])
def test_vectors_have_one_width(kind):
    column = raw([[1.0, 2.0], None, [3.0, 4.0]], kind)
    vectors = decode_vectors(column, dim=2, zeros_for_null=True).values
    assert vectors.tolist() == [[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]]
    with pytest.raises(DataError, match=r"Got null in row 1. Set default: zeros"):
        decode_vectors(column, dim=2, zeros_for_null=False)


def test_a_vector_of_another_width_is_refused():
    with pytest.raises(DataError, match=r"must have 2 numbers. Got \[1.0\] in row 1"):
        decode_vectors(raw([[1.0, 2.0], [1.0]]), dim=2, zeros_for_null=True)


def test_keys_are_numbers_or_hashes_and_null_is_its_own():
    assert decode_keys(raw([5, None, -2], pa.int32())).tolist() == [5, NULL_KEY, -2]
    keys = decode_keys(raw(["a", None, "b", "a"]))
    assert keys[0] == keys[3] != keys[2]
    assert keys[1] == NULL_KEY
