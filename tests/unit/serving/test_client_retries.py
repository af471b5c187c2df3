"""When the client asks again, and that it never does so past the deadline."""

from __future__ import annotations

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler

import pytest
from tests.unit.serving.scripted_server import (
    answers,
    hangs_up,
    problem,
    result,
    send,
    serving,
    sleeps,
)

from rankloom.errors import DeadlineError, OverloadedError, RequestError, ServingError
from rankloom.serving import wire
from rankloom.serving.client import Client
from rankloom.serving.connections import Connections
from rankloom.serving.request import RankRequest

ITEMS = {"i": [1, 2]}


def test_a_connection_that_is_closed_before_the_answer_is_asked_again() -> None:
    with serving(hangs_up, answers) as server, Client(server.url) as client:
        assert client.rank({}, ITEMS, id="a").id == "a"
    assert len(server.asked) == 2


def test_a_connection_that_is_closed_within_the_answer_is_asked_again() -> None:
    def breaks_off(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"only a part")
        handler.close_connection = True

    with serving(breaks_off, answers) as server, Client(server.url) as client:
        client.rank({}, ITEMS)
    assert len(server.asked) == 2


def test_what_is_no_http_is_asked_again() -> None:
    def garbles(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.wfile.write(b"\xff\x00 no status line\r\n\r\n")
        handler.close_connection = True

    with serving(garbles, answers) as server, Client(server.url) as client:
        client.rank({}, ITEMS)
    assert len(server.asked) == 2


def test_a_server_that_says_when_to_come_back_is_asked_then() -> None:
    busy = problem(503, "overloaded", Retry_After="0.2")
    with serving(busy, answers) as server, Client(server.url) as client:
        begun = time.monotonic()
        client.rank({}, ITEMS)
        assert time.monotonic() - begun >= 0.2
    assert len(server.asked) == 2


@pytest.mark.parametrize("retry_after", ["soon", "-1", "inf", "nan"])
def test_a_server_that_does_not_say_when_is_not_asked_again(retry_after: str) -> None:
    busy = problem(503, "overloaded", Retry_After=retry_after)
    with (
        serving(busy) as server,
        Client(server.url) as client,
        pytest.raises(OverloadedError),
    ):
        client.rank({}, ITEMS)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 429, 500, 504])
def test_no_other_answer_is_asked_for_again(status: int) -> None:
    with (
        serving(problem(status, "x", Retry_After="0")) as server,
        Client(server.url) as client,
        pytest.raises(ServingError),
    ):
        client.rank({}, ITEMS)
    assert len(server.asked) == 1


def test_attempts_are_counted() -> None:
    with (
        serving(hangs_up) as server,
        Client(server.url, attempts=2) as client,
        pytest.raises(ServingError, match=r"server http://127\.0\.0\.1:\d+: the connection broke"),
    ):
        client.rank({}, ITEMS)
    assert len(server.asked) == 2


def test_nobody_there_is_a_servers_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ServingError, match="ConnectionRefusedError") as raised:
        Client(f"http://127.0.0.1:{port}").rank({}, ITEMS)
    assert isinstance(raised.value.__cause__, ConnectionRefusedError)


def test_no_waiting_goes_past_the_deadline() -> None:
    busy = problem(503, "overloaded", "full", Retry_After="5")
    with serving(busy) as server, Client(server.url) as client:
        begun = time.monotonic()
        with pytest.raises(OverloadedError, match="full"):
            client.rank({}, ITEMS, deadline_ms=1000)
        assert time.monotonic() - begun < 0.9
    assert len(server.asked) == 1


@pytest.mark.parametrize(("deadline_ms", "timeout_s", "budget"), [(200, 10, 200), (None, 0.2, 200)])
def test_a_slow_server_is_left_at_the_deadline(
    deadline_ms: float | None, timeout_s: float, budget: int
) -> None:
    with serving(sleeps(3)) as server, Client(server.url, timeout_s=timeout_s) as client:
        begun = time.monotonic()
        with pytest.raises(DeadlineError, match=f"Got {budget} ms"):
            client.rank({}, ITEMS, deadline_ms=deadline_ms)
        assert 0.19 < time.monotonic() - begun < 1.5
    assert len(server.asked) == 1


