"""A backend whose scores are sums that can be done by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx
import numpy as np

from rankloom.errors import OverloadedError
from rankloom.schema import (
    BinaryTask,
    DenseFeature,
    Roles,
    Schema,
    SequenceColumn,
    SequenceFeature,
    SparseFeature,
)
from rankloom.serving.front.app import make_app
from rankloom.serving.front.blend import order_of
from rankloom.serving.front.config import FrontConfig
from rankloom.serving.page.routes import page_routes
from rankloom.serving.request import RankRequest, RankResult, Served

SCHEMA = Schema(
    {
        "age": DenseFeature(side="user", default=2.0),
        "watched": SequenceFeature(
            side="user",
            columns={"item": SequenceColumn(table="item")},
            time="watched_time",
            first_event="watched_first",
        ),
        "hour": SparseFeature(side="context", num_embeddings=24),
        "item": SparseFeature(side="item", num_embeddings=9, default=0),
        "price": DenseFeature(side="item", default=1.0),
        "price_band": DenseFeature(side="item", column="price", default=1.0),
    },
    roles=Roles(event_time="now", item="item"),
    tasks={"click": BinaryTask(label="click"), "buy": BinaryTask(label="buy")},
)
SERVED = Served("double", "d" * 64, SCHEMA, {"user": [], "context": [], "candidates": []})
REQUEST = RankRequest(
    user={"age": 3.0, "watched_item": [1, 2], "watched_time": [5, 6], "watched_first": 4},
    context={"hour": 7, "now": 9},
    candidates={"item": [3, 5], "price": [10.0, 20.0]},
)
BODY = {"user": REQUEST.user, "context": REQUEST.context, "candidates": REQUEST.candidates}


def _or(value: Any, default: float) -> Any:
    return default if value is None else value


class PageDouble:
    """Scores by click = age + price + item * events + what was dropped; buy is twice as much."""

    def __init__(self, groups: Mapping[str, Sequence[str]] | None = None) -> None:
        self.is_ready = True
        self.tried: list[RankRequest] = []
        self.kept: list[bool] = []
        self.most_running = self.running = 0
        self.next_digests: list[str] = []
        self.fail_at: int | None = None
        self.num_finished = 0
        self._groups = groups or {}

    def served(self) -> Served | None:
        return SERVED if self.is_ready else None

    def examples(self) -> Sequence[RankRequest]:
        return [REQUEST]

    def groups(self) -> Mapping[str, Sequence[str]]:
        return self._groups

    async def fill(self, request: RankRequest) -> RankRequest:
        assert isinstance(request.candidates, Mapping)
        return replace(request, candidates={"price": [10.0, 20.0], **request.candidates})

    async def rank(self, request: RankRequest) -> RankResult:
        raise AssertionError("made-up requests are tried out")

    async def try_out(self, request: RankRequest, *, keep_state: bool) -> RankResult:
        self.tried.append(request)
        self.kept.append(keep_state)
        if len(self.tried) == self.fail_at:
            raise OverloadedError("full")
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(0.001)
        self.running -= 1
        self.num_finished += 1
        click = scores_of(request)
        return RankResult(
            scores={"click": click, "buy": 2 * click},
            blended=click**2,
            order=order_of(click, request.top_k),
            digest=self.next_digests.pop(0) if self.next_digests else SERVED.digest,
        )


def scores_of(request: RankRequest) -> np.ndarray:
    user, rows = request.user, request.candidates
    assert isinstance(rows, Mapping)
    dropped = user["watched_first"] + len(user["watched_item"] or [])
    return np.array(
        [
            _or(user["age"], 2.0) + _or(price, 1.0) + _or(item, 0) * dropped
            for item, price in zip(rows["item"], rows["price"], strict=True)
        ]
    )


def ask(
    backend: PageDouble,
    method: str,
    path: str,
    body: Any = None,
    *,
    config: FrontConfig | None = None,
    snapshot: Any = dict,
    headers: Mapping[str, str] | None = None,
    times: int = 1,
) -> httpx.Response:
    """Ask an application with the page, so many times; give the last answer."""
    config = config or FrontConfig()
    routes = page_routes(backend, snapshot=snapshot, limits=config.limits)
    app = make_app(backend, config, extra_routes=routes)

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            for _ in range(times):
                answer = await client.request(method, path, json=body, headers=headers)
        return answer

    return asyncio.run(asked())
