"""Malformed and hostile bodies against a real server: never a 5xx, never a crash."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.serving.front_doubles import (
    BODY,
    Answer,
    Double,
    connected,
    post,
    read_answer,
    serving,
)

from rankloom.serving.front.app import make_app
from rankloom.serving.front.config import FrontConfig, TimesConfig
from rankloom.serving.front.run import uvicorn_config
from rankloom.serving.limits import Limits
from rankloom.serving.wire import CONTENT_TYPE, decode_problem

CONFIG = FrontConfig(
    limits=Limits(body_bytes=1 << 20, candidates=100, events=100),
    # Making up bodies takes its time.
    times=TimesConfig(head_s=600, idle_s=600),
)
TEXT = msgspec.json.encode(BODY)
PACKED = msgspec.msgpack.encode(BODY)
MEMBERS = ["user", "candidates", "context", "deadline_ms", "top_k", "id", "requests", "item", "x"]

# As they are written in JSON, so that what no encoder gives is among them.
numbers = st.sampled_from(
    ["NaN", "-Infinity", "1e999", "-0", "01", "1.", "-1", "9" * 5000, "1e-400", "2e308", "0x1"]
) | st.integers().map(str)
texts = st.text(max_size=8).map(lambda one: msgspec.json.encode(one).decode()) | st.sampled_from(
    ['"\\ud800"', '"\\u0000"', '"\\x"', '"\n"', "'a'", '"' + "a" * 2000 + '"', '"\\']
)
names = st.sampled_from([f'"{name}"' for name in MEMBERS]) | texts
values = st.recursive(
    numbers | texts | st.sampled_from(["null", "true", "tru", "", "[]", "{}", "]", "{"]),
    lambda inner: (
        st.lists(inner, max_size=5).map(lambda ones: f"[{','.join(ones)}]")
        | st.lists(st.tuples(names, inner), max_size=5).map(
            lambda pairs: "{" + ",".join(f"{name}:{one}" for name, one in pairs) + "}"
        )
    ),
    max_leaves=12,
)
plain = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(MEMBERS) | st.text(max_size=4), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip
UNITS = ["[", '{"a":', "[[]", "[{"]
HEADS = [
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
    b"\xdb\xff\xff\xff\xff",
    b"\xd8\x01" + b"\xff" * 16,
    b"\x91" * 5000,
    b"\x81\xa1a" * 5000,
    b"\xc1",
]
deep = st.builds(lambda unit, count: unit * count, st.sampled_from(UNITS), st.integers(1, 5000))
bombs = st.builds(lambda head, tail: head + tail, st.sampled_from(HEADS), st.binary(max_size=20))


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Cut, change or repeat some bytes of a right body."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 6))] = draw(st.binary(max_size=6))
    return bytes(data)


def members(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Give bodies with the right names and any values."""
    given = st.fixed_dictionaries(
        {"user": inner, "candidates": inner},
        optional=dict.fromkeys(["context", "deadline_ms", "top_k", "id"], inner),
    )
    return given | st.lists(given, max_size=3).map(lambda ones: {"requests": ones})


json_bodies = (
    (values | deep).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | damaged(TEXT)
    | st.binary(max_size=60)
    | members(plain).map(lambda one: msgspec.json.encode(one))
)
msgpack_bodies = (
    (plain | members(plain)).map(msgspec.msgpack.encode) | bombs | damaged(PACKED) | st.binary()
)
bodies = st.tuples(st.just("application/json"), json_bodies) | st.tuples(
    st.just(CONTENT_TYPE), msgpack_bodies
)


Ask = Callable[[bytes, str], Answer]


@pytest.fixture(scope="module")
def ask_server() -> Iterator[Ask]:
    """Give what asks a server over one connection, which every answer must leave open."""
    with serving(Double(), CONFIG) as port, connected(port) as client:
        yield asking(client)


def asking(client: socket.socket) -> Ask:
    def asked(body: bytes, content_type: str) -> Answer:
        client.sendall(post(body, content_type=content_type))
        answer = read_answer(client)
        assert answer is not None
        return answer

    return asked


def check(asked: Ask, ones: list[tuple[str, bytes]]) -> None:
    for content_type, body in ones:
        answer = asked(body, content_type)
        if answer.status == 200:
            continue
        is_json = answer.headers["content-type"] == "application/problem+json"
        problem = answer.json if is_json else decode_problem(answer.body)
        assert (answer.status, problem["code"]) in {(400, "invalid_request"), (504, "deadline")}
        assert problem["status"] == answer.status
    right = asked(TEXT, "application/json")
    assert (right.status, right.json["order"]) == (200, [2, 1, 0])


@given(st.lists(bodies, min_size=10, max_size=10))
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
def test_a_thousand_hostile_bodies_are_answered_and_right_ones_between(
    ask_server: Ask, ones: list[tuple[str, bytes]]
) -> None:
    check(ask_server, ones)


def serve(listening: socket.socket) -> None:
    backend = Double()
    backend.seen = deque(maxlen=10)
    config = uvicorn_config(make_app(backend, CONFIG), CONFIG, drain_s=30.0)
    uvicorn.Server(config).run(sockets=[listening])


@pytest.mark.slow
def test_ten_thousand_hostile_bodies_leave_no_memory_behind() -> None:
    # A process of its own: what makes up the bodies grows itself.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(listening,))
        server.start()
    sizes: list[int] = []
    with connected(port) as client:
        asked = asking(client)

        @given(st.lists(bodies, min_size=10, max_size=10))
        @settings(max_examples=1000, suppress_health_check=list(HealthCheck))
        def run(ones: list[tuple[str, bytes]]) -> None:
            check(asked, ones)
            sizes.append(resident_bytes(server.pid))

        run()
    server.terminate()
    server.join(20)
    assert sizes[-1] - sizes[len(sizes) // 5] < 16 << 20


def resident_bytes(pid: int | None) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
