"""The compute process: owns device, artifact, scheduler and users' states.

Front ends connect to its Unix socket. One thread reads and writes, another computes (`Desk.run`).
SIGHUP makes it look whether another artifact stands where the one came from; SIGTERM ends it once
all that waits is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
import uvloop

from rankloom.artifact.verify import verify
from rankloom.errors import DeadlineError, OverloadedError, RankLoomError, ServingError
from rankloom.serving.checking import check_apart
from rankloom.serving.config import ComputeSettings
from rankloom.serving.desk import Desk, Outcome, Question, Refused, RetiredError, Scores
from rankloom.serving.frames import Frame, FrameBuffer, Kind, encode_frame, unpack_parts
from rankloom.serving.loaded import Loaded, load
from rankloom.serving.processes import set_up_log, settings_of_child, share_python
from rankloom.serving.telemetry.metrics import Metrics

logger = logging.getLogger("rankloom.serving")
OFFER_TIMEOUT_S = 60.0
"""For front ends to get ready for an artifact."""
CODES: dict[type[ServingError], str] = {
    RetiredError: "retired",
    DeadlineError: "deadline",
    OverloadedError: "overloaded",
    ServingError: "internal",
}
"""Class of an error -> what a front end is told."""


class Connection(asyncio.Protocol):
    """One front end.

    Args:
        server: Whose it is.
    """

    def __init__(self, server: ComputeServer) -> None:
        self._server = server
        self._buffer = FrameBuffer()
        self._keys: dict[int, int] = {}
        self._loop = asyncio.get_running_loop()
        self.ready: set[str] = set()
        """Digests of artifacts that it can decode for."""
        self.refused: dict[str, str] = {}
        """Digest -> why it cannot."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Tell it what is served, and what is going to be."""
        # uvloop's transports are none by inheritance.
        self._transport = cast("asyncio.Transport", transport)
        self._server.join(self)

    def data_received(self, data: bytes) -> None:
        """Hear what it says."""
        try:
            for frame in self._buffer.feed(data):
                self._hear(frame)
        except ServingError:
            logger.exception("a front end is cut off")
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what it asked: its clients are gone with it."""
        del exc
        for key in self._keys.values():
            self._server.desk.cancel(key)
        self._server.leave(self)

    def offer(self, one: Loaded, name: str) -> None:
        """Have it get ready for an artifact.

        Args:
            one: The artifact; also one that it was ready for before, and has forgotten since.
            name: What clients call the model.
        """
        self.ready.discard(one.digest)
        self.refused.pop(one.digest, None)
        self.say(Frame(Kind.OFFER, one.offer(name)))

    def say(self, frame: Frame) -> None:
        """Send a frame; only the thread of the loop may."""
        self._write(encode_frame(frame))

    def _hear(self, frame: Frame) -> None:
        message = frame.message
        if frame.kind is Kind.RANK:
            self._ask(frame)
        elif frame.kind is Kind.CANCEL:
            key = self._keys.pop(message, None)
            if key is not None:
                self._server.desk.cancel(key)
        elif frame.kind is Kind.PING:
            self.say(Frame(Kind.PONG, self._server.desk.busy_s()))
        elif frame.kind is Kind.LOADED:
            self.ready.add(message)
            self._server.hear_ready(self, message)
        elif frame.kind is Kind.REFUSED:
            self.refused[message["digest"]] = message["detail"]
            self._server.hear_ready(self, message["digest"])

    def _ask(self, frame: Frame) -> None:
        message = frame.message
        number = message["number"]
        question = Question(
            digest=message["digest"],
            parts=unpack_parts(message["layout"], frame.arrays, message["num_rows"]),
            user_key=message["user_key"],
            arrived_s=message["arrived_s"],
            deadline_s=message["deadline_s"],
            keep_state=message["keep_state"],
            num_spared=message["num_spared"],
        )
        answer = self._answer(number)
        try:
            # An answer is written by this thread, hence not before the key is known.
            self._keys[number] = self._server.desk.submit(question, answer)
        except Exception:
            logger.exception("a request could not be taken")
            self._keys[number] = 0
            answer(ServingError("server: the request could not be taken; its log says more."))

    def _answer(self, number: int) -> Callable[[Outcome], None]:
        def answer(outcome: Outcome) -> None:
            data = encode_frame(_frame_of(number, outcome))
            with contextlib.suppress(RuntimeError):  # the loop has ended, and everyone with it
                self._loop.call_soon_threadsafe(self._give, number, data)

        return answer

    def _give(self, number: int, data: bytes) -> None:
        if self._keys.pop(number, None) is not None:
            self._write(data)

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


class ComputeServer:
    """The compute process.

    Args:
        settings: What the supervisor says.
        first: The artifact to begin with; it was verified.
    """

    def __init__(self, settings: ComputeSettings, first: Loaded) -> None:
        self._settings = settings
        self._metrics = Metrics(Path(settings.metrics), process="compute")
        self._current = first
        self._offered: Loaded | None = None
        self._connections: set[Connection] = set()
        self._changed = asyncio.Event()
        self._reloading: asyncio.Task[None] | None = None
        self._wants_reload = False
        self.desk = Desk(
            settings.scheduling, cache_bytes=settings.cache_bytes, metrics=self._metrics
        )
        self._adopt(first)

    async def run(self) -> None:
        """Serve until SIGTERM."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, ended.set)
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # the supervisor gets it too
        loop.add_signal_handler(signal.SIGHUP, self._start_reload)
        thread = threading.Thread(target=self._compute, name="compute", daemon=True)
        thread.start()
        server = await loop.create_unix_server(
            lambda: Connection(self), self._settings.socket, backlog=128
        )
        logger.info("serving artifact %s from %s", self._current.digest[:12], self._current.folder)
        await ended.wait()
        server.close()
        self.desk.stop()
        await asyncio.to_thread(thread.join)
        # What the compute thread said last is written in the next turn.
        await asyncio.sleep(0.05)

    def _compute(self) -> None:
        """Compute until the end; without this thread the process is of no use."""
        try:
            self.desk.run()
        except BaseException:
            logger.exception("the compute thread failed")
            os._exit(1)

    def join(self, connection: Connection) -> None:
        """Greet a front end."""
        self._connections.add(connection)
        for one in (self._current, self._offered):
            if one is not None:
                connection.offer(one, self._settings.name)

    def leave(self, connection: Connection) -> None:
        """Forget a front end."""
        self._connections.discard(connection)
        self._changed.set()

    def hear_ready(self, connection: Connection, digest: str) -> None:
        """Take note that a front end is ready for an artifact, or never will be."""
        if digest in connection.refused:
            logger.error("a front end cannot decode for it: %s", connection.refused[digest])
        elif digest == self._current.digest:
            connection.say(Frame(Kind.SERVE, digest))
        self._changed.set()

    def _start_reload(self) -> None:
        """Reload; asked again meanwhile, do so once more afterwards."""
        self._wants_reload = True
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self._reload_as_asked())

    async def _reload_as_asked(self) -> None:
        while self._wants_reload:
            self._wants_reload = False
            try:
                result = await self._reload()
            except RankLoomError as error:
                logger.error("reload refused, the artifact stays: %s", error)  # noqa: TRY400
                result = "refused"
            except Exception:
                logger.exception("reload failed, the artifact stays")
                result = "failed"
            self._metrics.reload(result)

    async def _reload(self) -> str:
        """Serve what stands where the artifact came from.

        Returns:
            `done`, or `unchanged`.

        Raises:
            ArtifactError: It is damaged, or its golden requests are scored otherwise.
            ServingError: A front end cannot decode for it.
        """
        folder = await asyncio.to_thread(Path(self._settings.artifact).resolve)
        await asyncio.to_thread(check_apart, folder, device=self._settings.device)
        new = await asyncio.to_thread(load, folder, self._settings.device)
        if new.digest == self._current.digest:
            logger.info("reload: artifact %s is served already", new.digest[:12])
            return "unchanged"
        self._offered = new
        self.desk.add(new.engine)
        try:
            for connection in self._connections:
                connection.offer(new, self._settings.name)
            await asyncio.wait_for(self._all_ready(new.digest), OFFER_TIMEOUT_S)
        except (ServingError, TimeoutError):
            self.desk.serve(self._current.digest)
            raise
        finally:
            self._offered = None
        self._adopt(new)
        for connection in self._connections:
            connection.say(Frame(Kind.SERVE, new.digest))
        logger.info("serving artifact %s from %s", new.digest[:12], folder)
        return "done"

    async def _all_ready(self, digest: str) -> None:
        """Wait until every front end is ready for an artifact.

        Raises:
            ServingError: One never will be.
        """
        while True:
            refused = [one.refused[digest] for one in self._connections if digest in one.refused]
            if refused:
                raise ServingError(refused[0])
            if all(digest in one.ready for one in self._connections):
                return
            self._changed.clear()
            await self._changed.wait()

    def _adopt(self, new: Loaded) -> None:
        self._current = new
        self.desk.add(new.engine)
        self.desk.serve(new.digest)
        self._metrics.serve_artifact(self._settings.name, new.digest)
        path = _served_file(self._settings)
        path.with_suffix(".tmp").write_text(str(new.folder))
        path.with_suffix(".tmp").replace(path)


