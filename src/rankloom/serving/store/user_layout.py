"""How users are laid out in Redis, for whoever writes them; `UserWriter` is one such.

    <prefix>:user:<id>               a JSON object: column of side user -> value
    <prefix>:user:<id>:<column>      a column of a history, as text that events are appended to

where `%`-escapes (RFC 3986) stand for all but letters, digits, `_.-~` in ids and columns; columns
are those of the training log. The user 7 and the user "7" are one. All are plain strings, and whole
numbers have 64 bits with a sign. A history's column is

    d,e,e,e

where d is how many events were dropped at its beginning (nothing for none) and each e an event's
value in JSON, the oldest first. So an event is appended without reading or rewriting what is
there, by `APPEND key ,e`; all columns of a history are appended in one MULTI, and a trim writes
them anew, with a larger d. The column of `first_event` is not written: it is d.

    SET     rankloom:user:7               {"age": 31, "segments": [4, 9]}
    APPEND  rankloom:user:7:history_item  ,1193,661
    APPEND  rankloom:user:7:history_time  ,978300760,978302109

What is read is untrusted: anything else than this, and any value that its feature could not take,
is damaged and read as null.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import msgspec

MAX_KEY_BYTES = 1024
"""Of a user's key; a longer one is no user's."""
_MAX_DIGITS = 18


class DamagedError(Exception):
    """A value is not what it should be; never leaves the store."""


def user_key(prefix: str, user: int | str) -> str:
    """Name the key of a user's columns."""
    return f"{prefix}:user:{user if isinstance(user, int) else _escaped(user)}"


def history_key(prefix: str, user: int | str, column: str) -> str:
    """Name the key of one column of a user's histories."""
    return f"{user_key(prefix, user)}:{_escaped(column)}"


def _escaped(text: str) -> str:
    # Half a surrogate pair is no UTF-8, but a client may send it.
    return quote(text, safe="", errors="surrogatepass")


def history_bytes(values: list[Any], *, dropped: int | None = None) -> bytes:
    """Write events: a whole column if `dropped` is given, else what is appended to one."""
    events = "".join(f",{json_text(value)}" for value in values)
    return f"{dropped or ''}{events}".encode()


def json_text(value: Any) -> str:
    """Write a value as JSON that is UTF-8.

    Raises:
        TypeError: It is of a type that JSON has not.
        ValueError: It is NaN, infinite, or holds half a surrogate pair.
    """
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    text.encode()
    return text


def split_history(text: bytes) -> tuple[int, bytes]:
    """Give the number of dropped events, and the listed ones as a JSON list.

    Raises:
        DamagedError: It does not begin with a number.
    """
    head, _, events = text.partition(b",")
    if head and not (head.isdigit() and len(head) <= _MAX_DIGITS):
        raise DamagedError
    return int(head or 0), b"[" + events + b"]"


def typed(*kinds: Any) -> Callable[[Any], Any]:
    """Give what decodes JSON as the first of some types that it fits.

    The result raises `DamagedError` where it fits none.
    """
    decoders = [msgspec.json.Decoder(kind) for kind in kinds]

    def decode(text: Any) -> Any:
        for decoder in decoders:
            try:
                return decoder.decode(text)
            except (msgspec.MsgspecError, UnicodeError, RecursionError):
                continue
        raise DamagedError

    return decode
