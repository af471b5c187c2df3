"""A client of a ranking server: keeps connections, carries deadlines, asks again where it may.

    with Client("http://127.0.0.1:8000") as client:
        result = client.rank({"user_id": 7}, {"item_id": items}, deadline_ms=50)
        best = items[result.order[:10]]

It needs no torch. Columns may be NumPy arrays or lists; both are sent as raw bytes.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np

from rankloom.errors import (
    ConfigError,
    DeadlineError,
    OverloadedError,
    RequestError,
    ServingError,
    join_problems,
)
from rankloom.serving import wire
from rankloom.serving.connections import Connections
from rankloom.serving.request import Given, RankRequest, RankResult

PATH = "/v1/rank"
DEADLINE_HEADER = "X-Deadline-Ms"
"""What is left of the client's time when a request is sent."""
MAX_ANSWER_BYTES = 256 << 20
_PIECE = 1 << 16
_LEAST_MS = 0.001
_LONGEST_S = 86_400.0
_FIRST_WAIT_S = 0.01
_LONGEST_WAIT_S = 1.0
_BROKEN = (OSError, http.client.HTTPException)
"""What says that a connection cannot be used any more."""


class Client:
    """Asks one server; threads may share it.

    Ranking changes nothing, so that asking again is safe: after a connection broke, and after a
    503 that says when to come back. It is never done past the deadline, and not after an answer
    that would come out the same.

    Example:
        >>> client = Client("http://127.0.0.1:8000", timeout_s=0.5)
        >>> client.close()

    Args:
        url: Of the server, with a path if it stands behind one, such as `https://host/ranking`.
        token: Bearer token, if the server wants one.
        timeout_s: Of a call without a deadline, all attempts together.
        attempts: At most so many times is one thing asked.
        connections: At most so many are kept when they are idle.
        tls: How certificates are checked, if not as usual.

    Raises:
        ConfigError: The address is none, or a number is not positive.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout_s: float = 10.0,
        attempts: int = 3,
        connections: int = 8,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        for name, value in {"timeout_s": timeout_s, "attempts": attempts}.items():
            if not value > 0:
                raise ConfigError(f"{name}: must be positive. Got {value}. Give more.")
        self._connections = Connections(url, connections, tls)
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._headers = {"Content-Type": wire.CONTENT_TYPE, "Accept": wire.CONTENT_TYPE}
        if token is not None:
            if not token or not token.isascii() or not token.isprintable() or " " in token:
                raise ConfigError(
                    "token: must be printable ASCII without spaces. Got something else. "
                    "Give what stands behind `Bearer`."
                )
            self._headers["Authorization"] = f"Bearer {token}"
        # Only spreads the waiting times of clients that were turned away together.
        self._generator = np.random.default_rng()

    def rank(
        self,
        user: Given,
        candidates: Given | Sequence[Given],
        context: Given | None = None,
        *,
        deadline_ms: float | None = None,
        top_k: int | None = None,
        id: str = "",  # noqa: A002  (the member's name)
    ) -> RankResult:
        """Rank one user's candidates.

        Args:
            user: Column -> value.
            candidates: Column -> N values, or N mappings.
            context: Column -> value.
            deadline_ms: Until when there must be an answer, from now; else the server's default
                holds there, and `timeout_s` here.
            top_k: How many of the best `order` names; else all.
            id: A name for it, given back.

        Raises:
            RequestError: What is asked is wrong.
            DeadlineError: There was no answer in time.
            OverloadedError: The server has no room, or is not ready.
            ServingError: It cannot be reached, or failed.
        """
        request = RankRequest(
            user=user,
            candidates=candidates,
            context=context or {},
            deadline_ms=deadline_ms,
            top_k=top_k,
            id=id,
        )
        (outcome,) = self.rank_many([request])
        if isinstance(outcome, ServingError):
            raise outcome
        return outcome

    def rank_many(self, requests: Sequence[RankRequest]) -> list[RankResult | ServingError]:
        """Rank several users' candidates at one time.

        Returns:
            For each request its result, or why it has none.

        Raises:
            RequestError: What is asked is wrong, in whichever of the requests.
            DeadlineError: There was no answer in time.
            OverloadedError: The server has no room, or is not ready.
            ServingError: It cannot be reached, or failed.
        """
        call = _Call.of(requests, self._timeout_s)
        attempt = 1
        while True:
            try:
                answer = self._ask(call)
            except _BROKEN as error:
                if isinstance(error, TimeoutError):
                    raise call.too_late() from error
                failed = ServingError(
                    f"server {self._connections.address}: the connection broke. Got "
                    f"{type(error).__name__}: {error}. Check that it runs."
                )
                failed.__cause__ = error
                wait = 0.0
            else:
                if answer.status == 200:
                    return _outcomes(answer.body, len(requests))
                failed, retry_after = answer.error(), answer.retry_after_s()
                if answer.status != 503 or retry_after is None:
                    raise failed
                wait = retry_after
            wait += self._generator.uniform(0, min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**attempt))
            if attempt >= self._attempts or wait >= call.left_s():
                raise failed
            time.sleep(wait)
            attempt += 1

    def _ask(self, call: _Call) -> _Answer:
        """Ask once.

        Raises:
            OSError: The connection broke, or took too long.
            HTTPException: What came is no HTTP.
        """
        body, left_ms = call.body()
        headers = dict(self._headers)
        if left_ms is not None:
            headers[DEADLINE_HEADER] = f"{max(left_ms, _LEAST_MS):.3f}"
        connection = self._connections.take(call.left_s())
        try:
            try:
                connection.request("POST", self._connections.path + PATH, body, headers)
            except (BrokenPipeError, ConnectionResetError):
                # A server that refuses a body may say why before it has read all of it.
                if connection.sock is None:
                    raise
            # Kept, because a connection that will be closed forgets it.
            sock = connection.sock
            sock.settimeout(call.left_s())
            with connection.getresponse() as response:
                answer = _Answer(response.status, response.headers, _read(sock, response, call))
        except BaseException:
            connection.close()
            raise
        self._connections.give_back(connection)
        return answer

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True)
class _Call:
    """What is asked, and until when."""

    requests: Sequence[RankRequest]
    begun_s: float
    until_s: float
    has_deadline: bool
    """Whether every request has one, so that the server may be told when nobody waits any more."""

    @staticmethod
    def of(requests: Sequence[RankRequest], timeout_s: float) -> _Call:
        now = time.monotonic()
        deadlines = [one.deadline_ms for one in requests]
        for one in deadlines:
            if one is not None and not one > 0:
                raise DeadlineError(
                    f"deadline_ms: must be positive. Got {one}. Ask before the time is over."
                )
        given = [one for one in deadlines if one is not None]
        has_deadline = bool(given) and len(given) == len(deadlines)
        budget_s = min(max(given) / 1000 if has_deadline else timeout_s, _LONGEST_S)
        return _Call(requests, now, now + budget_s, has_deadline)

    def left_s(self) -> float:
        """Give the seconds that are left.

        Raises:
            DeadlineError: There are none.
        """
        left = self.until_s - time.monotonic()
        if left <= 0:
            raise self.too_late()
        return left

    def too_late(self) -> DeadlineError:
        """Give the error that says so."""
        budget_ms = (self.until_s - self.begun_s) * 1000
        return DeadlineError(
            f"deadline: the server has not answered in time. Got {budget_ms:.0f} ms. "
            "Give more time, or ask for less."
        )

    def body(self) -> tuple[bytes, float | None]:
        """Write the requests with what is left of their time, and give the most that is left."""
        passed_ms = (time.monotonic() - self.begun_s) * 1000
        left = [
            one
            if one.deadline_ms is None
            # One whose time is over is still in the body, so that the others keep their places.
            else replace(one, deadline_ms=max(one.deadline_ms - passed_ms, _LEAST_MS))
            for one in self.requests
        ]
        return wire.encode_requests(left), self.left_s() * 1000 if self.has_deadline else None


@dataclass(frozen=True)
class _Answer:
    """What the server said."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def retry_after_s(self) -> float | None:
        """Give the seconds after which to come back, if the server says so."""
        try:
            seconds = float(self.headers.get("Retry-After", ""))
        except ValueError:
            return None
        return seconds if 0 <= seconds < float("inf") else None

    def error(self) -> ServingError:
        """Give the problem as an error."""
        return _error_of(self._problem(), self.status)

    def _problem(self) -> Mapping[str, Any]:
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        try:
            if kind == wire.CONTENT_TYPE:
                return wire.decode_problem(self.body)
            return msgspec.json.decode(self.body, type=dict[str, Any])
        except (ServingError, ValueError, RecursionError):
            # A proxy in between says it in its own way.
            return {"detail": self.body[:200].decode("utf-8", "replace")}


