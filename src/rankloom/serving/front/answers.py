"""Answers as ASGI messages: results and problems, in the format that the client reads.

JSON has no NaN and no infinity: the encoder writes null for a score that is not finite; MessagePack
keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.types import Message, Scope

from rankloom.errors import RequestError
from rankloom.serving import wire
from rankloom.serving.front.media import Media, answer_media, body_media
from rankloom.serving.front.problems import Problem
from rankloom.serving.request import RankResult

RANK_PATH = "/v1/rank"
_PROTOCOL_PATHS = "/v2"
_encoder = msgspec.json.Encoder()


def messages(
    body: bytes,
    content_type: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> tuple[Message, Message]:
    """Give the two messages of an answer."""
    lines = {
        "content-type": content_type,
        "content-length": str(len(body)),
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        **(headers or {}),
    }
    start = {
        "type": "http.response.start",
        "status": status,
        "headers": [(name.lower().encode(), value.encode()) for name, value in lines.items()],
    }
    return start, {"type": "http.response.body", "body": body}


def json_messages(value: Any) -> tuple[Message, Message]:
    """Answer with plain values."""
    return messages(_encoder.encode(value), "application/json")


def problem_messages(problem: Problem, scope: Scope) -> tuple[Message, Message]:
    """Answer with a problem, in the format that the request asks for as far as it can be told."""
    media: Media = "json"
    if scope["path"] == RANK_PATH:
        try:
            media = answer_media(scope, body_media(scope))
        except RequestError:
            media = "json"
    document = dict(problem.document)
    if scope["path"].startswith(_PROTOCOL_PATHS):
        # The Open Inference Protocol's clients read this member, and no other.
        document["error"] = document["detail"]
    if media == "msgpack":
        body, content_type = wire.encode_problem(document), wire.CONTENT_TYPE
    else:
        body, content_type = _encoder.encode(document), "application/problem+json"
    return messages(body, content_type, status=problem.status, headers=problem.headers)


def result_messages(
    results: Sequence[RankResult | Problem], media: Media, *, is_list: bool
) -> tuple[Message, Message]:
    """Answer with results; a problem may stand in a result's place.

    Args:
        results: One for each user that was asked for, in order; at least one is a result.
        media: The format.
        is_list: Whether several users were asked for, be it in a list of one.
    """
    if media == "msgpack":
        packed = [one.document if isinstance(one, Problem) else one for one in results]
        return messages(wire.encode_results(packed, is_list=is_list), wire.CONTENT_TYPE)
    plain = [plain_of(one) for one in results]
    return json_messages({"results": plain} if is_list else plain[0])


def plain_of(result: RankResult | Problem) -> dict[str, Any]:
    """Give a result, or the problem in its place, as plain values."""
    if isinstance(result, Problem):
        return {"problem": result.document}
    return {
        "id": result.id,
        "digest": result.digest,
        "order": result.order.tolist(),
        "blended": result.blended.tolist(),
        "scores": {task: scores.tolist() for task, scores in result.scores.items()},
        "timing_ms": dict(result.timing_ms),
    }
