"""The application of an HTTP front end: which path leads where.

    app = make_app(backend, FrontConfig())

| path | what |
|---|---|
| `POST /v1/rank` | rank candidates (JSON or MessagePack) |
| `GET /v1/artifact` | what is served: name, digest, columns, tasks |
| `GET /health/live`, `/health/ready` | whether the process runs; whether it can rank |
| `GET /openapi.json` | the description of all this |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Message

from rankloom.errors import RequestError
from rankloom.serving.front.answers import RANK_PATH, json_messages, problem_messages
from rankloom.serving.front.config import FrontConfig, read_token
from rankloom.serving.front.guard import Guard
from rankloom.serving.front.openapi import artifact_of, openapi_of
from rankloom.serving.front.problems import (
    MethodError,
    NotReadyError,
    UnknownPathError,
    problem_of,
)
from rankloom.serving.front.rank import RankEndpoint
from rankloom.serving.request import Backend, Served


def make_app(
    backend: Backend,
    config: FrontConfig,
    *,
    extra_routes: Sequence[BaseRoute] = (),
    extra_middleware: Sequence[Middleware] = (),
) -> Starlette:
    """Put a front end's application together.

    Args:
        backend: What ranks.
        config: Limits and token.
        extra_routes: Further paths; they are guarded like the others.
        extra_middleware: What stands around all, the guard included, such as a log of requests.

    Raises:
        ConfigError: The token cannot be read.
    """
    paths = _Paths(backend, config)
    routes = [
        Route(RANK_PATH, RankEndpoint(backend, config), methods=["POST"]),
        Route("/v1/artifact", paths.artifact, methods=["GET"]),
        Route("/health/live", paths.live, methods=["GET"]),
        Route("/health/ready", paths.ready, methods=["GET"]),
        Route("/openapi.json", paths.openapi, methods=["GET"]),
        *extra_routes,
    ]
    app = Starlette(
        routes=routes,
        middleware=[
            *extra_middleware,
            Middleware(Guard, config=config, token=read_token(config.token)),
        ],
        exception_handlers={HTTPException: _http_problem, Exception: _failure},
    )
    # A redirect would have clients send their bodies twice, or lose them.
    app.router.redirect_slashes = False
    return app


class _Paths:
    """What answers the short questions."""

    def __init__(self, backend: Backend, config: FrontConfig) -> None:
        self._backend = backend
        self._config = config

    async def artifact(self, _request: Request) -> Response:
        served = self._served()
        return _json({**artifact_of(served), "blend": self._config.blend})

    async def live(self, _request: Request) -> Response:
        return _json({"status": "live"})

    async def ready(self, _request: Request) -> Response:
        return _json({"status": "ready", "digest": self._served().digest})

    async def openapi(self, _request: Request) -> Response:
        return _json(openapi_of(self._backend.served(), self._config))

    def _served(self) -> Served:
        served = self._backend.served()
        if served is None:
            raise NotReadyError("No artifact is served at the moment. Ask again soon.")
        return served


async def _http_problem(request: Request, error: Exception) -> Response:
    """Answer what Starlette refuses."""
    assert isinstance(error, HTTPException)
    path = repr(request.url.path[:200])
    found: Exception = error
    if error.status_code == 404:
        found = UnknownPathError(f"{path}: nothing stands here. See /openapi.json.")
    elif error.status_code == 405:
        found = MethodError(f"{path}: cannot be asked by {request.method[:20]!r}.")
    elif error.status_code < 500:
        found = RequestError(f"{path}: {error.detail}")
    problem = problem_of(found)
    allowed = {**problem.headers, **(error.headers or {})}
    return _response(problem_messages(replace(problem, headers=allowed), request.scope))


async def _failure(request: Request, error: Exception) -> Response:
    """Answer what failed outside the guard."""
    return _response(problem_messages(problem_of(error), request.scope))


def _json(value: Any) -> Response:
    return _response(json_messages(value))


def _response(messages: tuple[Message, Message]) -> Response:
    start, body = messages
    response = Response(body["body"], start["status"])
    response.raw_headers = start["headers"]
    return response
