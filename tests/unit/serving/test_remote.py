"""The way to the compute process: what front ends make of its signs of life."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest
from tests.unit.serving.front_doubles import SERVED

from rankloom.errors import OverloadedError, RequestError
from rankloom.serving.frames import Frame, FrameBuffer, Kind, encode_frame
from rankloom.serving.refusals import Hold
from rankloom.serving.remote import STALLED_AFTER_S, Remote
from rankloom.serving.request import RankRequest
from rankloom.serving.telemetry.metrics import Metrics


class Refusing:
    """A decoding that refuses all, and notes in which thread it was asked."""

    served, door = SERVED, None

    def __init__(self) -> None:
        self.threads: list[str] = []

    def decode(self, request: RankRequest) -> None:
        self.threads.append(threading.current_thread().name.split("_")[0])
        raise RequestError("request: is wrong.")


def connected(tmp_path: Path) -> Remote:
    remote = Remote(
        tmp_path / "none",
        formula=None,
        deadline_ms=100.0,
        store=None,
        metrics=Metrics(),
        log=None,
    )
    remote._buffer = FrameBuffer()
    remote.connection_made(cast("asyncio.Transport", object()))
    remote._current = cast("Any", Refusing())
    return remote


def test_nothing_is_served_while_a_computation_hangs(tmp_path: Path) -> None:
    remote = connected(tmp_path)
    assert remote.served() is SERVED
    remote.data_received(encode_frame(Frame(Kind.PONG, 6.0)))
    assert remote.served() is None
    # A long one is none that hangs.
    remote.data_received(encode_frame(Frame(Kind.PONG, 4.0)))
    assert remote.served() is SERVED


def test_nothing_is_served_while_there_is_no_sign_of_life(tmp_path: Path) -> None:
    remote = connected(tmp_path)
    remote._alive_s -= STALLED_AFTER_S
    assert remote.served() is None
    remote.data_received(encode_frame(Frame(Kind.PONG, 0.0)))
    assert remote.served() is SERVED


@pytest.mark.parametrize(("count", "thread"), [(10, "MainThread"), (5000, "aside")])
def test_many_candidates_are_decoded_beside_the_loop(
    tmp_path: Path, count: int, thread: str
) -> None:
    remote = connected(tmp_path)
    request = RankRequest(user={}, candidates={"item": [7] * count})
    with pytest.raises(RequestError):
        asyncio.run(remote.rank(request))
    assert cast("Any", remote._current).threads == [thread]


def refuse(remote: Remote, hold: Hold) -> None:
    about = {"number": 1, "code": "overloaded", "detail": "", "hold": hold}
    remote.data_received(encode_frame(Frame(Kind.FAILED, about)))


def test_what_was_refused_a_moment_ago_is_refused_without_being_decoded(tmp_path: Path) -> None:
    remote = connected(tmp_path)
    current = cast("Any", remote._current)
    request = RankRequest(user={}, candidates={"item": [7] * 10})
    refuse(remote, Hold(num_candidates=10, budget_s=0.1, until_s=time.monotonic() + 60.0))
    with pytest.raises(OverloadedError, match="no room"):
        asyncio.run(remote.rank(request))
    assert not current.threads
    # What asks for less, or has more time, is tried.
    for other in (
        RankRequest(user={}, candidates={"item": [7] * 9}),
        RankRequest(user={}, candidates={"item": [7] * 10}, deadline_ms=200.0),
    ):
        with pytest.raises(RequestError):
            asyncio.run(remote.rank(other))
    assert len(current.threads) == 2


def test_refusals_are_forgotten_with_the_process_that_refused(tmp_path: Path) -> None:
    remote = connected(tmp_path)
    current = remote._current
    refuse(remote, Hold(num_candidates=1, budget_s=9.0, until_s=time.monotonic() + 60.0))
    remote.connection_lost(None)
    remote.connection_made(cast("asyncio.Transport", object()))
    remote._current = current
    with pytest.raises(RequestError):
        asyncio.run(remote.rank(RankRequest(user={}, candidates={"item": [7]})))


def test_a_request_that_was_decoded_while_the_connection_was_lost_is_told_at_once(
    tmp_path: Path,
) -> None:
    class Losing(Refusing):
        def decode(self, request: RankRequest) -> None:
            remote.connection_lost(None)

    remote = connected(tmp_path)
    remote._current = cast("Any", Losing())
    with pytest.raises(OverloadedError, match="has ended"):
        asyncio.run(remote.rank(RankRequest(user={}, candidates={"item": [7]})))
