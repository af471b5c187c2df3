from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from tests.unit.serving.kserve_double import (
    DIGEST,
    SERVED,
    Double,
    client_of,
    error_of,
    needed,
    tensor,
)

from rankloom.errors import DeadlineError, OverloadedError, RequestError

INFER = "/v2/models/shop/infer"
LENGTH = "Inference-Header-Content-Length"


@pytest.mark.parametrize("path", ["/v2/models/shop", f"/v2/models/shop/versions/{DIGEST[:12]}"])
def test_a_model_is_known_by_its_name_and_version(path: str) -> None:
    client = client_of(Double())
    answer = client.get(path).json()
    assert (answer["name"], answer["versions"]) == ("shop", ["0123456789ab"])
    assert [one["name"] for one in answer["outputs"]] == [
        "scores/click", "scores/order", "blended", "order",
    ]  # fmt: skip
    assert client.get(path + "/ready").json() == {"name": "shop", "ready": True}
    assert client.post(path + "/infer", json={"inputs": needed()}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/shopp", 404),
        ("GET", "/v2/models/shop/versions/1", 404),
        ("GET", f"/v2/models/shop/versions/{DIGEST}/ready", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", "/v2/models/stats", 404),
        ("GET", "/v2/models/shop/config", 404),
        ("GET", "/v2/", 404),
        ("POST", "/v2/systemsharedmemory/unregister", 404),
        ("GET", INFER, 405),
        ("POST", "/v2", 405),
        ("DELETE", "/v2/models/shop", 405),
    ],
)
def test_what_is_not_there_is_an_error(method: str, path: str, status: int) -> None:
    answer = client_of(Double()).request(method, path)
    assert error_of(answer, status)
    assert ("allow" in answer.headers) == (status == 405)


def test_nothing_is_ready_before_an_artifact_is() -> None:
    client = client_of(Double(served=None))
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2").json()["name"] == "rankloom"
    for path in ("/v2/health/ready", "/v2/models/shop", "/v2/models/shop/ready"):
        assert "no model is ready" in error_of(client.get(path), 503)
    assert client.post(INFER, json={"inputs": []}).headers["retry-after"] == "1"


def test_a_swapped_artifact_is_another_version() -> None:
    double = Double()
    client = client_of(double)
    assert client.get("/v2/health/ready").json() == {"ready": True}
    client.get("/v2/models/shop")
    double._served = replace(SERVED, digest="f" * 64)
    assert client.get("/v2/models/shop").json()["versions"] == ["f" * 12]


def test_json_comes_back_where_raw_bytes_are_not_asked_for() -> None:
    body = {"inputs": needed(), "id": "a", "parameters": {"top_k": 1, "deadline_ms": 50}}
    double = Double()
    answer = client_of(double).post(INFER, json=body)
    assert LENGTH not in answer.headers
    assert answer.json() == {
        "model_name": "shop",
        "model_version": "0123456789ab",
        "id": "a",
        "parameters": {"digest": DIGEST, "queue_ms": 0.5, "total_ms": 2.0},
        "outputs": [
            tensor("scores/click", "FP64", [0.0, 0.1]),
            tensor("scores/order", "FP64", [1.0, 1.1]),
            tensor("blended", "FP64", [0.0, -0.1]),
            tensor("order", "INT64", [0]),
        ],
    }
    request = double.requests[0]
    assert (request.id, request.top_k, request.deadline_ms) == ("a", 1, 50)


def test_only_outputs_that_are_named_come_back() -> None:
    outputs = [{"name": "order", "parameters": {"binary_data": True}}, {"name": "blended"}]
    answer = client_of(Double()).post(INFER, json={"inputs": needed(), "outputs": outputs})
    length = int(answer.headers[LENGTH])
    first, second = json.loads(answer.content[:length])["outputs"]
    assert first["parameters"] == {"binary_data_size": 16}
    assert answer.content[length:] == b"\0" * 8 + b"\1" + b"\0" * 7
    assert second == tensor("blended", "FP64", [0.0, -0.1])


def test_an_output_may_differ_from_the_default() -> None:
    body = {
        "inputs": needed(),
        "outputs": [{"name": "blended", "parameters": {"binary_data": False}}],
        "parameters": {"binary_data_output": True},
    }
    answer = client_of(Double()).post(INFER, json=body)
    assert answer.json()["outputs"] == [tensor("blended", "FP64", [0.0, -0.1])]


