"""The page's paths.

| path | what |
|---|---|
| `GET /` | the page: no data, nothing from elsewhere, and no token needed |
| `GET /v1/snapshot` | the counts that its charts are drawn from |
| `GET /v1/examples` | requests to try, and the artifact's groups of features |
| `POST /v1/explain` | how scores change with each group at its default |
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rankloom.errors import RequestError
from rankloom.serving.front.answers import plain_of
from rankloom.serving.front.media import body_media
from rankloom.serving.front.rank import decoded
from rankloom.serving.limits import Limits
from rankloom.serving.members import requests_of
from rankloom.serving.page.document import document
from rankloom.serving.page.explain import Explainer, Explanation, PageBackend
from rankloom.serving.request import RankRequest

SNAPSHOT_AGE_S = 0.5
"""How old a snapshot may be: many open pages cost little more than one."""
_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


def page_routes(
    backend: PageBackend, *, snapshot: Callable[[], Mapping[str, Any]], limits: Limits
) -> list[Route]:
    """Give the routes of the page, to stand behind a `Guard`.

    Args:
        backend: What ranks.
        snapshot: Gives the present counts; see `telemetry.snapshot`.
        limits: On a request to be explained.
    """
    paths = _Paths(backend, snapshot, limits)
    return [
        Route("/", paths.page, methods=["GET"]),
        Route("/v1/snapshot", paths.snapshot, methods=["GET"]),
        Route("/v1/examples", paths.examples, methods=["GET"]),
        Route("/v1/explain", paths.explain, methods=["POST"]),
    ]


class _Paths:
    """What stands at the page's paths."""

    def __init__(
        self, backend: PageBackend, snapshot: Callable[[], Mapping[str, Any]], limits: Limits
    ) -> None:
        self._backend = backend
        self._snapshot = snapshot
        self._limits = limits
        self._explainer = Explainer(backend)
        self._held: Response | None = None
        self._held_until_s = 0.0

    async def page(self, _request: Request) -> Response:
        text, policy = document()
        headers = {
            **_HEADERS,
            "content-security-policy": policy,
            "referrer-policy": "no-referrer",
        }
        return Response(text, media_type="text/html", headers=headers)

    async def snapshot(self, _request: Request) -> Response:
        now_s = time.monotonic()
        if self._held is None or now_s > self._held_until_s:
            self._held = _json(self._snapshot())
            self._held_until_s = now_s + SNAPSHOT_AGE_S
        return self._held

    async def examples(self, _request: Request) -> Response:
        served = self._backend.served()
        examples = [{"request": request_text(one)} for one in self._backend.examples()]
        return _json(
            {
                "examples": examples,
                "groups": self._backend.groups(),
                "item": None if served is None else served.schema.roles.item,
            }
        )

    async def explain(self, request: Request) -> Response:
        by = request.query_params.get("by", "groups")
        if by not in {"groups", "features"}:
            raise RequestError(
                f"query by: must be groups or features. Got {by[:64]!r}. Leave it out for groups."
            )
        media = body_media(request.scope)
        body = decoded((await request.receive()).get("body", b""), media)
        requests = requests_of(body, self._limits)
        if isinstance(body, dict) and "requests" in body:
            raise RequestError("requests: one request is explained. Got a list. Send its members.")
        found = await self._explainer.explain(requests[0], by_feature=by == "features")
        return _json(_plain(found))


def request_text(request: RankRequest) -> str:
    """Write a request as JSON, a line for each column: browsers would change large ids."""
    candidates = request.candidates
    assert isinstance(candidates, Mapping)
    places = {"user": request.user, "context": request.context, "candidates": candidates}
    lines = [
        f'  "{place}": {{\n'
        + ",\n".join(f"    {_text(name)}: {_text(value)}" for name, value in columns.items())
        + "\n  }"
        for place, columns in places.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _plain(found: Explanation) -> dict[str, Any]:
    changes = [
        {
            "kind": one.group.kind,
            "name": one.group.name,
            "features": one.group.features,
            "also": one.group.also,
            "blended": one.blended.tolist(),
            "scores": {task: change.tolist() for task, change in one.scores.items()},
        }
        for one in found.changes
    ]
    return {
        **plain_of(found.result),
        "changes": changes,
        "without_default": found.without_default,
        "left_out": found.left_out,
    }


def _json(value: Any) -> Response:
    # Scores that are not finite become null.
    body = msgspec.json.encode(value)
    return Response(body, media_type="application/json", headers=_HEADERS)