def _first(settings: ComputeSettings) -> Loaded:
    """Load the artifact; if it is bad, the one that the process before this one served.

    Raises:
        ArtifactError: There is none that can be served.
    """
    folder, served = Path(settings.artifact).resolve(), _served_file(settings)
    try:
        verify(folder, device=settings.device)
        return load(folder, settings.device)
    except RankLoomError as error:
        if not served.exists():
            raise
        logger.error("artifact refused, the one before it stays: %s", error)  # noqa: TRY400
        return load(Path(served.read_text()), settings.device)


def _served_file(settings: ComputeSettings) -> Path:
    """Give the file that says which folder is served, for the next process."""
    return Path(settings.metrics) / "served.txt"


def _frame_of(number: int, outcome: Outcome) -> Frame:
    """Say what became of a request."""
    if isinstance(outcome, Scores):
        about = {
            "number": number,
            "timing_ms": outcome.timing_ms,
            "is_hit": outcome.is_hit,
            "tasks": list(outcome.scores),
        }
        return Frame(Kind.RESULT, about, list(outcome.scores.values()))
    error, hold = (outcome.error, outcome.hold) if isinstance(outcome, Refused) else (outcome, None)
    code = next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)
    about = {"number": number, "code": code, "detail": str(error), "hold": hold}
    return Frame(Kind.FAILED, about)


def main() -> None:
    """Run as a child of the supervisor."""
    settings = settings_of_child(ComputeSettings)
    set_up_log("compute")
    share_python()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    try:
        first = _first(settings)
    except RankLoomError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)

    async def serve() -> None:
        await ComputeServer(settings, first).run()

    uvloop.run(serve())


if __name__ == "__main__":
    main()
