"""Columns as raw bytes: what is sent as a buffer, and that it comes back as it was."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankloom.data.plain_lists import Ragged
from rankloom.data.texts import Texts
from rankloom.serving.buffers import BufferFormatError, decode_buffer, encode_buffer, packed


def sent(value: Any) -> Any:
    """Give what arrives for a column's value."""
    data = msgspec.msgpack.encode(packed(value), enc_hook=encode_buffer)
    return msgspec.msgpack.decode(data, ext_hook=decode_buffer)


def plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | Texts | Ragged) else value


@pytest.mark.parametrize(
    "dtype",
    [
        "bool",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float32",
        "float64",
    ],
)
@pytest.mark.parametrize("shape", [(3,), (0,), (2, 3), (0, 3)])
def test_an_array_keeps_its_type_and_shape(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    found = sent(array)
    assert found.dtype == array.dtype
    assert found.shape == shape
    assert np.array_equal(found, array)


def test_bytes_are_in_the_order_of_the_format_whatever_the_arrays_is() -> None:
    assert packed(np.array([1, 2], ">i4")) == packed(np.array([1, 2], "<i4"))
    turned = np.arange(6).reshape(2, 3).T
    assert np.array_equal(sent(turned), turned)


def test_an_array_is_a_view_of_the_body() -> None:
    body = msgspec.msgpack.encode(packed(np.arange(3)))
    found = msgspec.msgpack.decode(body, ext_hook=decode_buffer)
    assert np.shares_memory(found, np.frombuffer(body, np.uint8))


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ([1, 2], "int64"),
        ([2**63, 1], "uint64"),
        ([1.5, float("-inf")], "float64"),
        ([True, False], "bool"),
        ((1, 2), "int64"),
        (np.array([1.5], np.float16), "float32"),
        ([np.int16(3), np.int16(4)], "int16"),
    ],
)
def test_a_list_of_one_type_becomes_an_array(value: Any, kind: str) -> None:
    found = sent(value)
    assert found.dtype == kind
    assert found.tolist() == list(value)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (["a", "", "é東"], Texts),
        (np.array(["a", "b"]), Texts),
        (np.array(["a", "b"], "O"), Texts),
        ([[1], [], [2, 3]], Ragged),
        ([[], []], Ragged),
        ([["a", "é"], [], ["b"]], Ragged),
        (np.array([["a"], ["b"]]), Ragged),
        (Texts.of(["x"]), Texts),
        (Ragged(np.array([1.5, 2.5]), np.array([0, 2, 2])), Ragged),
    ],
)
def test_texts_and_lists_of_lists_become_buffers(value: Any, kind: type) -> None:
    found = sent(value)
    assert type(found) is kind
    assert found.tolist() == plain(value)


def test_arrays_of_different_lengths_become_one_buffer() -> None:
    found = sent([np.array([1, 2], np.int8), np.array([], np.int8)])
    assert isinstance(found, Ragged)
    assert found.values.dtype == np.int8  # type: ignore[union-attr]
    assert found.tolist() == [[1, 2], []]


@pytest.mark.parametrize(
    "value",
    # What a buffer would change: 1 is not 1.0 or True for a model, and null is nothing of these.
    [
        *([1, 2.5], [1, True], [1, None], ["a", None], [[1], None], [[1], [2.5]], [["a"], [1]]),
        *([], [[[1]]], 5, "a", None, {"a": [1]}, [2**63, -1, 1.5], [2**63, -1]),
    ],
)
def test_what_no_buffer_holds_stays_as_it_is(value: Any) -> None:
    assert packed(value) is value


def test_missing_values_of_a_masked_array_are_null() -> None:
    assert sent(np.ma.array([1, 2], mask=[False, True])) == [1, None]
    assert sent(np.array([1, None], "O")) == [1, None]


def test_single_values_of_numpy_are_plain() -> None:
    data = [np.int64(3), np.float32(0.5), np.str_("a"), np.bool_(True), np.array(7)]
    assert sent({"a": data}) == {"a": [3, 0.5, "a", True, 7]}


@pytest.mark.parametrize(
    "value",
    [
        *(np.zeros((1, 1, 1)), np.array(["2026-01-01"], "M8[D]"), np.timedelta64(3)),
        *(np.complex64(1), np.longdouble(1), object()),
    ],
)
def test_what_cannot_be_sent_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot be sent"):
        sent(value)


