"""Malformed and hostile requests to a server, and what may be answered to them.

Of a right request, members and columns are given strange values, bytes are changed, cut off or
repeated; beside these stand bodies of the unit tests' strategies, and what is hostile to HTTP
itself, which is sent as it stands. All that is sent follows from a seed.
"""

from __future__ import annotations

import gzip
import json
import math
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from tests.unit.serving import test_front_hostile as front
from tests.unit.serving import test_kserve_fuzz as kserve
from tests.unit.serving.kserve_double import body_of

from rankloom.serving import wire
from rankloom.serving.request import RankRequest

INFER = "/v2/models/rankloom/infer"
LENGTH = "Inference-Header-Content-Length"
JSON = "application/json"
GIB = 1 << 30
AT_ONCE = 10
"""Bodies of one example: more would be more than Hypothesis draws for one."""
FEW = 4
"""Candidates of a right request that is made strange."""


@dataclass(frozen=True)
class Hostile:
    """One request."""

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def draw_hostile(
    right: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]], count: int, *, number: int = 0
) -> list[Hostile]:
    """Draw requests, through all three interfaces by turns.

    Args:
        right: A right request: user, context and candidates.
        inputs: The model's inputs, as KServe's metadata names them.
        count: How many.
        number: Seed.
    """
    one_of_each = st.tuples(_json(right), _msgpack(right), _kserve(right, inputs))
    found: list[Hostile] = []

    @seed(number)
    @settings(
        max_examples=math.ceil(count / (3 * AT_ONCE)) + 1,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(one_of_each, min_size=AT_ONCE, max_size=AT_ONCE))
    def draw(ones: list[tuple[Hostile, ...]]) -> None:
        found.extend(each for three in ones for each in three)

    draw()
    # Hypothesis begins with its simplest example.
    return found[-count:]


strange: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, True, -1, 0, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**64, 10**400),
        *(1e308, -1e308, 5e-324, float("nan"), float("inf"), -float("inf")),
        *("", "a" * 5000, "\0", "\ud800", "item_3", "1970-01-01", b"\xff\xfe"),
        *([], {}, [[]], [None], [[], None], [1e308] * 3, ["x"] * 50, [0] * 3000, [[1], 2]),
        *([-(2**63)] * 20, [2**63 - 1] * 20, list(range(20, 0, -1)), {"a": 1}, [[[["x"]]]]),
    ]
) | (front.plain)


@st.composite
def _strange(draw: st.DrawFn, right: Mapping[str, Any]) -> dict[str, Any]:
    """Give a right request some strange values."""
    request: dict[str, Any] = {name: dict(right[name]) for name in ("user", "context")}
    request["candidates"] = {name: one[:FEW] for name, one in right["candidates"].items()}
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(list(request)))
        if not isinstance(request[place], dict) or not request[place]:
            continue
        name = draw(st.sampled_from([*request[place], "x"]))
        what = draw(st.sampled_from(["all", "one", "none", "member", "event"]))
        values = request[place].get(name)
        if what == "none":
            request[place].pop(name, None)
        elif what == "member":
            names = ("deadline_ms", "top_k", "id", "user", "context", "candidates", "requests")
            request[draw(st.sampled_from(names))] = draw(strange)
        elif what == "one" and isinstance(values, list) and values:
            at = draw(st.integers(0, len(values) - 1))
            request[place][name] = [*values[:at], draw(strange), *values[at + 1 :]]
        elif what == "event" and isinstance(values, list):
            request[place][name] = draw(st.integers(0, 40)) * values
        else:
            request[place][name] = draw(strange)
    return request


def _as_json(value: object) -> bytes:
    text = json.dumps(value, default=repr, ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def _as_msgpack(value: object) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except (OverflowError, UnicodeEncodeError, msgspec.MsgspecError, TypeError):
        return msgspec.msgpack.encode(repr(value))


def _json(right: Mapping[str, Any]) -> st.SearchStrategy[Hostile]:
    whole = _as_json({name: right[name] for name in ("user", "context", "candidates")})
    bodies = _strange(right).map(_as_json) | front.damaged(whole) | front.json_bodies
    headers = st.sampled_from(
        [
            *([{}] * 8),
            {"X-Deadline-Ms": "nan"},
            {"X-Deadline-Ms": "1e999"},
            {"X-Deadline-Ms": "-1"},
            {"Accept": "text/plain"},
            {"Accept": wire.CONTENT_TYPE},
            {"Content-Type": "text/\xff"},
        ]
    )
    return st.builds(
        lambda body, more: Hostile("/v1/rank", body, {"Content-Type": JSON, **more}),
        bodies,
        headers,
    )


def _msgpack(right: Mapping[str, Any]) -> st.SearchStrategy[Hostile]:
    whole = wire.encode_requests([RankRequest(**_members(right))])
    bodies = _strange(right).map(_as_msgpack) | front.damaged(whole) | front.msgpack_bodies
    return bodies.map(lambda body: Hostile("/v1/rank", body, {"Content-Type": wire.CONTENT_TYPE}))


def _kserve(
    right: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]]
) -> st.SearchStrategy[Hostile]:
    """Damage a right body, and make up heads with the model's names and any values."""
    whole, sent = body_of(kserve_inputs(right, inputs))
    length = int(sent[LENGTH])
    names = [one["name"] for one in inputs]
    tensors = st.fixed_dictionaries(
        {
            "name": st.sampled_from(names),
            "datatype": st.sampled_from(kserve.DATATYPES),
            "shape": kserve.shapes,
        },
        optional={"data": kserve.values, "parameters": kserve.parameters},
    )
    right_ones = kserve_inputs(right, inputs)
    heads = st.lists(tensors | st.sampled_from(right_ones), max_size=20) | tensors.map(
        lambda one: [*(each for each in right_ones if each["name"] != one["name"]), one]
    )
    damaged = st.builds(
        lambda body, shift: Hostile(INFER, body, {LENGTH: str(length + shift)}),
        front.damaged(whole),
        st.sampled_from([0, 0, 0, 0, 1, -1, GIB, -GIB]),
    )
    made = st.builds(
        lambda found, more: Hostile(INFER, _as_json({"inputs": found}), more),
        heads,
        st.just({}) | kserve.headers_of_any_kind,
    )
    return damaged | made