def test_an_answer_that_drips_is_left_at_the_deadline() -> None:
    def drips(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)

    with serving(drips) as server, Client(server.url) as client:
        begun = time.monotonic()
        with pytest.raises(DeadlineError):
            client.rank({}, ITEMS, deadline_ms=300)
        assert time.monotonic() - begun < 2


def test_each_attempt_carries_what_is_left() -> None:
    busy = problem(503, "overloaded", Retry_After="0.2")
    with serving(busy, answers) as server, Client(server.url) as client:
        client.rank({}, ITEMS, deadline_ms=5000)
    first, second = (float(one["X-Deadline-Ms"]) for one in server.asked)
    assert 200 <= first - second < 3000
    in_bodies = [one.deadline_ms for one in server.requests()]
    assert in_bodies == pytest.approx([first, second], abs=50)


def test_several_deadlines_shrink_together() -> None:
    requests = [
        RankRequest(user={}, candidates=ITEMS, deadline_ms=100),
        RankRequest(user={}, candidates=ITEMS, deadline_ms=5000),
    ]
    busy = problem(503, "overloaded", Retry_After="0.2")
    with serving(busy, answers) as server, Client(server.url) as client:
        client.rank_many(requests)
    # The first one's time is over, and the longest one is how long the client waits.
    assert server.requests()[1].deadline_ms == 0.001
    assert float(server.asked[0]["X-Deadline-Ms"]) > 4000


def test_a_deadline_that_is_over_is_not_sent() -> None:
    with (
        serving() as server,
        Client(server.url) as client,
        pytest.raises(DeadlineError, match="must be positive"),
    ):
        client.rank({}, ITEMS, deadline_ms=0)
    assert not server.asked


def test_a_kept_connection_that_was_closed_is_replaced_before_it_is_used() -> None:
    def says_goodbye(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        answers(handler, body)
        handler.close_connection = True

    with serving(says_goodbye) as server, Client(server.url, attempts=1) as client:
        client.rank({}, ITEMS)
        time.sleep(0.2)
        client.rank({}, ITEMS)
    assert len({one["client"] for one in server.asked}) == 2


def test_a_body_that_is_refused_unread_is_a_wrong_request() -> None:
    """The server answers and closes while the client still sends."""
    refusal = wire.encode_problem({"status": 413, "code": "too_large", "detail": "too large"})
    head = f"HTTP/1.1 413 No\r\nContent-Type: {wire.CONTENT_TYPE}\r\nConnection: close\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def refuse() -> None:
            connection, _ = listening.accept()
            connection.sendall(f"{head}Content-Length: {len(refusal)}\r\n\r\n".encode() + refusal)
            connection.shutdown(socket.SHUT_WR)
            time.sleep(0.3)
            connection.close()

        thread = threading.Thread(target=refuse)
        thread.start()
        port = listening.getsockname()[1]
        with (
            Client(f"http://127.0.0.1:{port}", attempts=1) as client,
            pytest.raises(RequestError, match="status 413: too large"),
        ):
            client.rank({"u": "a" * (64 << 20)}, ITEMS)
        thread.join()


def test_no_connection_is_kept_after_closing() -> None:
    with serving() as server:
        client = Client(server.url)
        client.close()
        client.rank({}, ITEMS)
        client.rank({}, ITEMS)
    assert len({one["client"] for one in server.asked}) == 2


def test_at_most_so_many_idle_connections_are_kept() -> None:
    begin = threading.Barrier(3)

    def meets(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        begin.wait(5)
        send(handler, wire.encode_results([result()]))

    with serving(meets) as server, Client(server.url, connections=1) as client:
        for _ in range(2):
            threads = [threading.Thread(target=client.rank, args=({}, ITEMS)) for _ in range(3)]
            for one in threads:
                one.start()
            for one in threads:
                one.join()
    assert len({one["client"] for one in server.asked}) == 5


def test_a_kept_connection_has_the_time_of_the_next_call() -> None:
    with serving() as server:
        kept = Connections(server.url, 1, None)
        first = kept.take(5.0)
        first.connect()
        kept.give_back(first)
        again = kept.take(0.5)
        assert again is first
        assert again.sock.gettimeout() == 0.5
        again.close()