COLUMNS = st.one_of(
    st.lists(st.integers(-(2**63), 2**64 - 1)),
    st.lists(st.floats(allow_nan=False)),
    st.lists(st.text(st.characters(exclude_categories=["Cs"]))),
    st.lists(st.lists(st.integers(-5, 300), max_size=5)),
    st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=5)),
    st.lists(st.none() | st.booleans() | st.integers(-5, 5)),
)


@given(COLUMNS)
def test_any_column_arrives_as_it_was(column: list[Any]) -> None:
    found = plain(sent(column))
    assert found == column
    assert list(map(type, found)) == list(map(type, column))


def ext(code: int, data: bytes) -> Any:
    return decode_buffer(code, memoryview(data))


def words(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


INT8, BOOL, FLOAT64 = b"\x02\x01\0\0", b"\x01\x01\0\0", b"\x0b\x01\0\0"


@pytest.mark.parametrize(
    ("code", "data", "message"),
    [
        (4, b"", "must be of type 1 (array), 2 (texts) or 3 (lists). Got 4."),
        (-1, b"", "must be of type 1"),
        (1, b"", "ends within its head. Got 0 bytes."),
        (1, b"\x02\x02\0\0" + words(1), "ends within its head. Got 8 bytes."),
        (1, b"\0\x01\0\0" + words(0), "must have a type from 1 to 11"),
        (1, b"\x0c\x01\0\0" + words(0), "must have a type from 1 to 11"),
        (1, b"\x02\x03\0\0" + words(0, 0, 0), "must have a type from 1 to 11, 1 or 2 dim"),
        (1, b"\x02\0\0\0" + words(0), "must have a type from 1 to 11, 1 or 2 dim"),
        (1, b"\x02\x01\x01\0" + words(0), "must have a type from 1 to 11, 1 or 2 dim"),
        (1, INT8 + words(3) + b"ab", "as its sizes say, 3. Got 2."),
        (1, INT8 + words(1) + b"ab", "as its sizes say, 1. Got 2."),
        (1, FLOAT64 + words(2**32 - 1), "as its sizes say, 34359738360. Got 0."),
        (1, b"\x0b\x02\0\0" + words(2**32 - 1, 2**32 - 1), "Got 0."),
        (1, b"\x02\x02\0\0" + words(2**32 - 1, 0), "must have at least 1 value a row."),
        (1, BOOL + words(2) + b"\0\x02", "must hold bytes 0 and 1."),
        (2, b"ab", "ends within its head. Got 2 bytes."),
        (2, words(2**32 - 1) + words(1), "must have 4294967295 lengths, of 4 bytes each. Got 4"),
        (2, words(1, 3) + b"ab", "as its sizes say, 3. Got 2."),
        (2, words(2, 2**32 - 1, 2**32 - 1), "as its sizes say, 8589934590. Got 0."),
        (2, words(1, 1) + b"\xff", "must be UTF-8. Got invalid start byte."),
        (2, words(1, 3) + b"\xed\xa0\x80", "must be UTF-8."),
        (2, words(2, 1, 1) + "é".encode(), "must have lengths of whole characters."),
        (3, words(1), "ends within its head. Got 4 bytes."),
        (3, words(3, 0), "must hold an array (1) or texts (2). Got 3."),
        (3, words(1, 1, 2) + INT8 + words(1) + b"a", "Got 1 for lists of 2."),
        (3, words(1, 1, 1) + b"\x02\x02\0\0" + words(1, 1) + b"a", "in one dimension."),
        (3, words(2, 1, 0) + words(1, 1) + b"a", "Got 1 for lists of 0."),
        (3, words(1, 2**32 - 1), "must have 4294967295 lengths, of 4 bytes each. Got 0"),
    ],
)
def test_wrong_bytes_are_refused(code: int, data: bytes, message: str) -> None:
    with pytest.raises(BufferFormatError) as raised:
        ext(code, data)
    assert message in str(raised.value)


@given(st.integers(-128, 127), st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(code: int, data: bytes) -> None:
    try:
        found = ext(code, data)
    except BufferFormatError:
        return
    plain(found)
