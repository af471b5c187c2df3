"""What the client sends, and what it makes of an answer."""

from __future__ import annotations

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.unit.serving.scripted_server import Step, problem, result, send, serving

from rankloom.errors import (
    ConfigError,
    DeadlineError,
    OverloadedError,
    RequestError,
    ServingError,
)
from rankloom.serving import wire
from rankloom.serving.client import Client
from rankloom.serving.request import RankRequest, RankResult

ITEMS = {"i": [1, 2]}


def test_a_result_comes_back() -> None:
    with serving() as server, Client(server.url) as client:
        found = client.rank({"u": 1}, ITEMS, {"hour": 3}, top_k=1, id="r1")
    assert found.scores["click"].tolist() == [0.0, 0.5]
    assert found.order.tolist() == [1, 0]
    assert found.id == "r1"
    (asked,) = server.requests()
    assert (asked.user, asked.context, asked.top_k, asked.id) == ({"u": 1}, {"hour": 3}, 1, "r1")
    assert isinstance(asked.candidates, dict)
    assert isinstance(asked.candidates["i"], np.ndarray)


def test_the_request_is_as_documented() -> None:
    with serving() as server, Client(server.url + "/behind/", token="abc") as client:
        client.rank({}, ITEMS, deadline_ms=5000)
    (asked,) = server.asked
    assert asked["path"] == "/behind/v1/rank"
    assert asked["Content-Type"] == asked["Accept"] == wire.CONTENT_TYPE
    assert asked["Authorization"] == "Bearer abc"
    assert 4000 < float(asked["X-Deadline-Ms"]) <= 5000


def test_without_a_deadline_the_servers_holds() -> None:
    with serving() as server, Client(server.url) as client:
        client.rank({}, ITEMS)
    assert "X-Deadline-Ms" not in server.asked[0]
    assert server.requests()[0].deadline_ms is None


def test_a_connection_is_kept() -> None:
    with serving() as server, Client(server.url) as client:
        for _ in range(3):
            client.rank({}, ITEMS)
    assert len({one["client"] for one in server.asked}) == 1


def test_threads_share_a_client() -> None:
    found: list[str] = []
    with serving() as server, Client(server.url, connections=2) as client:

        def work(number: int) -> None:
            found.extend(client.rank({}, ITEMS, id=f"{number}-{n}").id for n in range(10))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert sorted(found) == sorted(f"{number}-{n}" for number in range(4) for n in range(10))


def test_several_users_have_results_and_problems_in_place() -> None:
    def step(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        late = {"status": 504, "code": "deadline", "detail": "too late"}
        odd = {"detail": "it failed"}
        send(handler, wire.encode_results([result(id_="a"), late, odd]))

    with serving(step) as server, Client(server.url) as client:
        first, second, third = client.rank_many([RankRequest(user={}, candidates=ITEMS)] * 3)
    assert isinstance(first, RankResult)
    assert isinstance(second, DeadlineError)
    assert str(second) == "server, status 504: too late"
    assert type(third) is ServingError


def test_a_problem_in_a_results_place_is_raised_for_one_user() -> None:
    def step(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        send(handler, wire.encode_results([{"status": 504, "code": "deadline", "detail": "late"}]))

    with (
        serving(step) as server,
        Client(server.url) as client,
        pytest.raises(DeadlineError, match="late"),
    ):
        client.rank({}, ITEMS)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_request", RequestError),
        (401, "unauthorized", RequestError),
        (413, "too_large", RequestError),
        (415, "unsupported_media_type", RequestError),
        (429, "overloaded", OverloadedError),
        (500, "internal", ServingError),
        (503, "not_ready", OverloadedError),
        (503, "overloaded", OverloadedError),
        (504, "deadline", DeadlineError),
        (429, "", OverloadedError),
        (502, "", ServingError),
        (503, "", OverloadedError),
        (504, "", DeadlineError),
        (302, "", ServingError),
    ],
)
def test_a_problem_is_the_error_that_its_code_says(status: int, code: str, kind: type) -> None:
    with (
        serving(problem(status, code)) as server,
        Client(server.url) as client,
        pytest.raises(ServingError) as raised,
    ):
        client.rank({}, ITEMS)
    assert type(raised.value) is kind
    assert str(raised.value) == f"server, status {status}: why"
    assert len(server.asked) == 1


def raw(body: bytes, kind: str, status: int = 400) -> Step:
    return lambda handler, _: send(handler, body, status=status, kind=kind)


DOCUMENT = {"status": 400, "code": "invalid_request", "detail": "all", "problems": ["a.", "b."]}


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            raw(msgspec.json.encode(DOCUMENT), "application/problem+json; charset=utf-8"),
            "server, status 400: request has 2 mistakes:\n  a.\n  b.",
        ),
        (raw(b"<html>", "text/html"), "server, status 400: <html>"),
        (raw(b"\xff", wire.CONTENT_TYPE), "server, status 400: \ufffd"),
        (raw(b"[" * 10**5, "application/json"), f"server, status 400: {'[' * 200}"),
        (raw(b"", "text/html"), "server, status 400: no reason is given"),
    ],
)
def test_a_problem_may_come_in_any_form(step: Step, message: str) -> None:
    with (
        serving(step) as server,
        Client(server.url) as client,
        pytest.raises(RequestError) as raised,
    ):
        client.rank({}, ITEMS)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    "body", [b"", b"garbage", wire.encode_results([]), wire.encode_results([result()] * 2)]
)
def test_a_garbled_result_is_a_servers_error_and_not_asked_again(body: bytes) -> None:
    with (
        serving(raw(body, wire.CONTENT_TYPE, 200)) as server,
        Client(server.url) as client,
        pytest.raises(ServingError, match="answer: "),
    ):
        client.rank({}, ITEMS)
    assert len(server.asked) == 1


def test_what_cannot_be_sent_is_a_wrong_request() -> None:
    with serving() as server, Client(server.url) as client:
        with pytest.raises(RequestError, match=r"requests\[0\].user.u: cannot be sent"):
            client.rank({"u": object()}, ITEMS)
        assert client.rank({"u": 1}, ITEMS)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"url": "127.0.0.1:80"},
        {"url": "ftp://a"},
        {"url": "http://"},
        {"url": "http://a:b"},
        {"url": "http://a/b c"},
        {"url": "http://a/?b"},
        {"url": "http://a", "token": "a\nb"},
        {"url": "http://a", "token": ""},
        {"url": "http://a", "timeout_s": 0},
        {"url": "http://a", "attempts": 0},
    ],
)
def test_wrong_settings_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Got"):
        Client(**arguments)


def test_the_client_imports_little() -> None:
    code = (
        "import sys, rankloom.serving.client;"
        "print({'torch', 'pyarrow', 'pydantic', 'yaml', 'starlette'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
