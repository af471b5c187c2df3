"""What one HTTP front end may be told: limits, times, token, TLS, blended score."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from rankloom.config import Config
from rankloom.config.problems import problem
from rankloom.errors import ConfigError
from rankloom.serving.limits import Limits

MIN_TOKEN_CHARS, MAX_TOKEN_CHARS = 16, 4096


class TokenConfig(Config):
    """Where the bearer token is read from; never the command line, which every process can see."""

    file: str | None = None
    """Path of a file that holds the token; white space around it does not count."""
    variable: str | None = None
    """Name of an environment variable that holds the token."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.file is None) == (self.variable is None):
            raise problem("names either a file or a variable. Got both or none. Give one.")
        return self


class TlsConfig(Config):
    """Files of the certificate, as PEM."""

    certificate: str
    """Path of the certificate, its chain after it."""
    key: str
    """Path of its private key, without a password."""


class TimesConfig(Config):
    """How long a client may take; a connection that takes longer is closed."""

    head_s: PositiveFloat = 5.0
    """For a request's first line and headers, from the connection or their first byte on."""
    body_s: PositiveFloat = 30.0
    """For its body, from the end of the headers on."""
    answer_s: PositiveFloat = 30.0
    """To take an answer, from when it first waited for the client."""
    idle_s: PositiveInt = 75
    """Between an answer and the next request of the connection."""


class FrontConfig(Config):
    """One front end: what it accepts, from whom, and how long it waits.

    Example:
        >>> FrontConfig(blend="click * 0.6 + like ** 0.5").deadline_ms
        200.0
    """

    limits: Limits = Limits()
    """What one request may hold."""
    blend: str | None = None
    """Formula of the blended score, such as `click * 0.6 + like ** 0.5 * long_view`, of numbers,
    tasks, + - * / **, parentheses, log, exp, sqrt, min, max and clip. Default: the first task."""
    deadline_ms: PositiveFloat = 200.0
    """Deadline of a request that names none."""
    token: TokenConfig | None = None
    """Bearer token that every request needs, but those for health. Default: none is needed."""
    tls: TlsConfig | None = None
    """Certificate to serve HTTPS with. Default: HTTP."""
    times: TimesConfig = TimesConfig()
    """How long clients may take."""
    concurrent: PositiveInt = 256
    """Requests answered at one time; further ones are refused with 503."""
    connections: PositiveInt = 512
    """Connections open at one time; further ones are refused with 503. A process needs a file
    descriptor for each."""
    head_bytes: Annotated[int, Field(ge=1024)] = 64 << 10
    """Of a request's first line and headers."""
    buffered_bytes: PositiveInt = 256 << 20
    """Of all bodies that are held at one time; further ones are refused with 503."""
    backlog: PositiveInt = 2048
    """Connections that wait to be accepted."""

    @model_validator(mode="after")
    def _room_for_a_body(self) -> Self:
        if self.buffered_bytes < self.limits.body_bytes:
            raise problem(
                f"buffered_bytes must be at least limits.body_bytes={self.limits.body_bytes}. Got "
                f"{self.buffered_bytes}. Raise it, or lower the other."
            )
        return self


def read_token(config: TokenConfig | None) -> bytes | None:
    """Read the bearer token, or none where none is needed.

    Raises:
        ConfigError: It cannot be read, or is no token of 16 to 4096 visible ASCII characters.
    """
    if config is None:
        return None
    if config.file is not None:
        where = f"token.file {config.file}"
        try:
            with Path(config.file).open("rb") as file:
                token = file.read(MAX_TOKEN_CHARS + 16).strip()
        except OSError as error:
            raise ConfigError(
                f"{where}: cannot be read ({error.strerror}). Give a readable file."
            ) from None
    else:
        assert config.variable is not None
        where = f"token.variable {config.variable}"
        token = os.environ.get(config.variable, "").strip().encode("utf-8", "surrogateescape")
    is_visible = all(0x21 <= byte <= 0x7E for byte in token)
    if not is_visible or not MIN_TOKEN_CHARS <= len(token) <= MAX_TOKEN_CHARS:
        # Its characters are a secret, and stand in no message.
        raise ConfigError(
            f"{where}: must hold {MIN_TOKEN_CHARS} to {MAX_TOKEN_CHARS} visible ASCII characters. "
            f"Got {len(token)} bytes. Make one with `openssl rand -hex 32`."
        )
    return token
