"""What a client is told when it is not answered: problem details (RFC 9457), from one table.

    {"type": "urn:rankloom:problem:deadline", "title": "Not in time", "status": 504,
     "code": "deadline", "detail": "..."}

`code` is for machines, `detail` for people. Members beyond RFC 9457: `code`, `problems` (every
mistake of a wrong request, a line each), `incident` (of a server's own fault: stands in its log).
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rankloom.errors import DeadlineError, OverloadedError, RequestError

logger = logging.getLogger("rankloom.serving")
MAX_PROBLEMS = 100
MAX_CHARS = 2000
"""Of a line: what a client sent comes back in it."""


class TooLargeError(RequestError):
    """A request's body or head is larger than allowed."""


class MediaTypeError(RequestError):
    """A body is of a type that is not read here."""


class TokenError(RequestError):
    """The bearer token is missing or wrong."""


class UnknownPathError(RequestError):
    """Nothing stands at this path."""


class MethodError(RequestError):
    """What stands at this path is asked otherwise."""


class SlowClientError(RequestError):
    """A request did not arrive in time."""


class NotReadyError(OverloadedError):
    """No artifact is served yet, or what computes does not go on."""


@dataclass(frozen=True)
class Kind:
    """What all problems of one kind have in common."""

    status: int
    code: str
    title: str
    headers: Mapping[str, str]


_WAIT = {"Retry-After": "1"}
KINDS: Mapping[type[Exception], Kind] = {
    RequestError: Kind(400, "invalid_request", "The request is wrong", {}),
    TokenError: Kind(401, "unauthorized", "No valid token", {"WWW-Authenticate": "Bearer"}),
    UnknownPathError: Kind(404, "not_found", "Nothing stands here", {}),
    MethodError: Kind(405, "method_not_allowed", "Not by this method", {}),
    SlowClientError: Kind(408, "slow_client", "The request came too slowly", {}),
    TooLargeError: Kind(413, "too_large", "The request is too large", {}),
    MediaTypeError: Kind(415, "unsupported_media_type", "Not in this format", {}),
    Exception: Kind(500, "internal", "The server failed", {}),
    OverloadedError: Kind(503, "overloaded", "No room", _WAIT),
    NotReadyError: Kind(503, "not_ready", "Not ready yet", _WAIT),
    DeadlineError: Kind(504, "deadline", "Not in time", {}),
}
"""Class of an error -> what a client gets; the nearest class counts."""


@dataclass(frozen=True)
class Problem:
    """One problem, for one client."""

    document: Mapping[str, Any]
    """Members of the problem details."""
    headers: Mapping[str, str]
    """Headers that belong to it."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        return int(self.document["status"])


def kind_of(error: BaseException) -> Kind:
    """Find an error's kind."""
    classes = [one for one in type(error).__mro__ if one in KINDS]
    return KINDS[classes[0]] if classes else KINDS[Exception]


def problem_of(error: BaseException) -> Problem:
    """Say what went wrong; an unexpected error is logged here, and its text is not told."""
    kind = kind_of(error)
    document: dict[str, Any] = {
        "type": f"urn:rankloom:problem:{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "code": kind.code,
    }
    if kind.status == 500:
        incident = secrets.token_hex(8)
        logger.error("incident %s", incident, exc_info=error)
        document["detail"] = f"It is incident {incident} in the server's log."
        document["incident"] = incident
        return Problem(document, kind.headers)
    first, *lines = [line.strip() for line in str(error).splitlines()] or [""]
    document["detail"] = _shortened(first or kind.title)
    if kind.code == "invalid_request":
        kept = [_shortened(line) for line in (lines or [first])[:MAX_PROBLEMS]]
        if len(lines) > MAX_PROBLEMS:
            kept.append(f"and {len(lines) - MAX_PROBLEMS} more.")
        document["problems"] = kept
    return Problem(document, kind.headers)


def _shortened(line: str) -> str:
    # A lone surrogate in what the client sent could not be encoded again.
    line = line.encode("utf-8", "backslashreplace").decode()
    return line if len(line) <= MAX_CHARS else line[: MAX_CHARS - 3] + "..."