def _read(sock: socket.socket, response: http.client.HTTPResponse, call: _Call) -> bytes:
    """Read a body piece by piece, none of them later than the deadline."""
    pieces, size = [], 0
    while piece := response.read1(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            raise ServingError(
                f"answer: is too large. Got more than {MAX_ANSWER_BYTES} bytes. Ask for less."
            )
        sock.settimeout(call.left_s())
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return b"".join(pieces)


def _outcomes(body: bytes, count: int) -> list[RankResult | ServingError]:
    found = wire.decode_results(body)
    if len(found) != count:
        raise ServingError(
            f"answer: must have a result for each request. Got {len(found)} for {count}. "
            "Check that a RankLoom server answers at this address."
        )
    return [
        one if isinstance(one, RankResult) else _error_of(one, one.get("status")) for one in found
    ]


_ERRORS: Mapping[str, type[ServingError]] = {
    "invalid_request": RequestError,
    "deadline": DeadlineError,
    "overloaded": OverloadedError,
    "not_ready": OverloadedError,
}


def _error_of(problem: Mapping[str, Any], status: object) -> ServingError:
    status = status if isinstance(status, int) else 500
    kinds = {429: OverloadedError, 503: OverloadedError, 504: DeadlineError}
    default = RequestError if 400 <= status < 500 else ServingError
    kind = _ERRORS.get(str(problem.get("code")), kinds.get(status, default))
    detail = str(problem.get("detail") or problem.get("title") or "no reason is given")
    lines = problem.get("problems")
    if isinstance(lines, list) and len(lines) > 1:
        detail = join_problems([str(line) for line in lines], where="request")
    return kind(f"server, status {status}: {detail}")
