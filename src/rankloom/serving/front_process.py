"""A front end: HTTP on one side, the compute process on the other; runs without torch."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rankloom.errors import RankLoomError
from rankloom.serving.config import FrontSettings
from rankloom.serving.front.app import make_app
from rankloom.serving.front.run import uvicorn_config
from rankloom.serving.kserve import kserve_routes
from rankloom.serving.observed import ObservedBackend, Observer
from rankloom.serving.page.routes import page_routes
from rankloom.serving.processes import ready_file, set_up_log, settings_of_child, share_python
from rankloom.serving.remote import Remote
from rankloom.serving.telemetry.access_log import AccessLog
from rankloom.serving.telemetry.metrics import Metrics
from rankloom.serving.telemetry.request_log import RequestLog


def build(settings: FrontSettings) -> Starlette:
    """Put the application together; it connects to the compute process while it runs.

    Raises:
        ConfigError: The token cannot be read, or the metrics' folder not be written to.
    """
    metrics = Metrics(Path(settings.metrics), process=f"front-{settings.number}")
    access_log = request_log = None
    if settings.access_log is not None:
        access_log = AccessLog(settings.access_log, partial(metrics.log_lines, "access"))
    if settings.request_log is not None:
        request_log = RequestLog(settings.request_log, partial(metrics.log_lines, "requests"))
    remote = Remote(
        Path(settings.compute),
        formula=settings.front.blend,
        deadline_ms=settings.front.deadline_ms,
        store=settings.store,
        metrics=metrics,
        log=request_log,
    )
    backend = ObservedBackend(remote)

    async def show_metrics(_request: Request) -> Response:
        return Response(metrics.render(), media_type=metrics.content_type)

    async def say_ready() -> None:
        await remote.has_begun.wait()
        ready_file(Path(settings.metrics), settings.number).touch()

    async def end_on_failure() -> None:
        # The compute process logs the reason; the supervisor sees that this process ends.
        await remote.has_failed.wait()
        os.kill(os.getpid(), signal.SIGTERM)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        hear = access_log.reopen if access_log is not None else _do_nothing
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hear)
        work = (remote.stay_connected(), say_ready(), end_on_failure())
        tasks = [asyncio.create_task(one) for one in work]
        yield
        for task in tasks:
            task.cancel()
        for log in (access_log, request_log):
            if log is not None:
                await asyncio.to_thread(log.close)

    page = []
    if settings.page:
        page = page_routes(remote, snapshot=metrics.snapshot, limits=settings.front.limits)
    app = make_app(
        backend,
        settings.front,
        extra_routes=[
            *kserve_routes(backend, settings.front.limits, stored=remote.filled),
            *page,
            Route("/metrics", show_metrics, methods=["GET"]),
        ],
        extra_middleware=[Middleware(Observer, metrics=metrics, log=access_log)],
    )
    app.router.lifespan_context = lifespan
    return app


def _do_nothing() -> None:
    """Without a log, there is nothing to open anew."""


def main() -> None:
    """Run as a child of the supervisor."""
    settings = settings_of_child(FrontSettings)
    set_up_log(f"front-{settings.number}")
    share_python()
    try:
        config = uvicorn_config(build(settings), settings.front, drain_s=settings.drain_s)
    except RankLoomError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    listening = socket.socket(fileno=settings.listening)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
