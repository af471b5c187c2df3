"""Headers of a request, and which formats they speak of."""

from __future__ import annotations

import re
from typing import Literal

from starlette.types import Scope

from rankloom.errors import RequestError
from rankloom.serving.front.problems import MediaTypeError
from rankloom.serving.members import MAX_DEADLINE_MS
from rankloom.serving.wire import CONTENT_TYPE

Media = Literal["json", "msgpack"]
MEDIA: dict[str, Media] = {
    "application/json": "json",
    CONTENT_TYPE: "msgpack",
    "application/msgpack": "msgpack",
}
"""Type in a header -> format."""
_MAX_ACCEPT_CHARS = 1000
_POSITIVE = re.compile(r"\d{1,15}(\.\d{1,20})?([eE][-+]?\d{1,3})?", re.ASCII)


def header(scope: Scope, name: bytes) -> str | None:
    """Give a header's value, without white space around it; none if there is no such header.

    Raises:
        RequestError: It is given twice.
    """
    values = [value for one, value in scope["headers"] if one == name]
    if len(values) > 1:
        shown = name.decode("latin-1")
        raise RequestError(f"header {shown}: is given {len(values)} times. Give it once.")
    return values[0].decode("latin-1").strip() if values else None


def body_media(scope: Scope) -> Media:
    """Tell the format of the body.

    Raises:
        MediaTypeError: It is none that is read here.
    """
    given = header(scope, b"content-type") or ""
    name, *parameters = [part.strip().lower() for part in given.split(";")]
    wrong = [part for part in parameters if part and part.replace('"', "") != "charset=utf-8"]
    if name not in MEDIA or wrong:
        raise MediaTypeError(
            f"header content-type: must be one of {', '.join(MEDIA)}. Got {given[:200]!r}. "
            "Say what the body is."
        )
    encoding = header(scope, b"content-encoding") or "identity"
    if encoding.lower() != "identity":
        raise MediaTypeError(
            f"header content-encoding: must be identity. Got {encoding[:200]!r}. "
            "Send the body as it is."
        )
    return MEDIA[name]


def answer_media(scope: Scope, body: Media) -> Media:
    """Tell the format of the answer: the body's, unless the header Accept prefers the other."""
    accept = b",".join(value for name, value in scope["headers"] if name == b"accept")
    if not accept:
        return body
    weights: dict[str, float] = {}
    for one in accept[:_MAX_ACCEPT_CHARS].decode("latin-1").lower().split(","):
        name, *parameters = [part.strip() for part in one.split(";")]
        weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        weights[name] = float(weight) if _POSITIVE.fullmatch(weight) else 0.0
    any_weight = max(weights.get("*/*", 0.0), weights.get("application/*", 0.0))
    best = {"json": any_weight, "msgpack": any_weight}
    for name, media in MEDIA.items():
        if name in weights:
            best[media] = max(weights[name], best[media] if media == body else 0.0)
    other: Media = "json" if body == "msgpack" else "msgpack"
    return other if best[other] > best[body] else body


def deadline_ms(scope: Scope) -> float | None:
    """Read the header X-Deadline-Ms: what is left of the client's time.

    Raises:
        RequestError: It is no number of milliseconds up to a day.
    """
    given = header(scope, b"x-deadline-ms")
    if given is None:
        return None
    milliseconds = float(given) if _POSITIVE.fullmatch(given) else 0.0
    if not 0 < milliseconds <= MAX_DEADLINE_MS:
        raise RequestError(
            f"header x-deadline-ms: must be a number above 0, at most {MAX_DEADLINE_MS}, such as "
            f"50 or 12.5. Got {given[:200]!r}. Give the milliseconds that are left."
        )
    return milliseconds
