"""A real HTTP server that answers each request as a test says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from rankloom.serving import wire
from rankloom.serving.limits import Limits
from rankloom.serving.request import RankRequest, RankResult

Step = Callable[[BaseHTTPRequestHandler, bytes], None]


@dataclass
class Scripted:
    """What was asked, and what comes next."""

    url: str
    steps: list[Step]
    """The first one answers the next request; the last one stays."""
    asked: list[Mapping[str, str]] = field(default_factory=list)
    """Headers of each request, and its `path` and `client`."""
    bodies: list[bytes] = field(default_factory=list)

    def requests(self) -> list[RankRequest]:
        """Give the first request of each body."""
        return [wire.decode_requests(body, Limits())[0] for body in self.bodies]


def result(count: int = 2, id_: str = "") -> RankResult:
    scores = np.arange(count) / count
    return RankResult(
        scores={"click": scores}, blended=scores, order=np.arange(count)[::-1], digest="d", id=id_
    )


def send(
    handler: BaseHTTPRequestHandler,
    body: bytes,
    *,
    status: int = 200,
    kind: str = wire.CONTENT_TYPE,
    **headers: str,
) -> None:
    handler.send_response(status)
    lines = {"Content-Type": kind, "Content-Length": str(len(body)), **headers}
    for name, value in lines.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def answers(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """Answer as a ranking server does."""
    asked = wire.decode_requests(body, Limits())
    send(handler, wire.encode_results([result(id_=one.id) for one in asked]))


def problem(status: int, code: str, detail: str = "why", **headers: str) -> Step:
    def step(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        found = wire.encode_problem({"status": status, "code": code, "detail": detail})
        send(handler, found, status=status, **headers)

    return step


def hangs_up(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """Close the connection without an answer."""
    handler.close_connection = True


def sleeps(seconds: float) -> Step:
    def step(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        time.sleep(seconds)
        hangs_up(handler, body)

    return step


@contextmanager
def serving(*steps: Step) -> Iterator[Scripted]:
    script = Scripted("", list(steps) or [answers])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Else heads and bodies leave as two packets, 40 ms after each other.
        wbufsize = -1
        timeout = 10

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            about = {"path": self.path, "client": str(self.client_address)}
            script.asked.append(dict(self.headers.items()) | about)
            script.bodies.append(body)
            step = script.steps.pop(0) if len(script.steps) > 1 else script.steps[0]
            step(self, body)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *args: Any) -> None:
            """Clients that hang up are part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    script.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
