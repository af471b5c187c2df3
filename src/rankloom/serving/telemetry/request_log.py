"""The request log: a sample of what was served, as a grouped log to train on.

One line a request: the columns that features and roles read, with the values that were scored;
what is not known yet (labels, positions) is absent and joined later by `request.id`. Beside them:

    request.id, request.time_ms (since 1970), request.digest (of the artifact)
    served.<task>, served.blended: lists of the candidates' scores

A file appears whole under its name, `requests-<time>-<artifact>-<process>-<number>.parquet`, with
all the lines since the one before it; until then they are in memory. Lines that cannot be written
are dropped and counted: no request waits for the log, or fails by it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from rankloom.config import Config
from rankloom.serving.request import RankRequest, RankResult, Served
from rankloom.serving.telemetry.background import Background, Count
from rankloom.serving.telemetry.sampling import Sample

if TYPE_CHECKING:
    from rankloom.serving.telemetry.request_files import RequestFiles

LOOK_S = 0.25
BYTES_OF_VALUE = 40


class RequestLogConfig(Config):
    """Where, how much of it, and in what files."""

    folder: str
    """Folder of the files, which several servers may share."""
    sample_rate: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of requests that are logged; which ones, their ids say."""
    max_lines: PositiveInt = 1000
    """Requests of a file."""
    max_bytes: PositiveInt = 16 << 20
    """Memory of a file's lines before they are written; a file itself is smaller."""
    max_age_s: PositiveFloat = 300.0
    """Seconds from a file's first line until it is written. What a process that is killed takes
    with it is not older."""
    queue_bytes: PositiveInt = 32 << 20
    """Memory of requests that wait to be made lines, about; more are dropped."""
    total_bytes: PositiveInt | None = None
    """Of all files of the folder: the oldest are deleted beyond it. Without one, none are."""


@dataclass(frozen=True)
class Entry:
    """One request to be logged."""

    request: RankRequest
    """Its values after feature stores were asked."""
    result: RankResult
    """Its scores."""
    time_s: float
    """When it was served, since 1970."""


@dataclass(frozen=True)
class Beginning:
    """An artifact that is served from now on."""

    served: Served
    """The artifact."""
    examples: tuple[RankRequest, ...]
    """Requests with its training log's types."""


class RequestLog:
    """Writes samples of requests in the background, for one process.

    Args:
        config: Where to, and how much.
        count: Is told what became of lines.
    """

    def __init__(self, config: RequestLogConfig, count: Count) -> None:
        self._config, self._count = config, count
        self._sample = Sample(config.sample_rate)
        self._files: RequestFiles | None = None
        self._background: Background[Entry | Beginning] = Background(
            self._work,
            name="request-log",
            max_size=config.queue_bytes,
            interval_s=LOOK_S,
            count=count,
        )

    def begin(self, served: Served, examples: Iterable[RankRequest] = ()) -> None:
        """State what is served from now on; requests scored by the artifact before it may follow.

        Args:
            served: The artifact.
            examples: Requests with values of the training log's types, such as golden ones. They
                say whether hashed ids are numbers or texts; else the first requests do.
        """
        self._background.put(Beginning(served, tuple(examples)), size=0)

    def write(self, request: RankRequest, result: RankResult) -> None:
        """Hand over a request that was ranked, if it is sampled.

        Args:
            request: Its values after feature stores were asked; not to be changed afterwards.
            result: Its scores.
        """
        if self._sample.has(request.id):
            self._background.put(Entry(request, result, time.time()), _size(request))

    def close(self) -> None:
        """Write what waits."""
        self._background.close(timeout_s=10.0)

    def _work(self, items: list[Entry | Beginning]) -> None:
        if self._files is None:
            # Loads pyarrow, in this thread, before the first request needs it.
            from rankloom.serving.telemetry.request_files import RequestFiles

            self._files = RequestFiles(self._config, self._count)
        for item in items:
            if isinstance(item, Beginning):
                self._files.begin(item.served, item.examples)
            else:
                self._files.add(item)
        self._files.write_due(is_end=self._background.is_closing)


def _size(request: RankRequest) -> int:
    """Estimate the memory of a request's values."""
    candidates = request.candidates
    places = (candidates,) if isinstance(candidates, Mapping) else tuple(candidates)
    return sum(
        _bytes_of(v) for given in (request.user, request.context, *places) for v in given.values()
    )


def _bytes_of(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, str):
        return len(value) + BYTES_OF_VALUE
    if not isinstance(value, list | tuple):
        return BYTES_OF_VALUE
    # Values of a list are alike; only of lists and texts does each count.
    if value and isinstance(value[0], list | tuple | str | np.ndarray):
        return sum(map(_bytes_of, value))
    return BYTES_OF_VALUE * (1 + len(value))
