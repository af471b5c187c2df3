"""Bodies of HTTP requests and answers: read and inflated within a limit."""

from __future__ import annotations

import gzip
import re
import zlib

from starlette.requests import Request

from rankloom.errors import RequestError
from rankloom.serving.front.problems import MediaTypeError, TooLargeError

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""Content encoding -> how zlib is told of it. What HTTP calls deflate has zlib's header."""
_FAST = 1
_MIN_BYTES = 1024
"""Below this, compressing costs more than it saves."""
_NOT_WANTED = re.compile(r"q=0(\.0*)?")


async def read_body(request: Request, *, max_bytes: int) -> bytes:
    """Read the body, and inflate it if it is compressed.

    Args:
        request: Of which nothing was read.
        max_bytes: Of the body, as it is sent and inflated.

    Raises:
        TooLargeError: It is too long.
        MediaTypeError: It is compressed otherwise than by gzip or deflate.
        RequestError: It cannot be inflated.
    """
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > max_bytes:
        raise _too_long(max_bytes)
    # One buffer: a list of a million tiny pieces would take many times their bytes.
    body = bytearray()
    async for piece in request.stream():
        if len(body) + len(piece) > max_bytes:
            raise _too_long(max_bytes)
        body += piece
    encoding = request.headers.get("content-encoding", "").strip().lower()
    return bytes(body) if encoding in ("", "identity") else _inflate(body, encoding, max_bytes)


def compress(body: bytes, accepted: str) -> tuple[bytes, str | None]:
    """Compress an answer if its client asks for it and it is long enough.

    Args:
        body: The answer.
        accepted: The request's header Accept-Encoding.

    Returns:
        body: As it is sent.
        encoding: The header Content-Encoding, if it has one.
    """
    if len(body) < _MIN_BYTES:
        return body, None
    wanted = set()
    for one in accepted.lower().split(","):
        encoding, _, weight = one.replace(" ", "").partition(";")
        if not _NOT_WANTED.fullmatch(weight):
            wanted.add(encoding)
    if "gzip" in wanted:
        return gzip.compress(body, _FAST), "gzip"
    if "deflate" in wanted:
        return zlib.compress(body, _FAST), "deflate"
    return body, None


def _inflate(body: bytearray, encoding: str, max_bytes: int) -> bytes:
    if encoding not in _WINDOW_BITS:
        raise MediaTypeError(
            f"Content-Encoding: unknown. Got {encoding[:100]!r}. Send gzip, deflate or neither."
        )
    stream = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        # One byte more than allowed: a small body that inflates to gigabytes stops there.
        inflated = stream.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise RequestError(f"body: is no {encoding}: {error}. Compress it anew.") from None
    if len(inflated) > max_bytes:
        raise _too_long(max_bytes)
    if not stream.eof or stream.unused_data:
        problem = "goes on behind its end" if stream.eof else "ends too early"
        raise RequestError(f"body: as {encoding} it {problem}. Send it whole, and once.")
    return inflated


def _too_long(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"body: is longer than {max_bytes} bytes. Send fewer candidates.")
