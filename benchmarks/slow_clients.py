"""Slow clients: requests that come byte by byte, and answers that nobody takes."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.injected_faults import MANY, Measured, packed
from benchmarks.serving_world import LIMITS_S, World
from rankloom.serving import wire

BYTE_EVERY_S = 0.25
PATIENCE_S = 20.0
READERS = 2
"""Clients that ask for much and read nothing; each costs the server all that it asks for."""
AHEAD = 14
"""Requests that such a client sends at once: their answers are more than the system buffers."""


@dataclass
class _Slow:
    """One connection."""

    client: socket.socket
    kind: str
    """`head` or `body`, which comes byte by byte; or `reader`, who takes no answer."""
    data: bytes
    begun_s: float
    received: bytes = b""

    def goes_on(self) -> bool:
        """Send a byte and look what came; tells whether the connection is still there."""
        try:
            if self.kind == "reader":
                if self.client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    return False
                self.data = self.data[self.client.send(self.data) :] if self.data else b""
                return True
            if self.data:
                self.data = self.data[self.client.send(self.data[:1]) :]
            piece = self.client.recv(4096)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.received += piece
        return bool(piece)


def send_slowly(world: World, until_s: float, options: Mapping[str, Any]) -> Measured:
    """Keep many slow connections open; each that is closed is replaced by another one."""
    head = b"POST /v1/rank HTTP/1.1\r\nHost: x\r\n"
    head += f"Content-Type: {wire.CONTENT_TYPE}\r\nAccept: application/json\r\n".encode()
    body, wide = packed(world), packed(world, count=MANY)
    sized = head + f"Content-Length: {len(body)}\r\n\r\n".encode()
    whole = head + f"Content-Length: {len(wide)}\r\n\r\n".encode() + wide
    # What comes at once, and what then comes byte by byte.
    kinds = {"head": (b"", sized), "body": (sized, body), "reader": (b"", whole * AHEAD)}
    ended: Counter[str] = Counter()
    lives_s = dict.fromkeys(kinds, 0.0)

    def begin(kind: str) -> _Slow:
        at_once, slowly = kinds[kind]
        client = socket.socket()
        if kind == "reader":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(10)
        client.connect(("127.0.0.1", world.server.port))
        client.sendall(at_once)
        client.setblocking(False)
        return _Slow(client, kind, slowly, time.monotonic())

    given = ["head", "body"] * (options["slow"] // 2) + ["reader"] * READERS
    ones = [begin(kind) for kind in given]
    wanted = {"head 408", "body 408"}
    # On a busy machine both the bytes and the cutting off are late.
    while (began_s := time.monotonic()) < until_s or (
        began_s < until_s + PATIENCE_S and not wanted <= ended.keys()
    ):
        for at, one in enumerate(ones):
            is_there = one.goes_on()
            lives_s[one.kind] = max(lives_s[one.kind], time.monotonic() - one.begun_s)
            if not is_there:
                one.client.close()
                status = one.received[9:12].decode() or "closed"
                ended[f"{one.kind} {status}"] += 1
                ones[at] = begin(one.kind)
        time.sleep(max(0.0, began_s + BYTE_EVERY_S - time.monotonic()))
    for one in ones:
        one.client.close()
    return {
        "restarts_expected": 0,
        "connections": len(given),
        "ended_by_server": dict(ended),
        "longest_life_s": lives_s,
        "limits_s": LIMITS_S,
    }
