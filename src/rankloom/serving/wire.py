"""Requests, results and problems in MessagePack, with columns as raw bytes; needs no torch.

    body = encode_requests([RankRequest(user={"user_id": 7}, candidates={"item_id": items})])
    requests = decode_requests(body, Limits())

The members are those of the JSON body; docs/wire.md gives the bytes. Of equal keys of a mapping the
last one counts, as in JSON. What a body costs in memory is bounded before it is read: outside
buffers, which cost no more than their bytes, it may have `MAX_PLAIN_BYTES`.

Shapes: N candidates, K of them asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from rankloom.data.columns import Array
from rankloom.errors import RequestError, ServingError
from rankloom.serving.buffers import BufferFormatError, decode_buffer, encode_buffer, packed
from rankloom.serving.members import refuse, requests_of
from rankloom.serving.request import RankRequest, RankResult

if TYPE_CHECKING:
    # The client, which imports this file, needs no configs.
    from rankloom.serving.limits import Limits

CONTENT_TYPE = "application/vnd.rankloom.v1+msgpack"
"""Of requests, results and problems."""
MAX_PLAIN_BYTES = 1 << 20
"""Of a body, outside buffers: a byte of nested lists and mappings may take eighty in memory."""
_MAX_BROKEN = 20
_BUFFER_COST = 64
"""Plain bytes that one buffer counts for, since each takes time to open."""

Problem = Mapping[str, Any]
"""Problem details (RFC 9457): `type`, `title`, `status`, `detail`, `code` and others."""

_encoder = msgspec.msgpack.Encoder(enc_hook=encode_buffer)


def encode_requests(requests: Sequence[RankRequest]) -> bytes:
    """Write a body; lists, arrays and texts become buffers where that changes nothing.

    Raises:
        RequestError: A value is of a type that cannot be sent; all such at once.
    """
    try:
        return _encoder.encode({"requests": [_members(one) for one in requests]})
    except (TypeError, ValueError, OverflowError, RecursionError):
        # Rare, so the columns are found by trying each.
        refuse([line for at, one in enumerate(requests) for line in _unsendable(at, one)])
        raise


def decode_requests(body: bytes, limits: Limits) -> list[RankRequest]:
    """Give the requests of a body; their arrays are views of it.

    Raises:
        RequestError: It cannot be read, or not what it asks for; all of the latter at once.
    """
    return requests_of(decode_body(body), limits)


def decode_body(body: bytes) -> object:
    """Give a body as plain values and buffers, for `requests_of`.

    Raises:
        RequestError: It is no MessagePack, too large outside buffers, or has buffers that are
            wrong; all of the latter at once.
    """
    if len(body) > MAX_PLAIN_BYTES and _plain_bytes(body) > MAX_PLAIN_BYTES:
        raise RequestError(
            f"body: may have {MAX_PLAIN_BYTES} bytes outside buffers. Got more. "
            "Send columns as buffers, see docs/wire.md."
        )
    broken: list[_Broken] = []

    def opened(code: int, data: memoryview) -> Any:
        try:
            return decode_buffer(code, data)
        except BufferFormatError as error:
            if len(broken) == _MAX_BROKEN:
                raise RequestError(
                    f"body: has more than {_MAX_BROKEN} wrong buffers. The first "
                    f"{broken[0].problem}"
                ) from None
            broken.append(_Broken(str(error)))
            return broken[-1]

    try:
        values = msgspec.msgpack.decode(body, ext_hook=opened)
    except RecursionError:
        raise RequestError(
            "body: lists and mappings are too deep inside each other. Got more than can be read. "
            "Flatten it."
        ) from None
    except ValueError as error:
        raise RequestError(
            f"body: must be one value in MessagePack. Got {len(body)} bytes: {error}. "
            "Encode it anew."
        ) from None
    if broken:
        refuse([f"{where}: a buffer {one.problem}" for where, one in _broken_in(values)])
    return values


def encode_results(results: Sequence[RankResult | Problem], *, is_list: bool = True) -> bytes:
    """Write an answer.

    Args:
        results: One for each request, in order; a problem stands where there is no result.
        is_list: Whether to write {"results": [...]}; else the only result itself.
    """
    found = [
        _result(one) if isinstance(one, RankResult) else {"problem": dict(one)} for one in results
    ]
    return _encoder.encode({"results": found} if is_list else found[0])


def decode_results(body: bytes) -> list[RankResult | Problem]:
    """Give what an answer holds, in the order of the requests; arrays are copies.

    Raises:
        ServingError: It is no such answer.
    """
    values = _answer(body)
    given = values.get("results", [values])
    if not isinstance(given, list):
        raise _unreadable(f"results are {type(given).__name__}")
    try:
        return [_read_result(one) for one in given]
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise _unreadable(f"{type(error).__name__}: {error}") from None


def encode_problem(problem: Problem) -> bytes:
    """Write problem details."""
    return _encoder.encode(dict(problem))


def decode_problem(body: bytes) -> Problem:
    """Give problem details.

    Raises:
        ServingError: They cannot be read.
    """
    return _answer(body)


@dataclass(frozen=True)
class _Broken:
    """Stands in a body where a buffer could not be opened."""

    problem: str


def _broken_in(values: Any) -> Iterator[tuple[str, _Broken]]:
    """Give the buffers that could not be opened, and where they stand."""
    left = [("", values)]
    while left:
        where, value = left.pop()
        if isinstance(value, _Broken):
            yield where or "body", value
        elif isinstance(value, dict):
            prefix = f"{where}." if where else ""
            left += [(f"{prefix}{str(name)[:64]}", one) for name, one in value.items()]
        elif isinstance(value, list):
            left += [(f"{where}[{at}]", one) for at, one in enumerate(value)]


def _token_sizes() -> list[int]:
    """Give the bytes of a value by its first byte, payload included; 0 where these are to be read.

    Lists and mappings are their heads only.
    """
    sizes = [1] * 256
    for length in range(32):
        sizes[0xA0 + length] = 1 + length
    for first, size in {0xCA: 5, 0xCB: 9, 0xDC: 3, 0xDD: 5, 0xDE: 3, 0xDF: 5}.items():
        sizes[first] = size
    for power in range(4):
        sizes[0xCC + power] = sizes[0xD0 + power] = 1 + 2**power
    for first in (*_TEXT_HEADS, *_BUFFER_HEADS, *_FIXED_BUFFERS):
        sizes[first] = 0
    return sizes


# First byte -> how many bytes give the length.
_TEXT_HEADS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_BUFFER_HEADS = {0xC7: 1, 0xC8: 2, 0xC9: 4}
# First byte -> length.
_FIXED_BUFFERS = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_TOKEN_SIZES = _token_sizes()


def _plain_bytes(body: bytes) -> int:
    """Count the bytes outside buffers, up to the limit, without building anything of them."""
    at = plain = 0
    while at < len(body) and plain <= MAX_PLAIN_BYTES:
        first = body[at]
        size = _TOKEN_SIZES[first]
        if not size:
            width = _TEXT_HEADS.get(first) or _BUFFER_HEADS.get(first, 0)
            length = int.from_bytes(body[at + 1 : at + 1 + width], "big")
            is_text = first in _TEXT_HEADS
            # An extension has a byte for its type.
            size = 1 + width + (length if is_text else length + 1 + _FIXED_BUFFERS.get(first, 0))
        at += size
        plain += size if _TOKEN_SIZES[first] or first in _TEXT_HEADS else _BUFFER_COST
    return plain


def _members(request: RankRequest) -> dict[str, Any]:
    return {
        "user": _columns(request.user),
        "candidates": _columns(_transposed(request.candidates)),
        "context": _columns(request.context),
        "deadline_ms": request.deadline_ms,
        "top_k": request.top_k,
        "id": request.id,
    }


def _columns(given: Any) -> Any:
    # What is no mapping is refused by the server, in the same words for all clients.
    if not isinstance(given, Mapping):
        return given
    return {name: packed(value) for name, value in given.items()}


def _transposed(candidates: Any) -> Any:
    """Give candidates that all have the same columns as columns; all else as it is."""
    if isinstance(candidates, Mapping) or not candidates:
        return candidates
    names = candidates[0].keys() if isinstance(candidates[0], Mapping) else ()
    if any(not isinstance(one, Mapping) or one.keys() != names for one in candidates):
        return list(candidates)
    return {name: [one[name] for one in candidates] for name in names}


def _unsendable(at: int, request: RankRequest) -> Iterator[str]:
    """Give what is wrong with the values that cannot be encoded."""
    members: dict[str, Any] = {
        "user": request.user,
        "candidates": _transposed(request.candidates),
        "context": request.context,
        "deadline_ms": {"": request.deadline_ms},
        "top_k": {"": request.top_k},
        "id": {"": request.id},
    }
    for member, given in members.items():
        for name, value in (given if isinstance(given, Mapping) else {"": given}).items():
            try:
                _encoder.encode({name: packed(value)})
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                where = f"{member}.{name}" if name else member
                yield (
                    f"requests[{at}].{where}: cannot be sent. Got {type(value).__name__}: {error}. "
                    "Give numbers, texts, or lists or arrays of them."
                )


def _result(result: RankResult) -> dict[str, Any]:
    return {
        "id": result.id,
        "digest": result.digest,
        "order": np.asarray(result.order, np.int64),
        "blended": np.asarray(result.blended, np.float64),
        "scores": {task: np.asarray(one, np.float64) for task, one in result.scores.items()},
        "timing_ms": dict(result.timing_ms),
    }


def _answer(body: bytes) -> dict[str, Any]:
    try:
        values = msgspec.msgpack.decode(body, ext_hook=decode_buffer)
    except (ValueError, RecursionError) as error:
        raise _unreadable(str(error)) from None
    if not isinstance(values, dict):
        raise _unreadable(type(values).__name__)
    return values


def _unreadable(got: str) -> ServingError:
    return ServingError(
        f"answer: is not as documented in docs/wire.md. Got {got[:200]}. "
        "Check that a RankLoom server of this version answers at this address."
    )


def _read_result(given: dict[str, Any]) -> RankResult | Problem:
    if "problem" in given:
        return dict(given["problem"])
    blended = _array(given["blended"], np.float64)
    scores = {str(task): _array(one, np.float64) for task, one in given["scores"].items()}
    if any(len(one) != len(blended) for one in scores.values()):
        raise ValueError("scores of different lengths")
    return RankResult(
        scores=scores,
        blended=blended,
        order=_array(given["order"], np.int64),
        digest=str(given["digest"]),
        timing_ms={str(stage): float(one) for stage, one in given["timing_ms"].items()},
        id=str(given["id"]),
    )


def _array(given: Any, dtype: type[np.generic]) -> Array:
    if not isinstance(given, np.ndarray) or given.ndim != 1 or given.dtype != dtype:
        raise TypeError(f"no array of {dtype.__name__}")
    return given.copy()
