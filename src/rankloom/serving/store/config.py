"""What the feature store is, and what stands for what it does not have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from rankloom.config import Config
from rankloom.config.problems import problem

Missing = Literal["default", "refuse"]
"""`default`: null in each column, for which each feature declares what stands; `refuse`: an
error."""

_SCHEMES = ("redis", "rediss", "unix")
# More could undo our limits on connections and time.
_URL_OPTIONS = {"db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}


class StoreConfig(Config):
    """Where features are looked up by id; what a client sends itself always wins."""

    items: Annotated[Path | None, Field(strict=False)] = None
    """Folder written by `rankloom items`; without one, clients send the items' columns."""
    redis: Annotated[str | None, Field(repr=False)] = None
    """Of users: `redis://host:port/db`, `rediss://...` with TLS, or `unix:///path.sock?db=0`;
    without one, clients send the users' columns. A password in it is best kept in a file."""
    prefix: str = "rankloom"
    """What the names of all keys in Redis begin with, before a colon."""
    timeout_ms: PositiveFloat = 10.0
    """Longest wait for one user's features."""
    deadline_share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Longest wait, as a part of what is left of the request's time when it arrives."""
    connections: PositiveInt = 16
    """To Redis, of one process, at most."""
    max_value_bytes: PositiveInt = 1 << 20
    """Of a user's columns, and of one column of a history; what is longer counts as damaged."""
    missing_item: Missing = "default"
    """What is done for a candidate that the store does not know."""
    missing_user: Missing = "default"
    """What is done for a user that the store does not know."""
    unreachable: Missing = "default"
    """What is done when Redis does not answer in time. A refusal says that asking again may
    help."""
    breaker_failures: PositiveInt = 3
    """Failures in a row after which Redis is left alone, and only a probe asks it."""
    probe_every_s: PositiveFloat = 0.25
    """Wait before the first probe; each further one waits twice as long."""
    probe_at_most_s: NonNegativeFloat = 5.0
    """Longest wait between two probes."""

    @field_validator("redis")
    @classmethod
    def _is_redis(cls, url: str | None) -> str | None:
        if url is None:
            return url
        parts = urlsplit(url)
        # Not the URL itself: it may hold a password.
        if parts.scheme not in _SCHEMES:
            raise problem(
                f"must begin with redis://, rediss:// or unix://. Got {parts.scheme or 'none'!r}. "
                "Give such as redis://127.0.0.1:6379/0."
            )
        unknown = sorted(set(parse_qs(parts.query, keep_blank_values=True)) - _URL_OPTIONS)
        if unknown:
            raise problem(
                f"takes the options {', '.join(sorted(_URL_OPTIONS))}. Got {', '.join(unknown)}. "
                "Set limits by timeout_ms and connections."
            )
        return url

    @field_validator("prefix")
    @classmethod
    def _is_prefix(cls, prefix: str) -> str:
        if not prefix or ":" in prefix or not prefix.isprintable():
            raise problem(f"must be a name without a colon. Got {prefix!r}. Give such as rankloom.")
        return prefix
