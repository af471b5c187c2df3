"""POST /v1/rank: from a body to requests, to results, to an answer.

One user, or several as `{"requests": [...]}`, which are ranked at one time. Of several, each has
its result or its problem in place, and the status is 200 if at least one was answered; if none
was, the answer is the problem of the first one.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from rankloom.errors import DeadlineError, RequestError
from rankloom.serving.aside import LARGE_BYTES, LARGE_CANDIDATES, aside
from rankloom.serving.front.answers import problem_messages, result_messages
from rankloom.serving.front.config import FrontConfig
from rankloom.serving.front.guard import ARRIVED
from rankloom.serving.front.media import Media, answer_media, body_media, deadline_ms
from rankloom.serving.front.problems import NotReadyError, Problem, problem_of
from rankloom.serving.members import requests_of
from rankloom.serving.request import Backend, RankRequest, RankResult
from rankloom.serving.wire import decode_body

MAX_CONTAINERS = 1_000_000
"""Lists and mappings of a JSON body: empty ones take 20 times their bytes in memory."""


class RankEndpoint:
    """Answers /v1/rank, behind a `Guard`.

    Args:
        backend: What ranks.
        config: Limits, and the default deadline.
    """

    def __init__(self, backend: Backend, config: FrontConfig) -> None:
        self._backend = backend
        self._config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one body.

        Raises:
            RequestError: It is wrong; all mistakes at once.
            NotReadyError: Nothing is served.
        """
        media = body_media(scope)
        limit_ms = deadline_ms(scope)
        if self._backend.served() is None:
            raise NotReadyError("No artifact is served at the moment. Ask again soon.")
        # A POST without any body meets no guard: its client may have gone, which is no body too.
        body = (await receive()).get("body", b"")
        requests, is_list = await aside(
            partial(self._read, body, media), is_large=len(body) > LARGE_BYTES
        )
        outcomes = await self._rank_all(requests, limit_ms, arrived=scope[ARRIVED])
        results = [one if isinstance(one, RankResult) else problem_of(one) for one in outcomes]
        first = results[0]
        if isinstance(first, Problem) and all(isinstance(one, Problem) for one in results):
            answer = problem_messages(first, scope)
        else:
            answer = await aside(
                partial(result_messages, results, answer_media(scope, media), is_list=is_list),
                is_large=_num_candidates(results) > LARGE_CANDIDATES,
            )
        for message in answer:
            await send(message)

    def _read(self, body: bytes, media: Media) -> tuple[list[RankRequest], bool]:
        """Give a body's requests, and whether they came as a list."""
        values = decoded(body, media)
        requests = requests_of(values, self._config.limits)
        return requests, isinstance(values, dict) and "requests" in values

    async def _rank_all(
        self, requests: list[RankRequest], limit_ms: float | None, *, arrived: float
    ) -> list[RankResult | BaseException]:
        if len(requests) == 1:
            # What one user's request raises is the whole body's answer.
            return [await self._rank(requests[0], limit_ms, arrived=arrived)]
        ranked = (self._rank(one, limit_ms, arrived=arrived) for one in requests)
        return await asyncio.gather(*ranked, return_exceptions=True)

    async def _rank(
        self, request: RankRequest, limit_ms: float | None, *, arrived: float
    ) -> RankResult:
        given = [one for one in (limit_ms, request.deadline_ms) if one is not None]
        deadline = min(given) if given else self._config.deadline_ms
        left = deadline - (time.monotonic() - arrived) * 1000
        if left <= 0:
            raise DeadlineError(
                f"deadline: of {deadline:g} ms nothing was left once the request had been read. "
                "Give more time, or send less."
            )
        return await self._backend.rank(replace(request, deadline_ms=left))


def _num_candidates(results: Sequence[RankResult | Problem]) -> int:
    return sum(len(one.blended) for one in results if isinstance(one, RankResult))


def decoded(body: bytes, media: Media) -> Any:
    """Give a body's plain values.

    Of a name that is given twice, the last value counts. Whole numbers are exact, however large.

    Raises:
        RequestError: It is not of that format.
    """
    # Looking for garbage after each some hundred new lists takes ten times as long as parsing.
    gc.disable()
    try:
        return _json_values(body) if media == "json" else decode_body(body)
    finally:
        gc.enable()


def _json_values(body: bytes) -> Any:
    if body.count(b"[") + body.count(b"{") > MAX_CONTAINERS:
        raise RequestError(
            f"body: may have {MAX_CONTAINERS} lists and mappings. Got more. Send candidates as "
            "columns."
        )
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RequestError(f"body: is no JSON: {error}. Mend it.") from None
    except RecursionError:
        raise RequestError("body: is nested too deeply. Flatten it.") from None
