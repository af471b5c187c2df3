"""Slow, leaving, lying and flooding clients, against a real server on the loopback."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest
from tests.unit.serving.front_doubles import (
    BODY,
    Double,
    connected,
    is_closed,
    post,
    read_answer,
    serving,
    wait_until,
)

from rankloom.errors import ConfigError
from rankloom.serving.front.app import make_app
from rankloom.serving.front.config import FrontConfig, TimesConfig, TlsConfig
from rankloom.serving.front.run import uvicorn_config
from rankloom.serving.limits import Limits

TEXT = msgspec.json.encode(BODY)
QUICK = FrontConfig(times=TimesConfig(head_s=0.4, body_s=0.4, answer_s=0.4))
CHUNKED = (
    b"POST /v1/rank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def status(client: socket.socket) -> int:
    answer = read_answer(client)
    return answer.status if answer is not None else 0


def is_well(port: int) -> bool:
    with connected(port) as client:
        client.sendall(post(TEXT))
        return status(client) == 200


def drip(client: socket.socket, data: bytes, *, every_s: float = 0.05) -> Callable[[], None]:
    """Send one byte after the other until that fails; give what ends it."""
    over = threading.Event()

    def run() -> None:
        for byte in data:
            try:
                client.sendall(bytes([byte]))
            except OSError:
                return
            if over.wait(every_s):
                return

    thread = threading.Thread(target=run)
    thread.start()

    def end() -> None:
        over.set()
        thread.join()

    return end


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nX: " + b"x" * 500, b"\r\n" * 500])
def test_a_head_that_comes_slowly_is_closed_and_harms_nobody(start: bytes) -> None:
    with serving(Double(), QUICK) as port, connected(port) as slow:
        begun = time.monotonic()
        end = drip(slow, start)
        latencies = []
        while time.monotonic() < begun + 0.3:
            at = time.monotonic()
            assert is_well(port)
            latencies.append(time.monotonic() - at)
        answer = read_answer(slow)
        took = time.monotonic() - begun
        end()
        assert answer is not None
        assert (answer.status, answer.json["code"]) == (408, "slow_client")
        assert 0.3 < took < 3
        assert sorted(latencies)[len(latencies) // 2] < 0.2


def test_a_slow_second_head_is_closed_too() -> None:
    with serving(Double(), QUICK) as port, connected(port) as slow:
        slow.sendall(post(TEXT))
        assert status(slow) == 200
        end = drip(slow, b"\r\n\r\nGET /health/live HTTP/1.1\r\nX: " + b"x" * 500)
        assert status(slow) == 408
        end()


def test_a_body_that_comes_slowly_is_closed() -> None:
    backend = Double()
    with serving(backend, QUICK) as port, connected(port) as slow:
        end = drip(slow, post(TEXT, content_length="500")[:200], every_s=0.001)
        answer = read_answer(slow)
        end()
        assert answer is not None
        assert (answer.status, answer.json["code"]) == (408, "slow_client")
        assert is_closed(slow)
        assert is_well(port)
        assert len(backend.seen) == 1


def test_a_connection_that_idles_between_requests_is_kept_then_closed() -> None:
    config = FrontConfig(times=TimesConfig(head_s=0.2, idle_s=1))
    with serving(Double(), config) as port, connected(port) as client:
        client.sendall(post(TEXT))
        assert status(client) == 200
        time.sleep(0.5)
        client.sendall(post(TEXT))
        assert status(client) == 200
        begun = time.monotonic()
        assert is_closed(client)
        assert time.monotonic() - begun > 0.8


def test_a_request_that_began_in_time_is_not_cut_off_for_idling() -> None:
    config = FrontConfig(times=TimesConfig(idle_s=1))
    with serving(Double(), config) as port, connected(port) as client:
        client.sendall(post(TEXT))
        assert status(client) == 200
        client.sendall(b"GET /health/live HTTP/1.1\r\n")
        time.sleep(1.5)
        client.sendall(b"Host: x\r\n\r\n")
        assert status(client) == 200


def test_line_ends_between_requests_do_not_keep_a_connection() -> None:
    with serving(Double(), QUICK) as port, connected(port) as client:
        client.sendall(post(TEXT))
        assert status(client) == 200
        client.sendall(b"\r\n")
        assert status(client) == 408


def test_a_client_that_does_not_read_is_cut_off() -> None:
    config = FrontConfig(
        times=TimesConfig(answer_s=0.4), limits=Limits(candidates=100_000), deadline_ms=60_000
    )
    body = msgspec.json.encode({"user": {}, "candidates": {"item": list(range(100_000))}})
    with serving(Double(), config) as port, connected(port) as greedy:
        # Their answers are more than the kernel holds for a client.
        greedy.sendall(post(body) * 3)
        time.sleep(1.5)
        greedy.settimeout(2)
        assert is_closed(greedy)
        assert is_well(port)


def test_requests_ahead_of_a_client_that_is_cut_off_do_not_fail(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = FrontConfig(
        times=TimesConfig(answer_s=0.4), limits=Limits(candidates=100_000), deadline_ms=60_000
    )
    body = msgspec.json.encode({"user": {}, "candidates": {"item": list(range(100_000))}})
    with serving(Double(), config) as port, connected(port) as greedy:
        # The third waits until the answers before it are taken, and the fourth behind it.
        greedy.sendall(2 * post(body) + 2 * post(TEXT))
        time.sleep(1.5)
        assert is_closed(greedy)
    assert not caplog.records


@pytest.mark.parametrize("count", [1, 3])
def test_a_client_that_leaves_cancels_what_it_waited_for(count: int) -> None:
    backend = Double(wait_s=30)
    with serving(backend) as port:
        with connected(port) as client:
            client.sendall(post(msgspec.json.encode({"requests": [BODY] * count})))
            wait_until(lambda: backend.running == count)
        wait_until(lambda: backend.cancelled == count)
        backend.wait_s = 0
        assert is_well(port)


def test_a_client_that_leaves_within_its_body_asks_nothing() -> None:
    backend = Double()
    with serving(backend) as port:
        with connected(port) as client:
            client.sendall(post(TEXT, content_length="5000"))
        with connected(port) as client:
            client.sendall(CHUNKED + b'5\r\n{"us')
        assert is_well(port)
        assert len(backend.seen) == 1


def test_a_length_of_a_gibibyte_is_refused_at_once() -> None:
    with serving(Double()) as port, connected(port) as client:
        begun = time.monotonic()
        client.sendall(post(b"{", content_length=str(1 << 30)))
        answer = read_answer(client)
        assert answer is not None
        assert (answer.status, answer.json["code"]) == (413, "too_large")
        assert time.monotonic() - begun < 0.5
        assert is_closed(client)


def test_a_refused_client_that_goes_on_sending_reads_why() -> None:
    config = FrontConfig(limits=Limits(body_bytes=1000))
    with serving(Double(), config) as port, connected(port) as client:
        client.sendall(post(b" " * 20_000_000))
        assert status(client) == 413


def test_chunks_beyond_the_limit_are_refused() -> None:
    config = FrontConfig(limits=Limits(body_bytes=1000))
    with serving(Double(), config) as port, connected(port) as client:
        client.sendall(CHUNKED + (b"100\r\n" + b" " * 256 + b"\r\n") * 8)
        assert status(client) == 413
        assert is_closed(client)


def test_chunk_extensions_and_trailers_do_not_grow() -> None:
    config = FrontConfig(limits=Limits(body_bytes=1000), head_bytes=2000)
    for flood in (b"1;" + b"x" * 5000, b"1\r\n{\r\n0\r\nX: " + b"x" * 5000):
        with serving(Double(), config) as port, connected(port) as client:
            client.sendall(CHUNKED + flood)
            assert status(client) == 413


@pytest.mark.parametrize(
    "flood",
    [
        b"X: " + b"x" * 300_000,
        b"X: y\r\n" * 50_000,
        b"X: " + b"x" * 100_000 + b"\r\n\r\n",
        b"",
    ],
)
def test_heads_do_not_grow(flood: bytes) -> None:
    line = b"GET /" + (b"" if flood else b"x" * 300_000) + b" HTTP/1.1\r\nHost: x\r\n"
    with serving(Double()) as port, connected(port) as client:
        client.sendall(line + flood)
        assert status(client) in {413, 0}
        assert is_closed(client)
        assert is_well(port)


def test_requests_sent_ahead_are_answered_in_order() -> None:
    with serving(Double()) as port, connected(port) as client:
        texts = [msgspec.json.encode({**BODY, "id": str(one)}) for one in range(5)]
        client.sendall(b"".join(map(post, texts)))
        held = b""
        while held.count(b"HTTP/1.1 200") < 5 or not held.endswith(b"}"):
            held += client.recv(1 << 16)
        places = [held.index(f'"id":"{one}"'.encode()) for one in range(5)]
        assert places == sorted(places)


def test_more_requests_ahead_than_allowed_end_the_connection() -> None:
    backend = Double(wait_s=0.2)
    with serving(backend) as port, connected(port) as client:
        client.sendall(post(TEXT) + b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        assert is_closed(client)
        backend.wait_s = 0
        assert is_well(port)


def test_garbage_after_a_request_is_not_taken_for_its_answer() -> None:
    backend = Double(wait_s=0.3)
    with serving(backend) as port, connected(port) as client:
        client.sendall(post(TEXT) + b"\x00garbage\r\n\r\n")
        assert read_answer(client) is None
        backend.wait_s = 0
        assert is_well(port)


POST = b"POST /v1/rank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "wrong",
    [
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        POST + b"Content-Length: 5, 5\r\n\r\nhello",
        POST + b"Content-Length: +5\r\n\r\nhello",
        POST + b"Content-Length: -5\r\n\r\nhello",
        POST + b"Content-Length: 0x5\r\n\r\nhello",
        POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nhello",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        POST + b"X: a\r\n b: c\r\nContent-Length: 5\r\n\r\nhello",
        POST + b"X: a\0b\r\nContent-Length: 5\r\n\r\nhello",
        POST.replace(b"\r\n", b"\n") + b"Content-Length: 5\n\nhello",
        CHUNKED + b"ffffffffffffffffff\r\n",
        CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"5;a\nhello\r\n0\r\n\r\n",
        POST + b"Connection: upgrade\r\nUpgrade: h2c, websocket\r\nContent-Length: 5\r\n\r\nhello",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 50,
    ],
)
def test_what_others_might_read_otherwise_is_one_400(wrong: bytes) -> None:
    with serving(Double()) as port, connected(port) as client:
        client.sendall(wrong)
        answer = read_answer(client)
        assert answer is not None
        assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
        assert is_closed(client)


@pytest.mark.parametrize("kind", [b"Content-Length: %d", b"Transfer-Encoding: chunked"])
def test_an_offer_of_http_2_is_not_taken(kind: bytes) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAQ\r\n"
    head, sent = kind, b"%x\r\n%b\r\n0\r\n\r\n" % (len(TEXT), TEXT)
    if b"%" in kind:
        head, sent = kind % len(TEXT), TEXT
    short = b"GET /health/live HTTP/1.1\r\nHost: x\r\n" + offer + b"\r\n"
    with serving(Double()) as port, connected(port) as client:
        # In one piece, so that the parser must go on behind each of them; the last has no offer.
        requests = short + POST + offer + head + b"\r\n\r\n" + sent + short
        client.sendall(requests + post(TEXT, connection="close"))
        answers = b""
        while piece := client.recv(1 << 16):
            answers += piece
        assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200"] * 4
        assert answers.count(b'"blended"') == 2


def test_connections_beyond_the_limit_are_refused_and_room_comes_back() -> None:
    with serving(Double(), FrontConfig(connections=2)) as port:
        with connected(port) as first, connected(port) as second, connected(port) as third:
            assert status(third) == 503
            for client in (first, second):
                client.sendall(post(TEXT))
                assert status(client) == 200
        wait_until(lambda: is_well(port))


@contextmanager
def connected_to_ending_server(
    backend: Double, *, drain_s: float = 30.0
) -> Iterator[socket.socket]:
    """Give a connection whose request is under way when the server is told to end."""
    with ExitStack() as server:
        port = server.enter_context(serving(backend, drain_s=drain_s))
        with connected(port) as client:
            client.sendall(post(TEXT))
            wait_until(lambda: backend.running == 1)
            ending = threading.Thread(target=server.close)
            ending.start()
            yield client
            ending.join()


def test_what_is_under_way_is_answered_before_the_server_ends() -> None:
    backend = Double(wait_s=0.5)
    with connected_to_ending_server(backend) as client:
        assert status(client) == 200


def test_what_takes_longer_than_draining_is_told_so() -> None:
    backend = Double(wait_s=30)
    with connected_to_ending_server(backend, drain_s=0.5) as client:
        answer = read_answer(client)
        assert answer is not None
        assert (answer.status, answer.json["code"]) == (503, "overloaded")


def test_an_expectation_is_met() -> None:
    with serving(Double()) as port, connected(port) as client:
        head, body = post(TEXT, expect="100-continue").split(b"\r\n\r\n")
        client.sendall(head + b"\r\n\r\n")
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        assert status(client) == 200


def test_a_certificate_that_is_missing_is_a_config_error(tmp_path: Path) -> None:
    tls = TlsConfig(certificate=str(tmp_path / "no.pem"), key=str(tmp_path / "no.key"))
    config = FrontConfig(tls=tls)
    with pytest.raises(ConfigError, match="certificate or its key cannot be loaded"):
        uvicorn_config(make_app(Double(), config), config, drain_s=30.0)
