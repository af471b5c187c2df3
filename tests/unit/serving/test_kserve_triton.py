"""The real `tritonclient.http` talks to a real server, over loopback."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tests.unit.serving.kserve_double import (
    DIGEST,
    NUMPY,
    SERVED,
    Double,
    everything,
    needed,
    served_by,
    tensor,
)
from tritonclient.utils import InferenceServerException

from rankloom.errors import DeadlineError, OverloadedError

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def double() -> Double:
    return Double()


@pytest.fixture(scope="module")
def address(double: Double) -> Iterator[str]:
    with served_by(double) as address:
        yield address


@pytest.fixture
def client(address: str, double: Double) -> Iterator[triton.InferenceServerClient]:
    double.requests.clear()
    double.error = None
    with triton.InferenceServerClient(address) as client:
        yield client


def inputs_of(given: list[dict], *, binary: bool = True) -> list[triton.InferInput]:
    found = []
    for one in given:
        is_text = one["datatype"] == "BYTES"
        array = np.array(one["data"], object if is_text else NUMPY[one["datatype"]])
        made = triton.InferInput(one["name"], one["shape"], one["datatype"])
        found.append(made.set_data_from_numpy(array.reshape(one["shape"]), binary_data=binary))
    return found


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def test_the_server_is_live_and_ready(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("shop")
    assert client.is_model_ready("shop", DIGEST[:12])
    assert not client.is_model_ready("shop", "1")
    assert not client.is_model_ready("other")


def test_the_client_reads_metadata(client: triton.InferenceServerClient) -> None:
    assert client.get_server_metadata()["name"] == "rankloom"
    metadata = client.get_model_metadata("shop", DIGEST[:12])
    assert {one["name"] for one in everything()} == {one["name"] for one in metadata["inputs"]}
    (index,) = client.get_model_repository_index()
    assert index == {"name": "shop", "version": DIGEST[:12], "state": "READY", "reason": ""}


@pytest.mark.parametrize("binary", [True, False])
def test_the_client_ranks(
    client: triton.InferenceServerClient, double: Double, binary: bool
) -> None:
    answer = client.infer(
        "shop",
        inputs_of(everything(), binary=binary),
        request_id="a-1",
        timeout=70_000,
        headers={"X-Deadline-Ms": "60"},
        parameters={"top_k": 1},
    )
    assert answer.as_numpy("scores/click").tolist() == [0.0, 0.1]
    assert answer.as_numpy("scores/order").tolist() == [1.0, 1.1]
    assert answer.as_numpy("blended").dtype == np.float64
    assert answer.as_numpy("order").tolist() == [0]
    response = answer.get_response()
    assert (response["id"], response["model_version"]) == ("a-1", DIGEST[:12])
    assert response["parameters"] == {"digest": DIGEST, "queue_ms": 0.5, "total_ms": 2.0}
    (request,) = double.requests
    assert (request.id, request.deadline_ms, request.top_k) == ("a-1", 60, 1)
    assert plain(request.user) == {
        "user_id": "ann",
        "age": 41.5,
        "history_item": [7, 8, 9],
        "history_time": [100, 200, 300],
        "taste": [0.5, -0.5],
    }
    assert plain(request.context) == {"hour": 20, "now": 1000, "country": "ch"}
    assert plain(request.candidates) == {
        "price": [1.5, 2.5],
        "item_id": [3, 5],
        "tags": [["red"], ["blue", "red"]],
        "tag_weights": [[1.0], [0.5, 2.0]],
        "picture": [[1, 2, 3], [4, 5, 6]],
    }


@pytest.mark.parametrize("binary", [True, False])
def test_the_client_gets_the_outputs_that_it_names(
    client: triton.InferenceServerClient, binary: bool
) -> None:
    outputs = [triton.InferRequestedOutput("order", binary_data=binary)]
    answer = client.infer("shop", inputs_of(needed()), outputs=outputs)
    assert answer.as_numpy("order").tolist() == [0, 1]
    assert answer.as_numpy("blended") is None


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_the_client_compresses(
    client: triton.InferenceServerClient, double: Double, algorithm: str
) -> None:
    prices = tensor("candidates/price", "FP32", [0.5] * 300)
    answer = client.infer(
        "shop",
        inputs_of([*needed()[:2], prices]),
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert len(double.requests[0].candidates["price"]) == 300
    assert answer.as_numpy("order").tolist() == list(range(300))


def test_requests_of_one_client_at_the_same_time(address: str) -> None:
    with triton.InferenceServerClient(address, concurrency=4) as client:
        asked = [
            client.async_infer("shop", inputs_of(needed()), request_id=str(at)) for at in range(8)
        ]
        answers = [one.get_result().get_response()["id"] for one in asked]
    assert answers == [str(at) for at in range(8)]


@pytest.mark.parametrize(
    ("error", "status"),
    [(DeadlineError("too late"), "504"), (OverloadedError("no room"), "503")],
)
def test_the_client_is_told_what_went_wrong(
    client: triton.InferenceServerClient, double: Double, error: Exception, status: str
) -> None:
    double.error = error
    with pytest.raises(InferenceServerException, match=str(error)) as caught:
        client.infer("shop", inputs_of(needed()))
    assert caught.value.status() == status
    assert caught.value.message() == str(error)


def test_the_client_is_told_all_its_mistakes(client: triton.InferenceServerClient) -> None:
    wrong = [tensor("age", "FP32", [1.0]), tensor("hour", "FP32", [1.0, 2.0])]
    with pytest.raises(InferenceServerException) as caught:
        client.infer("shop", inputs_of(wrong))
    assert caught.value.status() == "400"
    assert caught.value.message().startswith("request has 2 mistakes:\ninput 'age': ")


@pytest.mark.parametrize("ask", ["get_model_config", "get_inference_statistics"])
def test_what_is_not_there_is_told_cleanly(client: triton.InferenceServerClient, ask: str) -> None:
    with pytest.raises(InferenceServerException, match="there is nothing here") as caught:
        getattr(client, ask)("shop")
    assert caught.value.status() == "404"


def test_shared_memory_is_refused(client: triton.InferenceServerClient) -> None:
    one = triton.InferInput("user/age", [1], "FP32")
    one.set_shared_memory("region", 4)
    with pytest.raises(InferenceServerException, match="no shared memory here"):
        client.infer("shop", [*inputs_of(needed()), one])


def test_the_example_of_the_docs_runs(
    address: str, double: Double, capsys: pytest.CaptureFixture[str]
) -> None:
    double.error = None
    text = (ROOT / "docs" / "kserve.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert "127.0.0.1:8000" in code
    exec(compile(code.replace("127.0.0.1:8000", address), "docs/kserve.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "user/user_id INT64 [1] {'optional': True, 'also_accepts': 'BYTES'}" in printed
    assert f"scores [0.  0.1 0.2]\nbest [0 1]\ndigest {SERVED.digest}\n" in printed
    assert double.requests[-1].candidates["tags"] == [["red"], [], ["blue", "red"]]
    json.dumps(plain(double.requests[-1].user))
