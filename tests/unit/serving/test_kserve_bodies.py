from __future__ import annotations

import gzip
import json
import threading
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.unit.serving.kserve_double import (
    Double,
    body_of,
    client_of,
    error_of,
    everything,
    needed,
    tensor,
)

from rankloom.serving.kserve import routes
from rankloom.serving.kserve.message import MAX_JSON_BYTES, MAX_TENSORS, Asked, read_request
from rankloom.serving.limits import Limits

INFER = "/v2/models/shop/infer"
LENGTH = "Inference-Header-Content-Length"


@pytest.mark.parametrize("length", ["0", "-1", "x", "", "99999", "1" * 5000, "1.0", "\xb2"])
def test_the_length_of_the_json_must_be_one(length: str) -> None:
    body, _ = body_of(needed())
    headers = {LENGTH: length.encode("latin-1")}
    answer = client_of(Double()).post(INFER, content=body, headers=headers)
    assert LENGTH in error_of(answer, 400)


@pytest.mark.parametrize("size", [-1, True, "8", 1.0, 10**30, 9])
def test_a_wrong_number_of_raw_bytes_is_refused(size: Any) -> None:
    one = {**tensor("user/age", "INT64", [1]), "parameters": {"binary_data_size": size}}
    del one["data"]
    head = json.dumps({"inputs": [one]}).encode()
    headers = {LENGTH: str(len(head))}
    answer = client_of(Double()).post(INFER, content=head + b"\0" * 8, headers=headers)
    assert "binary_data_size" in error_of(answer, 400)


def test_raw_bytes_of_no_input_are_refused() -> None:
    body, headers = body_of(needed())
    answer = client_of(Double()).post(INFER, content=body + b"\0", headers=headers)
    assert "Got 1 of them" in error_of(answer, 400)


def test_raw_bytes_need_the_header() -> None:
    one = {**tensor("user/age", "INT64", [1]), "parameters": {"binary_data_size": 8}}
    answer = client_of(Double()).post(INFER, json={"inputs": [one]})
    assert LENGTH in error_of(answer, 400)


def test_an_input_stands_once() -> None:
    answer = client_of(Double()).post(INFER, json={"inputs": [*needed(), needed()[0]]})
    assert "'context/hour': is given twice" in error_of(answer, 400)


def test_json_is_limited() -> None:
    body = b" " * MAX_JSON_BYTES + b"{}"
    said = error_of(client_of(Double()).post(INFER, content=body), 413)
    assert "its JSON is longer than 2097152 bytes. Got 2097154" in said


def test_a_long_body_of_raw_bytes_is_read_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    double = Double()
    threads = []

    def read(*given: Any, **options: Any) -> Asked:
        threads.append(threading.current_thread())
        return read_request(*given, **options)

    monkeypatch.setattr(routes, "read_request", read)
    history = tensor("user/history_item", "INT64", [7] * 100_000)
    body, headers = body_of([*needed(), history])
    assert client_of(double).post(INFER, content=body, headers=headers).status_code == 200
    assert len(double.requests[0].user["history_item"]) == 100_000
    client_of(double).post(INFER, json={"inputs": needed()})
    assert [one is threading.main_thread() for one in threads] == [False, True]


def test_top_k_is_at_most_all() -> None:
    double = Double()
    body = {"inputs": needed(), "parameters": {"top_k": 10**30}}
    assert client_of(double).post(INFER, json=body).status_code == 200
    assert double.requests[0].top_k == 10_000


def test_no_more_than_a_hundred_mistakes_are_told() -> None:
    inputs = [tensor(f"{at}", "INT64", [1]) for at in range(1000)]
    said = error_of(client_of(Double()).post(INFER, json={"inputs": inputs}), 400)
    assert said.splitlines()[-1].startswith("input '99'")


