"""A double of what ranks, a schema with a column of each form, and bodies of requests."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import uvicorn
from starlette.applications import Starlette

from rankloom.data.request import RequestDecoder
from rankloom.schema import (
    BinaryTask,
    DenseFeature,
    DenseTrainingOnly,
    Roles,
    Schema,
    SequenceColumn,
    SequenceFeature,
    SparseFeature,
    VectorFeature,
)
from rankloom.serving.kserve import kserve_routes
from rankloom.serving.limits import Limits
from rankloom.serving.request import RankRequest, RankResult, Served

DIGEST = "0123456789abcdef" * 4
SCHEMA = Schema(
    {
        "user_id": SparseFeature(side="user", hash_buckets=50),
        "age": DenseFeature(side="user", default=30.0),
        "history": SequenceFeature(
            side="user",
            columns={"item": SequenceColumn(hash_buckets=50)},
            time="history_time",
            max_length=5,
        ),
        "taste": VectorFeature(side="user", dim=2, default="zeros"),
        "country": SparseFeature(side="context", hash_buckets=9, default="none"),
        "hour": SparseFeature(side="context", num_embeddings=24),
        "item_id": SparseFeature(side="item", hash_buckets=50),
        "tags": SparseFeature(side="item", hash_buckets=50, pooling="sum", weights="tag_weights"),
        "price": DenseFeature(side="item"),
        "picture": VectorFeature(side="item", dim=3, default="zeros"),
        "place": DenseFeature(side="cross", training_only=DenseTrainingOnly(serving_default=0.0)),
    },
    roles=Roles(event_time="now"),
    tasks={"click": BinaryTask(label="click"), "order": BinaryTask(label="order")},
)
DECODER = RequestDecoder(SCHEMA, {})
SERVED = Served("shop", DIGEST, SCHEMA, DECODER.columns())

NUMPY = {"INT64": "<i8", "FP32": "<f4", "FP64": "<f8", "BOOL": "?", "UINT8": "u1"}


class Double:
    """Scores the n-th candidate n / 10, and remembers what it was asked."""

    def __init__(self, served: Served | None = SERVED, error: Exception | None = None) -> None:
        self._served = served
        self.error = error
        self.requests: list[RankRequest] = []

    def served(self) -> Served | None:
        return self._served

    async def rank(self, request: RankRequest) -> RankResult:
        self.requests.append(request)
        if self.error is not None:
            raise self.error
        count = len(next(iter(request.candidates.values()), ()))
        scores = np.arange(count) / 10
        return RankResult(
            scores={"click": scores, "order": scores + 1},
            blended=-scores,
            order=np.arange(count, dtype=np.int64)[: request.top_k],
            digest=DIGEST,
            timing_ms={"queue": 0.5, "total": 2.0},
            id=request.id,
        )


class Client:
    """Asks an application in this process."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                return await client.request(method, path, **options)

        return asyncio.run(ask())

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)


def client_of(double: Double, limits: Limits | None = None, **options: Any) -> Client:
    return Client(Starlette(routes=kserve_routes(double, limits or Limits(), **options)))


@contextmanager
def served_by(double: Double, limits: Limits | None = None) -> Iterator[str]:
    """Serve over loopback; gives host:port."""
    app = Starlette(routes=kserve_routes(double, limits or Limits()))
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def tensor(name: str, datatype: str, data: list[Any], shape: list[int] | None = None) -> dict:
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": data}


def raw_of(one: Mapping[str, Any]) -> bytes:
    """Give a tensor's values as the protocol writes them."""
    if one["datatype"] == "BYTES":
        texts = [text.encode() for text in one["data"]]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    return np.array(one["data"], NUMPY[one["datatype"]]).tobytes()


def body_of(inputs: list[dict], **others: Any) -> tuple[bytes, dict[str, str]]:
    """Give a request with raw tensors, and its header."""
    parts = [raw_of(one) for one in inputs]
    heads = [
        {**{k: v for k, v in one.items() if k != "data"}, "parameters": {"binary_data_size": n}}
        for one, n in zip(inputs, map(len, parts), strict=True)
    ]
    head = json.dumps({"inputs": heads, **others}).encode()
    return b"".join([head, *parts]), {"Inference-Header-Content-Length": str(len(head))}


def needed() -> list[dict]:
    """Give the inputs that may not be left out, for two candidates."""
    return [
        tensor("context/hour", "INT64", [20]),
        tensor("context/now", "INT64", [1000]),
        tensor("candidates/price", "FP32", [1.5, 2.5]),
    ]


def everything() -> list[dict]:
    """Give all inputs, for two candidates."""
    return [
        *needed(),
        tensor("user/user_id", "BYTES", ["ann"]),
        tensor("user/age", "FP64", [41.5]),
        tensor("user/history_item", "INT64", [7, 8, 9]),
        tensor("user/history_time", "INT64", [100, 200, 300]),
        tensor("user/taste", "FP32", [0.5, -0.5]),
        tensor("context/country", "BYTES", ["ch"]),
        tensor("candidates/item_id", "INT64", [3, 5]),
        tensor("candidates/tags", "BYTES", ["red", "blue", "red"]),
        tensor("candidates/tags/offsets", "INT64", [0, 1, 3]),
        tensor("candidates/tag_weights", "FP32", [1.0, 0.5, 2.0]),
        tensor("candidates/tag_weights/offsets", "INT64", [0, 1, 3]),
        tensor("candidates/picture", "FP32", [1, 2, 3, 4, 5, 6], [2, 3]),
    ]


def error_of(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    return answer.json()["error"]
