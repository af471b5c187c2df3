"""What front ends and the compute process say to each other over a Unix socket; needs no torch.

A frame is a head of 16 bytes (kind, bytes of the message, bytes of the arrays), a message in
MessagePack, and the arrays one after the other, each at a multiple of 8 bytes. Both ends are our
own processes on one machine; sizes are bounded all the same.

Shapes: N candidates.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from rankloom.data.columns import Column, Key, Lists, Plain
from rankloom.errors import ServingError
from rankloom.serving.parts import Parts

Array = npt.NDArray[Any]
HEAD = struct.Struct("<IIQ")
MAX_BYTES = 1 << 31
_ALIGNMENT = 8


class Kind(IntEnum):
    """What a frame is about."""

    OFFER = 0
    """Compute: get ready to decode requests for this artifact."""
    SERVE = 1
    """Compute: this artifact is to be served from now on."""
    LOADED = 2
    """Front end: it is ready for an artifact."""
    REFUSED = 3
    """Front end: it cannot be."""
    RANK = 4
    """Front end: a decoded request."""
    CANCEL = 5
    """Front end: nobody waits for that request any more."""
    RESULT = 6
    """Compute: its scores."""
    FAILED = 7
    """Compute: why there are none."""
    PING = 8
    """Front end: does it go on?"""
    PONG = 9
    """Compute: seconds since what it computes at present began, or 0."""


@dataclass(frozen=True)
class Frame:
    """One thing said."""

    kind: Kind
    message: Any
    """Plain values."""
    arrays: Sequence[Array] = field(default_factory=tuple)
    """Contiguous."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()


def encode_frame(frame: Frame) -> bytes:
    """Write a frame."""
    about = [(one.dtype.str, one.shape) for one in frame.arrays]
    message = _encoder.encode((frame.message, about))
    parts: list[bytes | memoryview] = [bytes(_padding(len(message)))]
    size = 0
    for one in frame.arrays:
        parts += (
            np.ascontiguousarray(one).reshape(-1).view(np.uint8).data,
            bytes(_padding(one.nbytes)),
        )
        size += one.nbytes + _padding(one.nbytes)
    return b"".join([HEAD.pack(frame.kind, len(message), size), message, *parts])


def _padding(num_bytes: int) -> int:
    return -num_bytes % _ALIGNMENT


def read_head(head: bytes | bytearray | memoryview) -> tuple[Kind, int, int]:
    """Read a head: the kind, the bytes of the message, and all bytes that follow.

    Raises:
        ServingError: It is no head.
    """
    kind, message_bytes, array_bytes = HEAD.unpack(head)
    if kind not in Kind.__members__.values() or message_bytes + array_bytes > MAX_BYTES:
        raise ServingError(
            f"socket: no frame begins here. Got kind {kind} of {message_bytes + array_bytes} "
            "bytes. Front ends and the compute process must be of one version."
        )
    return Kind(kind), message_bytes, message_bytes + _padding(message_bytes) + array_bytes


def decode_frame(kind: Kind, message_bytes: int, body: memoryview) -> Frame:
    """Read what follows a head; the frame's arrays are views of it."""
    values, about = _decoder.decode(body[:message_bytes])
    arrays, at = [], message_bytes + _padding(message_bytes)
    for dtype, shape in about:
        array: Array = np.ndarray(shape, dtype, body, at)
        arrays.append(array)
        at += array.nbytes + _padding(array.nbytes)
    return Frame(kind, values, arrays)


class FrameBuffer:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Give the frames that are complete with some more bytes.

        Raises:
            ServingError: The bytes are no frames.
        """
        self._held += data
        while len(self._held) >= HEAD.size:
            kind, message_bytes, body_bytes = read_head(self._held[: HEAD.size])
            stop = HEAD.size + body_bytes
            if len(self._held) < stop:
                return
            # A copy, because arrays are views of it and what is held goes on changing.
            body = memoryview(bytes(self._held[HEAD.size : stop]))
            del self._held[:stop]
            yield decode_frame(kind, message_bytes, body)


def pack_parts(parts: Parts) -> tuple[list[Any], list[Array]]:
    """Take a decoded request apart: what stands where, and its arrays."""
    layout: list[Any] = []
    arrays: list[Array] = []
    for place, columns in enumerate((parts.user, parts.request, parts.rows)):
        for (kind, name), column in columns.items():
            if isinstance(column, Plain):
                layout.append((place, kind, name, None))
                arrays.append(column.values)
            else:
                layout.append((place, kind, name, list(column.values)))
                arrays += [column.offsets, *column.values.values()]
    return layout, arrays


def unpack_parts(layout: Sequence[Any], arrays: Sequence[Array], num_rows: int) -> Parts:
    """Put a decoded request together again.

    Args:
        layout: What `pack_parts` said.
        arrays: Its arrays.
        num_rows: N.
    """
    columns: tuple[dict[Key, Column], ...] = ({}, {}, {})
    left = iter(arrays)
    for place, kind, name, inner in layout:
        if inner is None:
            columns[place][kind, name] = Plain(next(left))
        else:
            columns[place][kind, name] = Lists(next(left), {one: next(left) for one in inner})
    user, request, rows = columns
    return Parts(user, request, rows, num_rows)
