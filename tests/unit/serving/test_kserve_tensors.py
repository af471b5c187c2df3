from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest

from rankloom.errors import RequestError
from rankloom.serving.kserve.tensors import TensorHead, decode_tensor


def head(datatype: str, shape: list[int], data: Any = None) -> TensorHead:
    written = msgspec.Raw() if data is None else msgspec.Raw(json.dumps(data).encode())
    return TensorHead("user/x", datatype, shape, None, written)


def refused(one: TensorHead, raw: bytes | None = None) -> str:
    with pytest.raises(RequestError) as caught:
        decode_tensor(one, None if raw is None else memoryview(raw))
    return str(caught.value)


@pytest.mark.parametrize(
    ("datatype", "dtype", "values"),
    [
        ("BOOL", np.bool_, [True, False]),
        ("INT8", np.int8, [-128, 127]),
        ("INT16", np.int16, [-(2**15), 2**15 - 1]),
        ("INT32", np.int32, [-(2**31), 2**31 - 1]),
        ("INT64", np.int64, [-(2**63), 2**63 - 1]),
        ("UINT8", np.uint8, [0, 255]),
        ("UINT16", np.uint16, [0, 2**16 - 1]),
        ("UINT32", np.uint32, [0, 2**32 - 1]),
        ("UINT64", np.uint64, [0, 2**64 - 1]),
        ("FP16", np.float16, [-0.5, 1.5]),
        ("FP32", np.float32, [-0.5, 1.5]),
        ("FP64", np.float64, [-0.1, 3]),
    ],
)
def test_raw_numbers_equal_those_of_json(datatype: str, dtype: type, values: list[Any]) -> None:
    raw = memoryview(np.array(values, dtype).tobytes())
    for one in (head(datatype, [2], values), head(datatype, [2])):
        found = decode_tensor(one, None if bytes(one.data) else raw).values
        assert found.dtype == dtype
        assert found.tolist() == values


def test_raw_texts_stand_behind_their_lengths() -> None:
    raw = b"\x02\0\0\0ab\0\0\0\0\x02\0\0\0\xc3\xa9"
    assert decode_tensor(head("BYTES", [3]), memoryview(raw)).values == ["ab", "", "\xe9"]


def test_nested_and_flat_json_are_the_same() -> None:
    nested = decode_tensor(head("FP32", [2, 3], [[1, 2, 3], [4, 5, 6]]), None).values
    flat = decode_tensor(head("FP32", [2, 3], [1, 2, 3, 4, 5, 6]), None).values
    assert nested.tolist() == flat.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("datatype", "shape", "raw"),
    [
        ("INT64", [2], b"\0" * 15),
        ("INT64", [2], b"\0" * 17),
        ("INT64", [2**31 - 1, 2**31 - 1], b"\0" * 8),
        ("FP32", [0], b"\0"),
        ("BYTES", [2], b"\x01\0\0\0a"),
        ("BYTES", [1], b"\x01\0\0\0ab"),
        ("BYTES", [1], b"\x03\0\0\0ab"),
        ("BYTES", [1], b"\xff\xff\xff\xffab"),
        ("BYTES", [1], b"\x01\0"),
        ("BYTES", [2**31 - 1], b"\x01\0\0\0a"),
        ("BYTES", [0], b"\0"),
    ],
)
def test_raw_bytes_must_fit_the_shape(datatype: str, shape: list[int], raw: bytes) -> None:
    said = refused(head(datatype, shape), raw)
    assert said.startswith("input 'user/x': ")
    assert str(len(raw)) in said
    assert "Send all" in said


@pytest.mark.parametrize("shape", [[0], [0, 2**31 - 1], [5, 0]])
def test_nothing_is_allowed_of_any_length(shape: list[int]) -> None:
    assert decode_tensor(head("FP32", shape), memoryview(b"")).values.shape == tuple(shape)


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (head("INT64", [-1], []), "lengths are 0 to 2147483647. Got shape [-1]"),
        (head("INT64", [2**63, 2], []), "lengths are 0 to"),
        (head("INT64", [0, 10**400], []), "lengths are 0 to"),
        (head("INT64", [], [1]), "1 or 2 dimensions. Got shape []"),
        (head("INT64", [1, 1, 1], [1]), "1 or 2 dimensions"),
        (head("BYTES", [1, 1], ["a"]), "BYTES has 1 dimensions"),
        (head("BF16", [1], [1]), "unknown datatype. Got 'BF16'"),
        (head("INT64", [1]), "must have either `data` or raw bytes. Got neither"),
        (head("INT64", [1], {"a": 1}), "does not hold INT64. Got: Expected `array`, got `object`"),
        (head("INT64", [2], [1]), "`data` is not of shape [2]"),
        (head("INT64", [2, 2], [[1, 2], [3]]), "`data` is not of shape [2, 2]"),
        (head("INT64", [2, 2], [[1, 2, 3, 4]]), "`data` is not of shape [2, 2]"),
        (head("INT64", [2, 1], [[1], 2]), "`data` is not of shape [2, 1]"),
        (head("INT64", [1, 2], [[1], 2]), "Expected `array`, got `int` - at `$[1]`"),
        (head("INT64", [2, 0], [[]] * 3), "`data` is not of shape [2, 0]"),
        (head("INT64", [1], [[1]]), "Expected `int`, got `array` - at `$[0]`"),
        (head("INT64", [2], [1, 1.0]), "Expected `int`, got `float` - at `$[1]`"),
        (head("INT64", [1], [True]), "Expected `int`, got `bool`"),
        (head("FP32", [1], [None]), "Expected `float`, got `null`"),
        (head("BOOL", [1], [1]), "Expected `bool`, got `int`"),
        (head("BYTES", [1], [1]), "Expected `str`, got `int`"),
        (head("INT8", [1], [128]), "does not hold INT8. Got: Python integer 128 out of bounds"),
        (head("UINT64", [1], [-1]), "Python integer -1 out of bounds for uint64"),
        (head("FP64", [1], [10**400]), "Number out of range"),
    ],
)
def test_wrong_tensors_are_refused(one: TensorHead, said: str) -> None:
    assert said in refused(one)


def test_both_data_and_raw_bytes_are_too_much() -> None:
    assert "Got both" in refused(head("INT8", [1], [1]), b"\1")


def test_a_text_must_be_utf8() -> None:
    assert "does not hold BYTES. Got: 'utf-8' codec can't decode" in refused(
        head("BYTES", [1]), b"\x01\0\0\0\xff"
    )


def test_a_raw_bool_is_0_or_1() -> None:
    assert "0 or 1. Got 2" in refused(head("BOOL", [2]), b"\1\2")
