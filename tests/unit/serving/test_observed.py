"""Every ranking request is counted and logged once, whatever became of it."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rankloom.errors import DeadlineError
from rankloom.schema import Roles, Schema, SparseFeature
from rankloom.serving.observed import ObservedBackend, Observer
from rankloom.serving.request import RankRequest, RankResult, Served
from rankloom.serving.telemetry.access_log import AccessLine
from rankloom.serving.telemetry.metrics import Metrics

SCHEMA = Schema({"user": SparseFeature(side="user", num_embeddings=9)}, roles=Roles(user="user"))


class Backend:
    def served(self) -> Served:
        return Served("shop", "d1", SCHEMA, {})

    async def rank(self, request: RankRequest) -> RankResult:
        if request.id == "late":
            raise DeadlineError("too late")
        return RankResult(
            scores={"like": np.zeros(3)},
            blended=np.zeros(3),
            order=np.arange(3),
            digest="d1",
            timing_ms={"queue": float(len(request.id))},
            is_hit=request.id == "known",
        )


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[AccessLine, Any]] = []

    def write(self, line: AccessLine, *, user: Any = None) -> None:
        self.lines.append((line, user))


def application(backend: ObservedBackend, ids: list[str], status: int = 200) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        requests = [RankRequest(user={"user": 7}, candidates={}, id=one) for one in ids]
        await asyncio.gather(*map(backend.rank, requests), return_exceptions=True)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"12345"})

    return answer


def ask(app: ASGIApp, metrics: Metrics, log: Log, path: str = "/v1/rank", **scope: Any) -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"123"}

    async def send(_message: Message) -> None:
        pass

    whole = {"type": "http", "method": "POST", "path": path, "headers": [], **scope}
    observer = Observer(app, metrics=metrics, log=log)  # type: ignore[arg-type]
    asyncio.run(observer(whole, receive, send))


def text(metrics: Metrics) -> str:
    return metrics.render().decode()


def test_a_request_has_its_line_and_its_figures() -> None:
    metrics, log = Metrics(), Log()
    ask(application(ObservedBackend(Backend()), ["known"]), metrics, log)
    ((line, user),) = log.lines
    assert (line.interface, line.id, line.status, line.code) == ("json", "known", 200, "ok")
    assert (line.candidates, line.cache, line.digest, user) == (3, "hit", "d1", 7)
    found = text(metrics)
    assert 'rankloom_request_seconds_count{interface="json",status="200"} 1.0' in found
    assert 'stage="queue"' in found
    assert 'rankloom_received_bytes_total{interface="json"} 3.0' in found
    assert 'rankloom_sent_bytes_total{interface="json"} 5.0' in found
    assert "rankloom_requests_in_flight 0.0" in found


def test_of_several_users_candidates_are_added_and_the_longest_stage_counts() -> None:
    log = Log()
    ask(application(ObservedBackend(Backend()), ["a", "abc"]), Metrics(), log)
    assert (log.lines[0][0].candidates, log.lines[0][0].stages_ms) == (6, {"queue": 3.0})


def test_a_problem_has_its_code() -> None:
    log = Log()
    ask(application(ObservedBackend(Backend()), ["late"], 504), Metrics(), log)
    assert (log.lines[0][0].status, log.lines[0][0].code) == (504, "deadline")


@pytest.mark.parametrize(
    ("status", "code"), [(400, "invalid_request"), (413, "too_large"), (503, "overloaded")]
)
def test_what_never_comes_to_the_backend_has_a_code_too(status: int, code: str) -> None:
    log = Log()
    ask(application(ObservedBackend(Backend()), [], status), Metrics(), log)
    assert (log.lines[0][0].status, log.lines[0][0].code) == (status, code)


def test_a_client_that_leaves_is_counted_too() -> None:
    async def leaves(scope: Scope, receive: Receive, send: Send) -> None:
        raise ConnectionError

    metrics, log = Metrics(), Log()
    with pytest.raises(ConnectionError):
        ask(leaves, metrics, log)
    assert (log.lines[0][0].status, log.lines[0][0].code) == (499, "client_gone")
    assert 'status="499"' in text(metrics)


@pytest.mark.parametrize(
    ("path", "headers", "interface"),
    [
        ("/v1/rank", [(b"content-type", b"application/msgpack")], "msgpack"),
        ("/v2/models/shop/infer", [], "kserve"),
        ("/health/live", [], None),
    ],
)
def test_the_interface_is_told_by_path_and_type(
    path: str, headers: list[tuple[bytes, bytes]], interface: str | None
) -> None:
    log = Log()
    ask(application(ObservedBackend(Backend()), ["a"]), Metrics(), log, path, headers=headers)
    assert [line.interface for line, _ in log.lines] == ([interface] if interface else [])
