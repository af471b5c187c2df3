"""What stands around every path: token, size, room, disconnects, and an answer to every failure.

It is plain ASGI: Starlette's `BaseHTTPMiddleware` would put a task and a queue between an
application and its client, which costs time and hides that the client has gone.

A body is read here, whole and within its limits, before anything else sees it. While it is being
answered the client is watched: if it goes away, the application is cancelled where it waits, so
that a backend learns it as `asyncio.CancelledError`. A client that closes its sending side counts
as gone.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rankloom.errors import OverloadedError
from rankloom.serving.front.answers import problem_messages
from rankloom.serving.front.config import FrontConfig
from rankloom.serving.front.media import header
from rankloom.serving.front.problems import TokenError, TooLargeError, problem_of

FREE_PATHS = frozenset(
    {"/", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"}
)
"""They need no token: whatever restarts the server has none, and at `/` stands a page that says
nothing of what is served and asks people for theirs."""
ARRIVED = "rankloom.arrived"
"""Key of the scope: when its head had arrived, in monotonic seconds."""
LINGER_S = 1.0
"""How long a refused client may go on sending; closed at once, it might not read why."""
LINGER_BYTES = 64 << 20


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


class Guard:
    """Lets through what may be asked, and answers whatever fails.

    Args:
        app: What answers.
        config: The limits.
        token: What clients must have, or none.
    """

    def __init__(self, app: ASGIApp, *, config: FrontConfig, token: bytes | None) -> None:
        self._app = app
        self._config = config
        self._token = None if token is None else _digest(token)
        self._running = 0
        self._buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[ARRIVED] = time.monotonic()
        exchange = _Exchange(scope, receive, send)
        try:
            await self._answer(exchange)
        except ClientGoneError:
            return
        except asyncio.CancelledError:
            # The server ends and waits no longer; this task is over with it.
            await exchange.refuse(OverloadedError("The server is going down. Ask another."))
        except Exception as error:
            if exchange.has_started:
                raise
            await exchange.refuse(error)

    async def _answer(self, exchange: _Exchange) -> None:
        self._check_token(exchange.scope)
        if exchange.body_complete:
            await self._app(exchange.scope, exchange.receive, exchange.send)
            return
        try:
            body = await self._read(exchange)
            if self._running >= self._config.concurrent:
                raise OverloadedError("The server answers as many requests as it may.")
            self._running += 1
            try:
                await exchange.run(self._app, body)
            finally:
                self._running -= 1
        finally:
            self._buffered -= exchange.num_bytes

    def _check_token(self, scope: Scope) -> None:
        if self._token is None or scope["path"] in FREE_PATHS:
            return
        scheme, _, token = (header(scope, b"authorization") or "").partition(" ")
        # Digests are compared, so that time tells nothing of the token, its length included.
        is_right = hmac.compare_digest(_digest(token.strip().encode("latin-1")), self._token)
        if scheme.lower() != "bearer" or not is_right:
            raise TokenError("header authorization: must hold the server's token, as Bearer TOKEN.")

    async def _read(self, exchange: _Exchange) -> bytes:
        """Read the whole body; what its length says is believed only where it is too large."""
        most = self._config.limits.body_bytes
        declared = header(exchange.scope, b"content-length") or "0"
        if len(declared) > 18 or int(declared) > most:
            raise _too_large(most)
        body = bytearray()
        while not exchange.body_complete:
            piece = await exchange.read()
            exchange.num_bytes += len(piece)
            self._buffered += len(piece)
            if exchange.num_bytes > most:
                raise _too_large(most)
            if self._buffered > self._config.buffered_bytes:
                raise OverloadedError("The server holds as many bytes of requests as it may.")
            if exchange.body_complete and not body:
                return piece
            body += piece
        return bytes(body)


class _Exchange:
    """One request and what became of it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self._send = send
        self.has_started = False
        self._is_over = False
        names = {name for name, _ in scope["headers"]}
        self.body_complete = names.isdisjoint({b"content-length", b"transfer-encoding"})
        """Whether nothing of the body is left to read."""
        self.num_bytes = 0
        """Of the body that were read."""

    async def send(self, message: Message) -> None:
        """Send a piece of the answer, and remember how far it is."""
        if message["type"] == "http.response.start":
            self.has_started = True
        elif not message.get("more_body", False):
            self._is_over = True
        await self._send(message)

    async def read(self) -> bytes:
        """Give the next piece of the body.

        Raises:
            ClientGoneError: There will be none.
        """
        message = await self.receive()
        if message["type"] != "http.request":
            raise ClientGoneError
        self.body_complete = not message.get("more_body", False)
        return bytes(message.get("body", b""))

    async def run(self, app: ASGIApp, body: bytes) -> None:
        """Let an application answer; it is cancelled if the client goes away meanwhile.

        Raises:
            ClientGoneError: The client has gone.
        """
        task = asyncio.current_task()
        assert task is not None
        gone = asyncio.Event()
        given = False

        async def watch() -> None:
            while (await self.receive())["type"] == "http.request":
                pass
            gone.set()
            if not self._is_over:
                task.cancel()

        async def receive() -> Message:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        watcher = asyncio.create_task(watch())
        try:
            await app(self.scope, receive, self.send)
        except asyncio.CancelledError:
            if gone.is_set() and task.uncancel() == 0:
                raise ClientGoneError from None
            raise
        finally:
            watcher.cancel()

    async def refuse(self, error: BaseException) -> None:
        """Answer with a problem, unless an answer has begun."""
        if self.has_started:
            return
        problem = problem_of(error)
        start, body = problem_messages(problem, self.scope)
        if self.body_complete:
            await self.send(start)
            await self.send(body)
            return
        start["headers"].append((b"connection", b"close"))
        await self.send(start)
        await self.send({**body, "more_body": True})
        await self._linger()
        await self.send({"type": "http.response.body"})

    async def _linger(self) -> None:
        """Take what is still on its way, for a moment; it is dropped."""
        num_bytes = 0
        try:
            async with asyncio.timeout(LINGER_S):
                while not self.body_complete and num_bytes < LINGER_BYTES:
                    num_bytes += len(await self.read())
        except (TimeoutError, ClientGoneError):
            return


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _too_large(most: int) -> TooLargeError:
    return TooLargeError(f"body: may have {most} bytes. Got more. Send fewer candidates at a time.")
