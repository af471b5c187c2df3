"""What becomes of each request, for metrics and the access log.

Middleware around the application sees interface, status and bytes; the backend sees candidates and
stages. Both write to one `Observation`, which travels with the request's context.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rankloom.serving.front.problems import KINDS, kind_of
from rankloom.serving.request import Backend, RankRequest, RankResult, Served
from rankloom.serving.telemetry.access_log import AccessLine, AccessLog
from rankloom.serving.telemetry.metrics import Interface, Metrics


@dataclass
class Observation:
    """One HTTP request, which may hold the requests of several users."""

    num_candidates: int = 0
    stages_ms: dict[str, float] = field(default_factory=dict)
    """Stage -> the longest of all users."""
    id: str = ""
    deadline_ms: float | None = None
    digest: str | None = None
    cache: str | None = None
    code: str = "ok"
    user: int | str | None = None


_CODES = {499: "client_gone"} | {one.status: one.code for one in reversed([*KINDS.values()])}
"""Status -> code of requests that never came to the backend; of two with one status, the first."""
_current: ContextVar[Observation | None] = ContextVar("observation", default=None)


class ObservedBackend:
    """A backend that notes what it is asked; a `Backend`.

    Args:
        backend: What ranks.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def served(self) -> Served | None:
        """Give what is served."""
        return self._backend.served()

    async def rank(self, request: RankRequest) -> RankResult:
        """Rank one request's candidates; see `Backend`."""
        seen = _current.get()
        if seen is None:
            return await self._backend.rank(request)
        seen.id, seen.deadline_ms = request.id, request.deadline_ms
        seen.user = self._user_of(request)
        try:
            result = await self._backend.rank(request)
        except Exception as error:
            seen.code = kind_of(error).code
            raise
        seen.num_candidates += len(result.blended)
        seen.digest = result.digest
        if result.is_hit is not None:
            seen.cache = "hit" if result.is_hit else "miss"
        for stage, ms in result.timing_ms.items():
            seen.stages_ms[stage] = max(ms, seen.stages_ms.get(stage, 0.0))
        return result

    def _user_of(self, request: RankRequest) -> int | str | None:
        served = self._backend.served()
        column = None if served is None else served.schema.roles.user
        user = None if column is None else request.user.get(column)
        return user if isinstance(user, int | str) else None


class Observer:
    """Middleware that counts and logs every ranking request.

    Args:
        app: What answers.
        metrics: Where to count.
        log: Where to write a line; none writes none.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, log: AccessLog | None) -> None:
        self._app, self._metrics, self._log = app, metrics, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        interface = _interface_of(scope)
        if interface is None:
            await self._app(scope, receive, send)
            return
        began_s = time.monotonic()
        seen = Observation()
        token = _current.set(seen)
        num_bytes = {"received": 0, "sent": 0}
        # A client that leaves gets no status; 499 is what proxies log then.
        status = 499

        async def receiving() -> Message:
            message = await receive()
            num_bytes["received"] += len(message.get("body", b""))
            return message

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            num_bytes["sent"] += len(message.get("body", b""))
            await send(message)

        self._metrics.begin_request()
        try:
            await self._app(scope, receiving, sending)
        finally:
            _current.reset(token)
            self._metrics.end_request(
                interface,
                status,
                seconds=time.monotonic() - began_s,
                stages_ms=seen.stages_ms,
                received_bytes=num_bytes["received"],
                sent_bytes=num_bytes["sent"],
            )
            if self._log is not None:
                self._log.write(_line(interface, status, seen), user=seen.user)


def _line(interface: Interface, status: int, seen: Observation) -> AccessLine:
    code = seen.code
    if status != 200 and code == "ok":
        code = _CODES.get(status, str(status))
    return AccessLine(
        interface=interface,
        id=seen.id,
        status=status,
        code=code,
        candidates=seen.num_candidates,
        deadline_ms=seen.deadline_ms,
        cache=seen.cache,
        digest=seen.digest,
        stages_ms=seen.stages_ms,
    )


def _interface_of(scope: Scope) -> Interface | None:
    """Tell through what candidates are to be ranked; none, where something else is asked."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    if scope["path"] == "/v1/rank":
        kinds = [value for name, value in scope["headers"] if name == b"content-type"]
        return "msgpack" if kinds and b"msgpack" in kinds[0] else "json"
    return "kserve" if scope["path"].endswith("/infer") else None
