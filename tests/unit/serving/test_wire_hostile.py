"""Hostile bodies: only `RequestError` comes out, soon and without taking much memory."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankloom.errors import RequestError
from rankloom.serving import wire
from rankloom.serving.buffers import encode_buffer
from rankloom.serving.limits import Limits
from rankloom.serving.request import RankRequest

Ext = msgspec.msgpack.Ext


def problem(body: bytes, limits: Limits | None = None) -> str:
    with pytest.raises(RequestError) as raised:
        wire.decode_requests(body, limits or Limits())
    return str(raised.value)


def body_of(**candidates: Any) -> bytes:
    return msgspec.msgpack.encode({"user": {}, "candidates": candidates})


BOMBS = {
    "elements": b"\xdd\xff\xff\xff\xff",
    "members": b"\xdf\xff\xff\xff\xff\xa4user",
    "text": b"\xdb\xff\xff\xff\xff",
    "bytes": b"\xc6\xff\xff\xff\xff",
    "extension": b"\xc9\xff\xff\xff\xff\x01",
    "nothing": b"",
    "reserved": b"\xc1",
    "behind": b"\x80\x80",
    "not_utf8": b"\x81\xa1\xff\x01",
    "key_of_mapping": b"\x81\x80\x01",
    "time": b"\x81\xa4user\xc7\x0c\xff" + b"\xff" * 12,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_body_that_is_no_message_is_refused(name: str) -> None:
    found = problem(BOMBS[name])
    assert found.startswith(f"body: must be one value in MessagePack. Got {len(BOMBS[name])} bytes")


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a"])
@pytest.mark.parametrize("depth", [9, 900, 100_000])
def test_deep_nesting_is_refused(opening: bytes, depth: int) -> None:
    found = problem(b"\x81\xa4user" + opening * depth + b"\xc0")
    assert found.startswith("body: lists and mappings are ")
    assert found.endswith("Flatten it.")


def test_keys_that_are_no_texts_are_refused() -> None:
    assert problem(b"\x81\x01\x02").startswith("body: names of members and columns must be texts.")
    assert problem(b"\x81\x91\x01\x02").startswith("body: names of members and columns")


def test_all_wrong_buffers_are_named() -> None:
    wrong = {"user": {"h": Ext(7, b"")}, "candidates": {"a": Ext(1, b"ab"), "b": Ext(2, b"")}}
    found = problem(msgspec.msgpack.encode({"requests": [wrong]}))
    lines = found.splitlines()
    assert lines[0] == "request has 3 mistakes:"
    assert any(
        line.startswith("  requests[0].candidates.a: a buffer ends within its head.")
        for line in lines
    )
    assert any(line.startswith("  requests[0].user.h: a buffer must be of type") for line in lines)


def test_many_wrong_buffers_end_the_reading() -> None:
    found = problem(body_of(i=[Ext(1, b"")] * 21))
    assert found.startswith("body: has more than 20 wrong buffers. The first ends within its head.")
    assert "candidates.i[19]: a buffer ends within" in problem(body_of(i=[Ext(1, b"")] * 20))


def test_buffers_count_against_the_limits() -> None:
    limits = Limits(candidates=4, events=3)
    many = RankRequest(user={"h": np.zeros(4)}, candidates={"i": np.zeros(5)})
    found = problem(wire.encode_requests([many]), limits)
    assert "requests[0].user.h: must have at most 3 values. Got 4." in found
    assert "requests[0].candidates: their number must be 1 to 4. Got 5." in found


def test_buffers_of_different_lengths_are_refused() -> None:
    request = RankRequest(user={}, candidates={"a": np.zeros(3), "b": ["x"] * 2})
    found = problem(wire.encode_requests([request]))
    assert "all columns must have one length. Got a: 3, b: 2." in found


def test_a_buffer_is_no_member() -> None:
    array = Ext(1, b"\x02\x01\0\0\x01\0\0\0\x05")
    for name in ("user", "context", "deadline_ms", "top_k", "id"):
        members = {"user": {}, "candidates": {"i": [1]}, name: array}
        assert problem(msgspec.msgpack.encode(members)).startswith(f"{name}: must be a ")
    members = {"user": {}, "candidates": array}
    assert problem(msgspec.msgpack.encode(members)).startswith("candidates: must be a mapping")
    assert problem(msgspec.msgpack.encode(array)).startswith("body: must be a mapping. Got [5].")


def test_buffers_in_plain_lists_are_no_numbers() -> None:
    huge = np.full(2, 3e38, np.float32)
    for others in ([np.zeros(3)], [huge, huge], [np.zeros(2, np.int8)] * 3):
        column = [1, *[encode_buffer(one) for one in (huge, *others)], [[[[[[[0]]]]]]]]
        body = msgspec.msgpack.encode({"user": {"x": column}, "candidates": {"i": [1]}})
        assert problem(body).startswith("body: lists and mappings are more than 8 deep.")


@pytest.mark.parametrize(
    "member",
    [{"deadline_ms": float("nan")}, {"deadline_ms": -1}, {"top_k": -3}, {"top_k": True}],
)
def test_wrong_numbers_are_refused(member: dict[str, Any]) -> None:
    body = msgspec.msgpack.encode({"user": {}, "candidates": {"i": [1]}, **member})
    assert problem(body).startswith(f"{next(iter(member))}: must be a ")


def filled(unit: bytes, size: int) -> bytes:
    """Give a body of one huge list."""
    count = size // len(unit)
    head = b"\x82\xa4user\x81\xa1h\xdd" + count.to_bytes(4, "big")
    return head + unit * count + b"\xaacandidates\x81\xa1i\x91\x01"


UNITS = {
    "lists": b"\x90",
    "mappings": b"\x81\xa0\xc0",
    "numbers": b"\xe0",
    "texts": b"\xa2ab",
    "long_texts": b"\xda\x10\x00" + b"a" * 4096,
    "int64": b"\xd3" + b"\x80" * 8,
    "arrays": b"\xc7\x08\x01" + b"\x02\x01\0\0\0\0\0\0",
    "broken": b"\xd4\x01\x00",
}


@pytest.mark.parametrize("name", UNITS)
def test_a_large_body_must_be_buffers(name: str) -> None:
    begun = time.process_time()
    found = problem(filled(UNITS[name], 15 << 20))
    assert found == (
        "body: may have 1048576 bytes outside buffers. Got more. Send columns as buffers, see "
        "docs/wire.md."
    )
    assert time.process_time() - begun < 5.0


@pytest.mark.parametrize("length", [0, 1, 15, 16, 31, 32, 255, 256, 65_535, 65_536])
def test_each_byte_outside_buffers_is_counted(length: int) -> None:
    numbers = [0, -1, -40, 200, 60_000, -60_000, 2**31, -(2**31), 2**63, -(2**63), 1.5]
    text = "a" * length
    plain = [None, True, *numbers, text, text.encode(), [0] * length, {"": 0}]
    mapping = {f"{n}": n for n in range(length)}
    for value in (plain, mapping):
        body = msgspec.msgpack.encode(value)
        assert wire._plain_bytes(body) == len(body)
    # A nil after the buffer would be missed, or counted with it.
    body = msgspec.msgpack.encode([Ext(1, b"\xcb" * length), None])
    assert wire._plain_bytes(body) == 1 + 64 + 1


def test_large_buffers_are_not_counted() -> None:
    request = RankRequest(
        user={"name": "a" * 300},
        candidates={f"c{n}": np.zeros((10_000, 60), np.float32) for n in range(4)},
        context={"hours": [None] * 70_000},
    )
    body = wire.encode_requests([request])
    assert len(body) > 8 << 20
    (found,) = wire.decode_requests(body, Limits())
    assert found.candidates["c3"].shape == (10_000, 60)  # type: ignore[call-overload]
    assert len(found.context["hours"]) == 70_000


def test_memory_is_bounded_whatever_is_sent() -> None:
    code = (
        "import resource, sys\n"
        "from tests.unit.serving.test_wire_hostile import UNITS, filled\n"
        "from rankloom.errors import RequestError\n"
        "from rankloom.serving import wire\n"
        "from rankloom.serving.limits import Limits\n"
        "wire.decode_requests(filled(b'\\x01', 1000), Limits())\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for unit in UNITS.values():\n"
        "    try:\n"
        "        wire.decode_requests(filled(unit, (1 << 20) - 40), Limits())\n"
        "    except RequestError:\n"
        "        pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 160 * 1024


VALID = wire.encode_requests(
    [
        RankRequest(
            user={"u": "a", "h": np.arange(3), "names": ["x", "é"]},
            candidates={
                "i": np.arange(2),
                "tags": [["a"], []],
                "m": np.zeros((2, 2), np.float32),
                "p": [1.5, None],
            },
            context={"hour": 3},
            deadline_ms=5.0,
            top_k=1,
            id="r",
        )
    ]
)


@given(st.binary(max_size=200))
def test_any_bytes_give_requests_or_a_request_error(body: bytes) -> None:
    with contextlib.suppress(RequestError):
        wire.decode_requests(body, Limits())


@given(
    st.lists(
        st.tuples(st.integers(0, len(VALID) - 1), st.binary(max_size=3), st.integers(0, 3)),
        min_size=1,
        max_size=3,
    )
)
def test_a_damaged_body_gives_requests_or_a_request_error(
    changes: list[tuple[int, bytes, int]],
) -> None:
    body = VALID
    for at, put, dropped in changes:
        body = body[:at] + put + body[at + dropped :]
    try:
        found = wire.decode_requests(body, Limits())
    except RequestError:
        return
    for one in found:
        for values in one.user.values():
            repr(values.tolist() if hasattr(values, "tolist") else values)