def kserve_inputs(
    right: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Give a request's tensors: name, datatype, shape and data."""
    tensors = []
    for one in inputs:
        place, column, *rest = one["name"].split("/")
        given = right[place].get(column)
        if given is None:
            continue
        values = given if isinstance(given, list) else [given]
        if rest:
            ends = [0]
            for each in values:
                ends.append(ends[-1] + len(each))
            values = ends
        elif place == "candidates" and isinstance(values[0], list):
            values = [each for inner in values for each in inner]
        # Of ids that may be numbers or texts, the metadata names numbers.
        datatype = "BYTES" if values and isinstance(values[0], str) else one["datatype"]
        tensors.append(
            {"name": one["name"], "datatype": datatype, "shape": [len(values)], "data": values}
        )
    return tensors


def _members(right: Mapping[str, Any]) -> dict[str, Any]:
    return {name: right[name] for name in ("user", "context", "candidates")}


def violation(path: str, status: int, kind: str, body: bytes) -> str | None:
    """Say what is wrong with an answer to a hostile request; none if it may be given.

    Args:
        path: That was asked.
        status: Of the answer.
        kind: Its content type.
        body: The rest of it.
    """
    if status == 200:
        return None
    shown = f"{path}: {status} {kind} {body[:300]!r}"
    try:
        if kind == wire.CONTENT_TYPE:
            document: Any = wire.decode_problem(body)
        else:
            document = json.loads(body)
    except ValueError:
        return f"no document: {shown}"
    if path.startswith("/v2"):
        is_told = isinstance(document.get("error"), str) and bool(document["error"])
    else:
        is_told = document.get("status") == status and bool(document.get("code"))
    if not is_told:
        return f"no problem document: {shown}"
    if status >= 500 and status not in {503, 504}:
        return f"the server's fault: {shown}"
    return None


def raw_requests() -> list[bytes]:
    """Give what is hostile to HTTP itself, each for a connection of its own."""

    def post(body: bytes, *lines: str, path: str = "/v1/rank", kind: str = JSON) -> bytes:
        head = "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", f"Content-Type: {kind}", *lines])
        return head.encode("latin-1") + b"\r\n\r\n" + body

    def sized(body: bytes, *lines: str, path: str = "/v1/rank", kind: str = JSON) -> bytes:
        return post(body, f"Content-Length: {len(body)}", *lines, path=path, kind=kind)

    bomb = gzip.compress(bytes(64 << 20))
    deep = b'{"user":' + b"[" * 1_000_000
    chunked = "Transfer-Encoding: chunked"
    return [
        post(b"{}", f"Content-Length: {GIB}"),
        post(b"\x80", f"Content-Length: {GIB}", kind=wire.CONTENT_TYPE),
        post(b"{}", f"Content-Length: {GIB}", path=INFER),
        post(b"{}", "Content-Length: 99999999999999999999"),
        post(b"{}", "Content-Length: -2"),
        post(b"{}", "Content-Length: 2", "Content-Length: 3"),
        post(b"{}", "Content-Length: 2", chunked),
        post(b"ffffffffffffffff\r\n{}", chunked),
        post(b"zz\r\n{}", chunked),
        post(b"2\r\n{}\r\n" * 1000 + b"0\r\n\r\n", chunked),
        sized(b"{}", f"{LENGTH}: {GIB}", path=INFER),
        sized(b"{}", f"{LENGTH}: -1", path=INFER),
        sized(bomb, "Content-Encoding: gzip", path=INFER),
        sized(bomb, "Content-Encoding: gzip"),
        sized(deep),
        sized(b"\x91" * 1_000_000, kind=wire.CONTENT_TYPE),
        sized(b"9" * 1_000_000),
        sized(b'{"user":{"age":' + b"9" * 1_000_000 + b'},"candidates":{"item_id":[1]}}'),
        sized(b'"' + b"\xff\xfe" * 1000 + b'"'),
        sized(b"[" + b"{}," * 300_000 + b"{}]"),
        sized(b"{}", "X: " + "a" * 1_000_000),
        sized(b"{}", *(f"X-{n}: {n}" for n in range(5000))),
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/rank\xff\xfe HTTP/1.1\r\nHost: \xff\r\nContent-Length: 0\r\n\r\n",
        b"GET /v1/rank HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        bytes(range(256)) * 16,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        sized(b"{}") * 100,
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ]


def send_raw(port: int, data: bytes, *, timeout_s: float = 5.0) -> str | None:
    """Send bytes on a new connection, and say what is wrong with what comes back."""
    path = "/v2" if b" /v2" in data[:40] else "/v1/rank"
    received = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as client:
            client.sendall(data)
            # What is said of the end belongs to it: a server that waits for more must not.
            client.shutdown(socket.SHUT_WR)
            while piece := client.recv(1 << 16):
                received += piece
    except TimeoutError:
        return f"no end: {data[:80]!r} {received[:80]!r}"
    except OSError:
        # It may refuse before it has read all.
        pass
    if not received:
        return None
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    length = int(headers.get("content-length", len(body)))
    kind = headers.get("content-type", "")
    return violation(path, int(lines[0].split()[1]), kind, body[:length])
