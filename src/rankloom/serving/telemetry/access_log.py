"""The access log: one JSON line a request, and none of its features.

    {"time":"2026-11-22T15:37:48.120000Z","interface":"json","id":"r7","status":200,"code":"ok",
     "candidates":500,"deadline_ms":50.0,"cache":"hit","digest":"3f...","stages_ms":{"total":12.3}}

Several processes may share one file: each appends whole lines. It may be moved, deleted or on a
full disk; lines are dropped then, and counted, and later ones are written when that is possible
again. A line that the disk took half of is ended before the next one.
"""

from __future__ import annotations

import hmac
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from pydantic import Field, PositiveInt

from rankloom.config import Config
from rankloom.serving.telemetry.background import BAD_VALUES, NO_SPACE, WRITTEN, Background, Count
from rankloom.serving.telemetry.sampling import Sample

logger = logging.getLogger(__name__)

FLUSH_S = 0.25
MAX_ID = 200
STANDARD_OUTPUT = 1


class AccessLogConfig(Config):
    """Where and how much of it."""

    path: str = "-"
    """File to append to; `-` is standard output."""
    sample_rate: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of answered requests that have a line; which ones, their ids say."""
    keep_errors: bool = True
    """Whether every request with a status of 400 or above has one."""
    queue_lines: PositiveInt = 10_000
    """Lines that may wait for the disk; more are dropped."""
    user_key: str | None = None
    """Secret that user ids are hashed with. Without one, lines tell nothing of the user."""


class AccessLine(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a line tells."""

    time: datetime = msgspec.field(default_factory=lambda: datetime.now(UTC))
    """When it was answered."""
    interface: str
    """json, msgpack or kserve."""
    id: str = ""
    """The client's name for the request."""
    status: int
    """Of HTTP."""
    code: str
    """`ok`, or the problem's machine-readable code."""
    candidates: int = 0
    """How many were to be ranked."""
    deadline_ms: float | None = None
    """What the request was given."""
    cache: str | None = None
    """What the user state cache had: hit, miss or wait."""
    digest: str | None = None
    """Of the artifact that scored."""
    stages_ms: dict[str, float] = {}
    """Stage -> milliseconds."""
    user: str | None = None
    """Hash of the user's id; filled in by the log."""


class _Waiting(NamedTuple):
    line: AccessLine
    user: int | str | None


class AccessLog:
    """Writes lines in the background; no request waits for it or fails by it.

    Args:
        config: Where to, and which.
        count: Is told what became of lines.
    """

    def __init__(self, config: AccessLogConfig, count: Count) -> None:
        self._config, self._count = config, count
        self._path = None if config.path == "-" else Path(config.path)
        self._descriptor: int | None = None
        self._sample = Sample(config.sample_rate)
        self._is_torn = False
        self._num_dropped = 0
        self._must_reopen = False
        self._background: Background[_Waiting] = Background(
            self._write_lines,
            name="access-log",
            max_size=config.queue_lines,
            interval_s=FLUSH_S,
            count=count,
        )

    def write(self, line: AccessLine, *, user: int | str | None = None) -> None:
        """Hand over a line, if its request is sampled.

        Args:
            line: Is the log's from now on.
            user: The user's id, for its hash.
        """
        must_keep = self._config.keep_errors and line.status >= 400
        if not must_keep and not self._sample.has(line.id):
            return
        line.id = line.id[:MAX_ID]
        self._background.put(_Waiting(line, user if self._config.user_key else None))

    def reopen(self) -> None:
        """Have the file opened anew, after it was moved; safe in a signal handler."""
        self._must_reopen = True

    def close(self) -> None:
        """Write what waits, and close the file."""
        if self._background.close():
            self._shut()

    def _write_lines(self, waiting: list[_Waiting]) -> None:
        if self._must_reopen:
            self._must_reopen = False
            self._shut()
        encoded = [line for one in waiting if (line := self._encoded(one))]
        if not encoded:
            return
        end_torn = b"\n" if self._is_torn else b""
        data = end_torn + b"".join(encoded)
        done = 0
        try:
            descriptor = self._opened()
            while done < len(data):
                done += os.write(descriptor, memoryview(data)[done:])
        except OSError as error:
            written = data.count(b"\n", len(end_torn), done)
            self._fail(error, len(encoded) - written)
        else:
            written = len(encoded)
            self._recover()
        if done:
            self._is_torn = data[done - 1] != ord("\n")
        if written:
            self._count(WRITTEN, written)

    def _encoded(self, waiting: _Waiting) -> bytes | None:
        line, user = waiting
        try:
            # JSON can hold half a surrogate pair, UTF-8 cannot.
            line.id = line.id.encode(errors="replace").decode()
            line.stages_ms = {stage: round(ms, 3) for stage, ms in line.stages_ms.items()}
            if user is not None:
                line.user = self._hashed(user)
            return msgspec.json.encode(line) + b"\n"
        except (TypeError, ValueError):
            self._count(BAD_VALUES, 1)
            return None

    def _hashed(self, user: int | str) -> str:
        assert self._config.user_key is not None
        name = str(user).encode(errors="surrogatepass")
        return hmac.digest(self._config.user_key.encode(), name, "sha256")[:8].hex()

    def _opened(self) -> int:
        """Give the file, opened anew if its name names another one by now."""
        if self._path is None:
            return STANDARD_OUTPUT
        if self._descriptor is not None and not _is_same_file(self._descriptor, self._path):
            self._shut()
        if self._descriptor is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o640)
        return self._descriptor

    def _shut(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _fail(self, error: OSError, dropped: int) -> None:
        if not self._num_dropped:
            logger.warning("access log: %s: lines are dropped. Got: %s", self._config.path, error)
        self._num_dropped += dropped
        self._count(NO_SPACE, dropped)

    def _recover(self) -> None:
        if self._num_dropped:
            logger.warning(
                "access log: %s: written again; %d lines were dropped",
                self._config.path,
                self._num_dropped,
            )
            self._num_dropped = 0


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
