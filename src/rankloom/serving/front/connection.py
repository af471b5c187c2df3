"""One connection: uvicorn's HTTP protocol with limits on time, on bytes and on their number.

uvicorn 0.54 limits how long a connection may idle between requests (`timeout_keep_alive`), and with
httptools nothing else: neither how long headers or a body may take, nor how large headers, trailers
and chunk extensions may grow, nor how many requests may be sent ahead, nor how long an answer may
wait for its client. `limit_concurrency` answers with plain text. So all of it stands here:

- **slow requests**: the head and the body have a deadline each; bytes in between extend nothing;
- **slow readers**: an answer that the client does not take ends the connection;
- **size**: the head; and what stands around a body's bytes, such as chunk extensions and trailers
  (the body itself is the application's to limit);
- **pipelining**: a few requests ahead, not as many as fit into memory;
- **connections**: beyond their limit each is answered with 503 and closed;
- **ambiguity**: llhttp refuses what proxies read differently (two lengths, Content-Length beside
  Transfer-Encoding, bare line feeds); codings under chunked, HTTP/0.9, tunnels and web sockets are
  refused here, while other upgrades are left alone, as RFC 9110 allows.

Each refusal is a problem document, except where an earlier request's answer is still due: then the
connection just ends, since the client would take the refusal for that answer.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Literal, cast

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from rankloom.errors import OverloadedError, RequestError
from rankloom.serving.front.config import FrontConfig
from rankloom.serving.front.problems import SlowClientError, TooLargeError, problem_of

MAX_AHEAD = 16
"""Requests that a client may send before the first is answered."""


class Connection(HttpToolsProtocol):
    """One connection of a front end; `connection_class` gives it its limits."""

    limits: ClassVar[FrontConfig]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stage: Literal["none", "head", "body"] = "none"
        """What is being received."""
        self._messages = 0
        """That have been received wholly."""
        self._pending = 0
        """Bytes of the message that is being received, without those of its body."""
        self._head = 0
        """Bytes of its names and values so far."""
        self._refusal: RequestError | None = None
        """Why a callback stopped the parser."""
        self._answering: RequestResponseCycle | None = None
        """What is being answered; `cycle` is what came last, which may be a later request."""
        self._watched: tuple[str, int] | None = None
        self._receiving: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    # What uvicorn and asyncio call

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, or refuse at once."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse(OverloadedError("The server has as many connections as it may."))
            return
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End; what is under way learns it."""
        for timer in (self._receiving, self._writing):
            if timer is not None:
                timer.cancel()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        # uvicorn tells the last request only. One before it would go on, and write where it cannot.
        if self._answering is not None:
            self._answering.disconnected = True
            self._answering.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Parse what came, and refuse it if it is wrong or too much."""
        if self.parser is None or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._pending += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse(self._refusal or RequestError("This is no HTTP/1.1 request."))
            return
        most = self.limits.head_bytes
        if self._stage == "body":
            most += self.limits.limits.body_bytes
        if self._pending > most:
            self._refuse(TooLargeError("A request may not have so much around its body."))
            return
        self._watch()

    def pause_writing(self) -> None:
        """Wait for the client, but not for ever."""
        super().pause_writing()
        self._limit_writing()

    def on_response_complete(self) -> None:
        """Go on with the next request."""
        self._answering = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._limit_writing()
        if not self.transport.is_closing():
            self._watch()

    # What the parser calls

    def on_message_begin(self) -> None:
        """Begin a request."""
        if len(self.pipeline) >= MAX_AHEAD:
            self._stop(f"No more than {MAX_AHEAD} requests may be sent ahead.")
        super().on_message_begin()
        self._stage, self._head = "head", 0

    def on_url(self, url: bytes) -> None:
        """Take a piece of the path."""
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers behind a body say nothing to us."""
        self._count(name, value)
        if self._stage == "head":
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start to answer, unless the head asks for what is not offered."""
        if self.parser.get_http_version() not in {"1.0", "1.1"}:
            self._stop("Only HTTP/1.0 and HTTP/1.1 are spoken here.")
        if self.parser.get_method() == b"CONNECT":
            self._stop("No tunnels are offered here.")
        is_offer = self.parser.should_upgrade()
        for name, value in self.headers:
            if is_offer and name == b"upgrade" and b"websocket" in value.lower():
                self._stop("No web sockets are offered here.")
            if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
                self._stop("Transfer-Encoding may be chunked only.")
        if is_offer:
            return  # The head comes once more, without the offer.
        super().on_headers_complete()
        if not self.pipeline:
            self._answering = self.cycle
        self._stage = "body"

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._pending -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self._stage, self._pending = "none", 0
        self._messages += 1

    # Limits

    def _feed(self, data: bytes) -> None:
        """Parse what came; an offer to go on in another protocol, such as h2c, is not taken."""
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                # The parser takes what follows such a head for the other protocol, the body too.
                data = self._head_without_offer() + data[offer.args[0] :]
            else:
                return

    def _head_without_offer(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _count(self, *parts: bytes) -> None:
        self._head += sum(map(len, parts))
        if self._head > self.limits.head_bytes:
            self._refusal = TooLargeError(
                f"A request's head may have {self.limits.head_bytes} bytes."
            )
            raise self._refusal

    def _stop(self, why: str) -> None:
        self._refusal = RequestError(why)
        raise self._refusal

    def _watch(self) -> None:
        """Give what is being received its deadline; more bytes of it do not extend that."""
        stage: str = self._stage
        is_idle = self.cycle is None or self.cycle.response_complete
        if stage == "none" and is_idle and self.timeout_keep_alive_task is None:
            # A new connection, or line ends that belong to no request.
            stage = "head"
        watched = None if stage == "none" else (stage, self._messages)
        if watched == self._watched:
            return
        if self._receiving is not None:
            self._receiving.cancel()
        times = self.limits.times
        wait = times.body_s if stage == "body" else times.head_s
        self._watched = watched
        self._receiving = None if watched is None else self.loop.call_later(wait, self._too_slow)

    def _too_slow(self) -> None:
        part, seconds = ("body", self.limits.times.body_s)
        if self._stage != "body":
            part, seconds = ("head", self.limits.times.head_s)
        self._refuse(SlowClientError(f"A request's {part} must arrive within {seconds:g} s."))

    def _refuse(self, error: Exception) -> None:
        """Answer with a problem where that cannot be mistaken, and close."""
        if self.transport.is_closing():
            return
        if self._stage == "body":
            can_answer = not self.cycle.response_started and not self.pipeline
        else:
            can_answer = self.cycle is None or self.cycle.response_complete
        if can_answer:
            self.transport.write(_raw(error))
        if self._stage == "body":
            # What answers it is told at once, and not once the client has read all.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
        self._limit_writing()

    def _limit_writing(self) -> None:
        if self._writing is None:
            wait = self.limits.times.answer_s
            self._writing = self.loop.call_later(wait, self._abort_if_stuck)

    def _abort_if_stuck(self) -> None:
        self._writing = None
        if self.transport.is_closing() or self.transport.get_write_buffer_size():
            self.transport.abort()


def connection_class(config: FrontConfig) -> type[Connection]:
    """Give the protocol class of a front end, for `uvicorn.Config(http=...)`."""
    return cast("type[Connection]", type("Connection", (Connection,), {"limits": config}))


def _raw(error: Exception) -> bytes:
    """Write an answer that no application makes."""
    problem = problem_of(error)
    body = msgspec.json.encode(problem.document)
    headers = {
        "Content-Type": "application/problem+json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **problem.headers,
    }
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    return b"".join([STATUS_LINE[problem.status], "".join(lines).encode(), b"\r\n", body])