def test_inputs_are_limited() -> None:
    inputs = [tensor(f"user/{at}", "INT64", [1]) for at in range(MAX_TENSORS + 1)]
    answer = client_of(Double()).post(INFER, json={"inputs": inputs})
    assert "at most 4096 are allowed. Got 4097" in error_of(answer, 400)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b"null", b"[" * 100_000, b'{"inputs": [' + b"[" * 5000, b"\xff",
        b'{"inputs": [{"name": "user/x", "datatype": "FP32", "shape": [1], "data": ' + b"[" * 99999,
        b'{"inputs": "x"}', b'{"inputs": [{"name": 1}]}', b'{"inputs": [], "id": 5}',
        b'{"inputs": [{"name": "user/x", "datatype": "FP32", "shape": [1], "data": [NaN]}]}',
        b'{"inputs": [{"name": "user/x", "datatype": "FP32", "shape": [1e3], "data": [1]}]}',
        b'{"inputs": [{"name": "\xed\xa0\x80", "datatype": "FP32", "shape": [1], "data": [1]}]}',
    ],
)  # fmt: skip
def test_malformed_bodies_are_refused(body: bytes) -> None:
    said = error_of(client_of(Double()).post(INFER, content=body), 400)
    assert said.startswith("body: is no inference request")


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_compressed_bodies_are_read(encoding: str, pack: Any) -> None:
    double = Double()
    body, headers = body_of(everything())
    headers["Content-Encoding"] = encoding
    answer = client_of(double).post(INFER, content=pack(body), headers=headers)
    assert answer.status_code == 200
    assert double.requests[0].user["user_id"] == "ann"


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", gzip.compress(b" " * 100_000), 413),
        ("deflate", zlib.compress(b" " * 100_000), 413),
        ("gzip", b"{}", 400),
        ("gzip", b"", 400),
        ("gzip", gzip.compress(b"{}")[:-1], 400),
        ("gzip", gzip.compress(b"{}") * 2, 400),
        ("br", b"{}", 415),
        ("gzip, gzip", b"{}", 415),
    ],
)
def test_hostile_compressed_bodies_are_refused(encoding: str, body: bytes, status: int) -> None:
    headers = {"Content-Encoding": encoding}
    client = client_of(Double(), Limits(body_bytes=1000))
    assert error_of(client.post(INFER, content=body, headers=headers), status)


def test_a_bomb_stays_small() -> None:
    bomb = gzip.compress(bytes(50 << 20))
    client = client_of(Double(), Limits(body_bytes=100_000))
    tracemalloc.start()
    try:
        answer = client.post(INFER, content=bomb, headers={"Content-Encoding": "gzip"})
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()
    assert error_of(answer, 413)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda packed: packed[:-1], "as gzip it ends too early"),
        (lambda packed: packed + b"x", "as gzip it goes on behind its end"),
    ],
)
def test_a_compressed_body_is_whole(change: Callable[[bytes], bytes], said: str) -> None:
    body = change(gzip.compress(json.dumps({"inputs": needed()}).encode()))
    answer = client_of(Double()).post(INFER, content=body, headers={"Content-Encoding": "gzip"})
    assert said in error_of(answer, 400)


def test_a_body_may_be_as_long_as_the_limit_and_no_longer() -> None:
    body = json.dumps({"inputs": needed()}).encode()
    double = Double()
    assert client_of(double, Limits(body_bytes=len(body))).post(INFER, content=body).is_success
    answer = client_of(double, Limits(body_bytes=len(body) - 1)).post(INFER, content=body)
    assert "longer than" in error_of(answer, 413)
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(("headers", "pieces_read"), [({}, 11), ({"Content-Length": "10000"}, 0)])
def test_a_long_body_is_read_no_further_than_the_limit(
    headers: dict[str, str], pieces_read: int
) -> None:
    taken = []

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(100):
            taken.append(number)
            yield b" " * 100

    client = client_of(Double(), Limits(body_bytes=1000))
    assert error_of(client.post(INFER, content=pieces(), headers=headers), 413)
    assert len(taken) == pieces_read
