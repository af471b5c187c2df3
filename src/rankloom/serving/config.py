"""The config of a server: what `rankloom serve` can be told, and what its processes are told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from rankloom.config import Config, load_config
from rankloom.serving.front.config import FrontConfig
from rankloom.serving.scheduling.config import SchedulerConfig
from rankloom.serving.store.config import StoreConfig
from rankloom.serving.telemetry.access_log import AccessLogConfig
from rankloom.serving.telemetry.request_log import RequestLogConfig


class ServeConfig(Config):
    """A server.

    Example:
        >>> ServeConfig().host
        '127.0.0.1'
    """

    host: str = "127.0.0.1"
    """Address to listen at. Beyond this machine only if you say so; give a token then."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0 takes a free one."""
    name: str = "rankloom"
    """What clients call the model."""
    front_ends: PositiveInt = 2
    """Processes that speak HTTP."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    threads: PositiveInt | None = None
    """Of the compute process on a CPU; default: torch's own choice."""
    cache_bytes: NonNegativeInt = 1 << 30
    """For users' states; 0 keeps none."""
    drain_s: PositiveFloat = 30.0
    """How long requests under way may take when the server is told to end; what then still runs is
    answered with 503."""
    page: bool = True
    """Whether there is a page for people at `/`."""
    front: FrontConfig = FrontConfig()
    """Limits, times, token, TLS, formula of the blended score."""
    scheduling: SchedulerConfig = SchedulerConfig()
    """Deadlines and batches."""
    store: StoreConfig | None = None
    """Where features are looked up by id."""
    access_log: AccessLogConfig | None = None
    """One line a request."""
    request_log: RequestLogConfig | None = None
    """A sample of requests, to train on."""


def load_serve_config(
    source: Path | None = None, overrides: Mapping[str, Any] | Iterable[str] = ()
) -> ServeConfig:
    """Read and check the config of a server.

    Args:
        source: A YAML file; without one, all defaults.
        overrides: `{"front.deadline_ms": 50}`, or texts `front.deadline_ms=50`.

    Raises:
        ConfigError: With every mistake at once.
    """
    return load_config(ServeConfig, source, overrides, where="server")


class ComputeSettings(Config):
    """What the supervisor tells the compute process."""

    artifact: str
    """Folder, or a link to one, which is followed anew at each reload."""
    name: str
    """What clients call the model."""
    socket: str
    """Path of the Unix socket to listen at."""
    metrics: str
    """Folder of the server's metrics."""
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    """Where to compute."""
    threads: PositiveInt | None = None
    """Of torch; default: its own choice."""
    cache_bytes: NonNegativeInt = 1 << 30
    """For users' states."""
    scheduling: SchedulerConfig = SchedulerConfig()
    """Of the scheduler."""


class FrontSettings(Config):
    """What the supervisor tells a front end."""

    number: int
    """Which one it is, from 1 on."""
    listening: int
    """File descriptor of the listening socket, which all front ends share."""
    compute: str
    """Path of the compute process's Unix socket."""
    metrics: str
    """Folder of the server's metrics."""
    front: FrontConfig = FrontConfig()
    """Limits and times."""
    drain_s: PositiveFloat = 30.0
    """How long requests under way may take at the end."""
    page: bool = True
    """Whether there is a page for people."""
    store: StoreConfig | None = None
    """Where features are looked up."""
    access_log: AccessLogConfig | None = None
    """Where each request has a line."""
    request_log: RequestLogConfig | None = None
    """Where a sample of requests is kept to train on."""
