"""A backend that scores without a model, and a real server for it in a thread."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableSequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import uvicorn

from rankloom.errors import RequestError
from rankloom.schema import (
    BinaryTask,
    DenseFeature,
    Schema,
    SequenceColumn,
    SequenceFeature,
    SparseFeature,
)
from rankloom.serving.front.app import make_app
from rankloom.serving.front.blend import order_of
from rankloom.serving.front.config import FrontConfig
from rankloom.serving.front.run import uvicorn_config
from rankloom.serving.request import RankRequest, RankResult, Served

SCHEMA = Schema(
    {
        "user": SparseFeature(side="user", num_embeddings=9),
        "history": SequenceFeature(side="user", columns={"item": SequenceColumn(table="item")}),
        "hour": SparseFeature(side="context", num_embeddings=24),
        "item": SparseFeature(side="item", num_embeddings=9),
        "price": DenseFeature(side="item"),
    },
    tasks={"click": BinaryTask(label="click"), "buy": BinaryTask(label="buy", given="click")},
)
SERVED = Served(
    name="double",
    digest="d" * 64,
    schema=SCHEMA,
    columns={
        "user": ["user", "history_item"],
        "context": ["hour"],
        "candidates": ["item", "price"],
    },
)
BODY = {"user": {"user": 1}, "candidates": {"item": [3, 5, 4]}}


class Double:
    """Scores candidate n of N with (n + 1) / N; waits or fails when it is told to."""

    def __init__(self, *, wait_s: float = 0.0, error: Exception | None = None) -> None:
        self.wait_s = wait_s
        self.error = error
        self.is_ready = True
        self.seen: MutableSequence[RankRequest] = []
        self.running = 0
        self.most_running = 0
        self.cancelled = 0

    def served(self) -> Served | None:
        return SERVED if self.is_ready else None

    async def rank(self, request: RankRequest) -> RankResult:
        self.seen.append(request)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            if self.wait_s:
                await asyncio.sleep(self.wait_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        if self.error is not None and request.id != "fine":
            raise self.error
        if request.user.get("user") == "wrong":
            raise RequestError("request has 2 mistakes:\n  user: one.\n  user: two.")
        given = request.candidates
        count = len(next(iter(given.values())) if isinstance(given, Mapping) else given)
        scores = (np.arange(count) + 1.0) / count
        return RankResult(
            scores={"click": scores, "buy": scores / 2},
            blended=scores,
            order=order_of(scores, request.top_k),
            digest=SERVED.digest,
            timing_ms={"total": 0.5},
            id=request.id,
        )


@dataclass
class Answer:
    """What an application answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


def ask(
    backend: Double,
    body: object = BODY,
    *,
    path: str = "/v1/rank",
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    config: FrontConfig | None = None,
) -> Answer:
    """Ask an application once, without a server; bytes are sent as they are."""
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    lines = {"content-type": "application/json", **(headers or {})}
    if method == "POST":
        lines["content-length"] = str(len(content))
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in lines.items()],
    }
    return asyncio.run(_asked(make_app(backend, config or FrontConfig()), scope, content))


async def _asked(app: Any, scope: dict[str, Any], content: bytes) -> Answer:
    sent: list[dict[str, Any]] = []
    given = [{"type": "http.request", "body": content, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if given:
            return given.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *pieces = sent
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    assert len(headers) == len(start["headers"])
    return Answer(start["status"], headers, b"".join(one.get("body", b"") for one in pieces))


@contextmanager
def serving(
    backend: Double, config: FrontConfig | None = None, *, drain_s: float = 30.0
) -> Iterator[int]:
    """Serve on a free port of the loopback, as in production, and give the port."""
    config = config or FrontConfig()
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    server = uvicorn.Server(uvicorn_config(make_app(backend, config), config, drain_s=drain_s))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield port
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def wait_until(is_so: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Wait until something is so, or fail."""
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.005)


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """Give a connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        yield client


def post(body: bytes, *, path: str = "/v1/rank", **headers: str) -> bytes:
    """Write a POST of JSON; a header's underscores are hyphens."""
    given = {"host": "x", "content-type": "application/json", "content-length": str(len(body))}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


def read_answer(client: socket.socket) -> Answer | None:
    """Read one answer, or none where the connection ended before one."""
    held = b""
    while b"\r\n\r\n" not in held:
        piece = _received(client)
        if not piece:
            assert not held
            return None
        held += piece
    head, _, body = held.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    while len(body) < int(headers["content-length"]):
        piece = _received(client)
        assert piece
        body += piece
    return Answer(int(first.split()[1]), headers, body)


def is_closed(client: socket.socket) -> bool:
    """Wait until the server has closed, or the time limit; what comes before that is dropped."""
    try:
        while _received(client):
            pass
    except TimeoutError:
        return False
    return True


def _received(client: socket.socket) -> bytes:
    try:
        return client.recv(1 << 16)
    except (ConnectionResetError, BrokenPipeError):
        return b""
