"""A front end's way to the compute process: requests are decoded here, scored there.

Needs no torch. If the compute process ends, all that wait are told so; the connection is made anew
as soon as there is another one.

Shapes: N candidates.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from rankloom.errors import (
    DeadlineError,
    OverloadedError,
    RankLoomError,
    ServingError,
)
from rankloom.serving.aside import LARGE_CANDIDATES, aside
from rankloom.serving.decoding import Decoding
from rankloom.serving.frames import Frame, FrameBuffer, Kind, encode_frame, pack_parts
from rankloom.serving.front.blend import order_of
from rankloom.serving.refusals import Hold, RecentRefusals
from rankloom.serving.request import RankRequest, RankResult, Served
from rankloom.serving.store.config import StoreConfig
from rankloom.serving.store.door import DoorCounts, FeatureDoor
from rankloom.serving.telemetry.metrics import Metrics
from rankloom.serving.telemetry.request_log import RequestLog

logger = logging.getLogger("rankloom.serving")
FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 1.0
CLOSE_AFTER_S = 10.0
GRACE_S = 1.0
"""How long after its deadline a request is waited for: the compute process itself refuses what is
late, unless it does not go on at all."""
PING_EVERY_S = 1.0
STALLED_AFTER_S = 5.0
"""Nothing is served while the compute process has not gone on for so long."""
_ERRORS: dict[str, type[ServingError]] = {
    "deadline": DeadlineError,
    "overloaded": OverloadedError,
    "internal": ServingError,
}


class _Answer(NamedTuple):
    """What the compute process said."""

    scores: dict[str, npt.NDArray[np.float64]]
    timing_ms: dict[str, float]
    is_hit: bool


class _Retired(Exception):  # noqa: N818 (no error: the request is decoded anew)
    """The artifact that a request was decoded for has gone."""


class Remote(asyncio.Protocol):
    """Answers requests by the compute process; a `Backend`.

    Args:
        socket: Path of its Unix socket.
        formula: Of the blended score.
        deadline_ms: Of a request that names none.
        store: Where features are looked up.
        metrics: Where to count.
        log: Takes requests that were ranked, as they were decoded.
    """

    def __init__(
        self,
        socket: Path,
        *,
        formula: str | None,
        deadline_ms: float,
        store: StoreConfig | None,
        metrics: Metrics,
        log: RequestLog | None,
    ) -> None:
        self._socket = str(socket)
        self._store, self._log = store, log
        self._formula = formula
        self._deadline_ms = deadline_ms
        self._metrics = metrics
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[_Answer]] = {}
        self._decodings: dict[str, Decoding] = {}
        self._counted = DoorCounts()
        self._refusals = RecentRefusals()
        self._current: Decoding | None = None
        self._transport: asyncio.Transport | None = None
        self._alive_s = 0.0
        """When the compute process last went on."""
        self._lost = asyncio.Event()
        self.has_begun = asyncio.Event()
        """Set once something is served."""
        self.has_failed = asyncio.Event()
        """Set when the first artifact cannot be decoded for."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def stay_connected(self) -> None:
        """Connect to the compute process, and again whenever it has gone; ends when cancelled."""
        wait_s = FIRST_WAIT_S
        while True:
            self._lost.clear()
            self._buffer = FrameBuffer()
            try:
                loop = asyncio.get_running_loop()
                await loop.create_unix_connection(lambda: self, self._socket)
            except OSError:
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
                continue
            wait_s = FIRST_WAIT_S
            try:
                await self._ping()
            finally:
                if self._transport is not None:
                    self._transport.close()

    async def _ping(self) -> None:
        """Ask for signs of life until the connection is lost."""
        while not self._lost.is_set():
            self._say(Frame(Kind.PING, None))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), PING_EVERY_S)

    def _ready(self) -> Decoding | None:
        """Give what is served, if the compute process goes on."""
        is_stalled = time.monotonic() - self._alive_s > STALLED_AFTER_S
        return None if self._transport is None or is_stalled else self._current

    def filled(self, _served: Served) -> list[str]:
        """List what clients need not send, such as `user/age`."""
        door = None if self._current is None else self._current.door
        return [] if door is None else door.filled()

    def served(self) -> Served | None:
        """Give what is served, or none as long as nothing is."""
        ready = self._ready()
        return None if ready is None else ready.served

    def examples(self) -> Sequence[RankRequest]:
        """Give some golden requests of what is served."""
        return () if self._current is None else self._current.examples

    def groups(self) -> Mapping[str, Sequence[str]]:
        """Give group -> features, where what is served has such."""
        return {} if self._current is None else self._current.groups

    async def fill(self, request: RankRequest) -> RankRequest:
        """Give a request with the columns that it lacks and a feature store has.

        Raises:
            RequestError: An id is of a wrong type, or not known where that is to be refused.
            OverloadedError: A store does not answer.
        """
        door = None if self._current is None else self._current.door
        return request if door is None else await self._filled(request, door)

    async def rank(self, request: RankRequest) -> RankResult:
        """Rank one request's candidates; see `Backend`."""
        return await self._answer(request, self._log)

    async def try_out(self, request: RankRequest, *, keep_state: bool) -> RankResult:
        """Rank as `rank` does, and keep the request out of the log that models are trained on.

        Args:
            request: What to rank.
            keep_state: Whether the user's state may take a place in the cache.
        """
        return await self._answer(request, None, keep_state=keep_state)

    async def _answer(
        self, request: RankRequest, log: RequestLog | None, *, keep_state: bool = True
    ) -> RankResult:
        arrived_s = time.monotonic()
        budget_ms = self._deadline_ms if request.deadline_ms is None else request.deadline_ms
        deadline_s = arrived_s + budget_ms / 1e3
        if self._refusals.cover(request.num_candidates, budget_ms / 1e3, arrived_s):
            self._metrics.reject("held")
            raise OverloadedError("server: has no room for a request more. Ask again later.")
        while True:
            current = self._ready()
            if current is None:
                raise OverloadedError("server: nothing is served at the moment. Ask again later.")
            with contextlib.suppress(_Retired):
                request, result = await self._rank(
                    request, current, arrived_s, deadline_s, keep_state=keep_state
                )
                if log is not None:
                    log.write(request, result)
                return result
            # The new artifact is announced on the same way, before or right after.
            await asyncio.sleep(0.001)

    async def _rank(
        self,
        request: RankRequest,
        current: Decoding,
        arrived_s: float,
        deadline_s: float,
        *,
        keep_state: bool,
    ) -> tuple[RankRequest, RankResult]:
        """Give the request with what a store had of it, and its result."""
        if current.door is not None:
            request = await self._filled(request, current.door)
        decoded = await aside(
            partial(current.decode, request), is_large=request.num_candidates > LARGE_CANDIDATES
        )
        if self._transport is None:
            raise _ended()
        self._metrics.count_oov(decoded.oov)
        layout, arrays = pack_parts(decoded.parts)
        number = next(self._numbers)
        message = {
            "number": number,
            "digest": current.served.digest,
            "arrived_s": arrived_s,
            "deadline_s": deadline_s,
            "user_key": decoded.user_key,
            "keep_state": keep_state,
            "num_spared": self._refusals.take_spared(),
            "num_rows": decoded.parts.num_rows,
            "layout": layout,
        }
        decoded_s = time.monotonic()
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._say(Frame(Kind.RANK, message, arrays))
        try:
            async with asyncio.timeout(deadline_s + GRACE_S - decoded_s):
                answer = await future
        except TimeoutError:
            self._say(Frame(Kind.CANCEL, number))
            raise DeadlineError(
                "server: the process that computes did not answer in time. Ask again."
            ) from None
        except asyncio.CancelledError:
            self._say(Frame(Kind.CANCEL, number))
            raise
        finally:
            self._waiting.pop(number, None)
        blended = current.blend(answer.scores)
        result = RankResult(
            scores=answer.scores,
            blended=blended,
            order=order_of(blended, request.top_k),
            digest=current.served.digest,
            timing_ms={
                "decode": 1e3 * (decoded_s - arrived_s),
                **answer.timing_ms,
                "total": 1e3 * (time.monotonic() - arrived_s),
            },
            id=request.id,
            is_hit=answer.is_hit,
        )
        return request, result

    async def _filled(self, request: RankRequest, door: FeatureDoor) -> RankRequest:
        """Fill in what a request does not bring, and count what was looked up."""
        try:
            return await door.fill(request)
        finally:
            now, before = replace(door.counts), self._counted
            self._counted = now
            self._metrics.look_up_store(
                "items",
                hits=now.items_found - before.items_found,
                missing=now.items_missing - before.items_missing,
            )
            self._metrics.look_up_store(
                "users",
                hits=now.users_found - before.users_found,
                missing=now.users_missing - before.users_missing,
                errors=_user_errors(now) - _user_errors(before),
            )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to talk."""
        # uvloop's transports are none by inheritance.
        self._transport = cast("asyncio.Transport", transport)
        self._alive_s = time.monotonic()

    def data_received(self, data: bytes) -> None:
        """Hear what the compute process says."""
        for frame in self._buffer.feed(data):
            self._hear(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all that wait."""
        del exc
        self._transport = None
        self._current = None
        self._decodings.clear()
        self._refusals.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(_ended())
        self._lost.set()

    def _say(self, frame: Frame) -> None:
        if self._transport is not None:
            self._transport.write(encode_frame(frame))

    def _hear(self, frame: Frame) -> None:
        message = frame.message
        if frame.kind is Kind.RESULT:
            scores = dict(zip(message["tasks"], frame.arrays, strict=True))
            self._settle(message, _Answer(scores, message["timing_ms"], message["is_hit"]))
        elif frame.kind is Kind.FAILED:
            if message["hold"] is not None:
                self._refusals.note(Hold(*message["hold"]))
            kind = _ERRORS.get(message["code"])
            error = _Retired() if kind is None else kind(message["detail"])
            self._settle(message, error)
        elif frame.kind is Kind.PONG:
            self._alive_s = time.monotonic() - message
        elif frame.kind is Kind.OFFER:
            self._do(self._get_ready(message))
        elif frame.kind is Kind.SERVE:
            if self._current is not None and self._current.door is not None:
                self._do(_close_later(self._current.door))
            self._current = self._decodings[message]
            self._decodings = {message: self._current}
            self._counted = DoorCounts()
            self._refusals.clear()
            self.has_begun.set()
            if self._log is not None:
                self._log.begin(self._current.served, self._current.examples)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _settle(self, message: Mapping[str, Any], outcome: _Answer | Exception) -> None:
        future = self._waiting.get(message["number"])
        if future is None or future.done():
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    async def _get_ready(self, offer: Mapping[str, Any]) -> None:
        digest = offer["digest"]
        try:
            self._decodings[digest] = await asyncio.to_thread(
                Decoding.of, offer, self._formula, self._store
            )
        except RankLoomError as error:
            self._say(Frame(Kind.REFUSED, {"digest": digest, "detail": str(error)}))
            if not self.has_begun.is_set():
                self.has_failed.set()
        else:
            self._say(Frame(Kind.LOADED, digest))


async def _close_later(door: FeatureDoor) -> None:
    # Requests that were decoded for the artifact before may still ask it.
    await asyncio.sleep(CLOSE_AFTER_S)
    await door.close()


def _ended() -> OverloadedError:
    return OverloadedError(
        "server: the process that computes has ended. Ask again: another begins."
    )


def _user_errors(counts: DoorCounts) -> int:
    return counts.users_unreachable + counts.users_not_asked + counts.values_damaged