@pytest.mark.parametrize(
    ("parameters", "header", "deadline_ms"),
    [
        ({}, None, None),
        ({}, "12.5", 12.5),
        ({"deadline_ms": 30}, "40", 30),
        ({"deadline_ms": 30}, "20", 20),
        ({"timeout": 5000}, "20", 5),
        ({"deadline_ms": 0.0}, None, 0),
    ],
)
def test_the_shortest_deadline_counts(
    parameters: dict, header: str | None, deadline_ms: float | None
) -> None:
    double = Double()
    headers = {} if header is None else {"X-Deadline-Ms": header}
    body = {"inputs": needed(), "parameters": parameters}
    assert client_of(double).post(INFER, json=body, headers=headers).status_code == 200
    assert double.requests[0].deadline_ms == deadline_ms


def test_all_mistakes_are_told_at_once() -> None:
    inputs = [tensor("age", "INT64", [1]), tensor("user/age", "INT64", [1], [2])]
    body = {"inputs": inputs, "outputs": [{"name": "blend"}, {"name": "blend"}]}
    answer = client_of(Double()).post(INFER, json=body, headers={"X-Deadline-Ms": "1e3"})
    told = error_of(answer, 400).splitlines()
    assert told[0] == "request has 5 mistakes:"
    starts = [line.split(":")[0] for line in told[1:]]
    assert starts == ["input 'age'", "input 'user/age'", "outputs", "outputs", "X-Deadline-Ms"]
    assert "Did you mean 'blended'?" in told[3]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"top_k": 0}, "Expected `int` >= 1 - at `$.parameters.top_k`"),
        ({"top_k": True}, "Expected `int | null`, got `bool` - at `$.parameters.top_k`"),
        ({"deadline_ms": -1}, "Expected `float` >= 0.0 - at `$.parameters.deadline_ms`"),
        ({"timeout": 10**400}, "Number out of range - at `$.parameters.timeout`"),
        ({"binary_data_output": 1}, "Expected `bool`, got `int`"),
        ({"deadlin_ms": 5}, "unknown field `deadlin_ms` - at `$.parameters`"),
        ({"sequence_id": 5}, "unknown field `sequence_id`"),
    ],
)
def test_parameters_must_have_an_effect(parameters: dict, said: str) -> None:
    body = {"inputs": needed(), "parameters": parameters}
    assert said in error_of(client_of(Double()).post(INFER, json=body), 400)


@pytest.mark.parametrize(
    "outputs",
    [
        [{"name": "order"}, {"name": "order"}],
        [{"name": "order", "parameters": {"classification": 2}}],
        [{"name": "order", "parameters": {"binary_data": "yes"}}],
        [{"name": "order", "parameters": {"shared_memory_region": "x"}}],
        [{"name": "click"}] * 50_000,
    ],
)
def test_outputs_must_be_such_that_can_be_given(outputs: list[dict]) -> None:
    answer = client_of(Double()).post(INFER, json={"inputs": needed(), "outputs": outputs})
    assert len(error_of(answer, 400)) < 500


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RequestError("x"), 400),
        (DeadlineError("x"), 504),
        (OverloadedError("x"), 503),
    ],
)
def test_errors_of_ranking_have_their_status(error: Exception, status: int) -> None:
    answer = client_of(Double(error=error)).post(INFER, json={"inputs": needed()})
    assert error_of(answer, status) == "x"
    assert answer.headers.get("retry-after") == ("1" if status == 503 else None)


def test_an_unforeseen_error_is_told_in_the_protocols_form() -> None:
    answer = client_of(Double(error=KeyError("secret"))).post(INFER, json={"inputs": needed()})
    assert "secret" not in error_of(answer, 500)


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [("gzip", "gzip"), ("br, deflate", "deflate"), ("gzip;q=0, identity", None), ("", None)],
)
def test_long_answers_are_compressed_if_asked(accepted: str, encoding: str | None) -> None:
    inputs = [*needed()[:2], tensor("candidates/price", "FP32", [0.5] * 200)]
    headers = {"Accept-Encoding": accepted}
    answer = client_of(Double()).post(INFER, json={"inputs": inputs}, headers=headers)
    assert answer.headers.get("content-encoding") == encoding
    assert len(answer.json()["outputs"][0]["data"]) == 200


def test_importing_needs_neither_torch_nor_arrow() -> None:
    code = (
        "import sys, rankloom.serving.kserve\n"
        "sys.exit(bool({'torch', 'pyarrow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
