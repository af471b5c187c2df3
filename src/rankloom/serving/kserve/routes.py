"""The protocol's paths. Under every status but 200, the answer is `{"error": ...}`."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from rankloom.errors import RequestError
from rankloom.serving.aside import LARGE_BYTES, aside
from rankloom.serving.front.problems import (
    MethodError,
    NotReadyError,
    TooLargeError,
    UnknownPathError,
    problem_of,
)
from rankloom.serving.kserve.body import compress, read_body
from rankloom.serving.kserve.message import HEADER_LENGTH, read_request, write_answer
from rankloom.serving.kserve.model import Model
from rankloom.serving.limits import Limits
from rankloom.serving.request import Backend, Served

Handler = Callable[[Request], Awaitable[Response]]
Stored = Callable[[Served], Collection[str]]
_VERSION = importlib.metadata.version("rankloom")


def _nothing_is_stored(_served: Served) -> Collection[str]:
    return ()


def kserve_routes(
    backend: Backend, limits: Limits, *, stored: Stored = _nothing_is_stored
) -> list[Route]:
    """Give the routes of the Open Inference Protocol; all of them begin with `/v2`.

    Args:
        backend: What ranks.
        limits: Of bodies, candidates and events.
        stored: Says of what is served which inputs, such as `user/age`, the backend finds by
            itself where they are left out; any other that may be left out is None then.
    """
    paths = _Paths(backend, limits, stored)
    get, post = ("GET", "HEAD"), ("POST",)
    model = "/v2/models/{name}"
    version = model + "/versions/{version}"
    handlers: list[tuple[str, Handler, Sequence[str]]] = [
        ("/v2", paths.server, get),
        ("/v2/health/live", paths.live, get),
        ("/v2/health/ready", paths.ready, get),
        ("/v2/repository/index", paths.index, post),
    ]
    for path in (model, version):
        handlers += [
            (path, paths.metadata, get),
            (path + "/ready", paths.model_ready, get),
            (path + "/infer", paths.infer, post),
        ]
    routes = [Route(path, _answering(one, allowed), methods=[]) for path, one, allowed in handlers]
    nowhere = _answering(paths.nowhere, ())
    return [*routes, Route("/v2/{rest:path}", nowhere, methods=[])]


class _Paths:
    """What answers at each path."""

    def __init__(self, backend: Backend, limits: Limits, stored: Stored) -> None:
        self._backend = backend
        self._limits = limits
        self._stored = stored
        self._model: Model | None = None

    async def server(self, _request: Request) -> Response:
        extensions = ["binary_tensor_data", "parameters"]
        return _json({"name": "rankloom", "version": _VERSION, "extensions": extensions})

    async def live(self, _request: Request) -> Response:
        return _json({"live": True})

    async def ready(self, _request: Request) -> Response:
        self._served()
        return _json({"ready": True})

    async def index(self, _request: Request) -> Response:
        model = self._served()
        state = {"name": model.name, "version": model.version, "state": "READY", "reason": ""}
        return _json([state])

    async def metadata(self, request: Request) -> Response:
        return _json(self._asked_for(request).metadata)

    async def model_ready(self, request: Request) -> Response:
        return _json({"name": self._asked_for(request).name, "ready": True})

    async def infer(self, request: Request) -> Response:
        model = self._asked_for(request)
        body = await read_body(request, max_bytes=self._limits.body_bytes)
        read = partial(read_request, body, request.headers, model=model, limits=self._limits)
        asked = await aside(read, is_large=len(body) > LARGE_BYTES)
        result = await self._backend.rank(asked.request)
        answer, header_length = write_answer(result, asked, name=model.name)
        headers = {"Content-Type": "application/json"}
        if header_length is not None:
            headers = {"Content-Type": "application/octet-stream"}
            headers[HEADER_LENGTH] = str(header_length)
        answer, encoding = compress(answer, request.headers.get("accept-encoding", ""))
        if encoding is not None:
            headers["Content-Encoding"] = encoding
        return Response(answer, headers=headers)

    async def nowhere(self, request: Request) -> Response:
        raise UnknownPathError(f"{request.url.path[:200]!r}: there is nothing here.")

    def _served(self) -> Model:
        """Give what is served at the moment.

        Raises:
            NotReadyError: Nothing is yet.
        """
        served = self._backend.served()
        if served is None:
            raise NotReadyError("server: no model is ready. Ask again soon.")
        model = self._model
        if model is None or (model.digest, model.name) != (served.digest, served.name):
            model = self._model = Model(served, stored=self._stored(served))
        return model

    def _asked_for(self, request: Request) -> Model:
        """Give what is served, if it is what a path names.

        Raises:
            NotReadyError: Nothing is served.
            UnknownPathError: It is not.
        """
        model = self._served()
        name, version = request.path_params["name"], request.path_params.get("version")
        if name != model.name:
            raise UnknownPathError(f"model {name[:200]!r}: is not served. Ask for {model.name!r}.")
        if version not in (None, model.version):
            raise UnknownPathError(
                f"model {name!r}: version {version[:200]!r} is not served. Ask for "
                f"{model.version!r}, or for none."
            )
        return model


def _answering(handler: Handler, allowed: Sequence[str]) -> Handler:
    """Give a handler whose errors are answers in the protocol's form."""

    async def answer(request: Request) -> Response:
        if allowed and request.method not in allowed:
            wrong = MethodError(f"method: must be {allowed[0]}. Got {request.method[:20]!r}.")
            return _error(wrong, {"Allow": ", ".join(allowed)})
        try:
            return await handler(request)
        except ClientDisconnect:
            return _error(RequestError("body: the client left before its end."))
        except TooLargeError as error:
            # The rest of the body is not read: the connection is of no more use.
            return _error(error, {"Connection": "close"})
        except Exception as error:  # noqa: BLE001 (`problem_of` logs what nobody foresaw)
            return _error(error)

    return answer


def _error(error: Exception, headers: Mapping[str, str] | None = None) -> Response:
    problem = problem_of(error)
    lines = [problem.document["detail"], *problem.document.get("problems", ())]
    message = "\n".join(dict.fromkeys(lines))
    return _json({"error": message}, problem.status, {**problem.headers, **(headers or {})})


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    body = msgspec.json.encode(value)
    return Response(body, status, headers, media_type="application/json")
