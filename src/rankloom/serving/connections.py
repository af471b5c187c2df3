"""Kept connections to one server, for the client; needs no torch."""

from __future__ import annotations

import http.client
import select
import socket
import ssl
import threading
from urllib.parse import urlsplit

from rankloom.errors import ConfigError


class Connections:
    """Connections to one server that are not in use.

    Args:
        url: Of the server.
        size: How many are kept.
        tls: How certificates are checked.

    Raises:
        ConfigError: The address is none.
    """

    def __init__(self, url: str, size: int, tls: ssl.SSLContext | None) -> None:
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname, parts.port
        except ValueError:
            parts, self._host = urlsplit(""), None
        # Only what may stand in the first line of a request.
        is_plain = url.isascii() and url.isprintable() and " " not in url and not parts.query
        if parts.scheme not in {"http", "https"} or not self._host or not is_plain:
            raise ConfigError(
                f"url: must be the address of a server. Got {url!r}. "
                "Give one such as 'http://127.0.0.1:8000'."
            )
        self.address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        """For messages."""
        self.path = parts.path.rstrip("/")
        """What comes before the path of what is asked."""
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._size = size
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._is_closed = False

    def take(self, timeout_s: float) -> http.client.HTTPConnection:
        """Give a connection that nobody uses, and whose every step takes at most so long."""
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._new(timeout_s)
            if connection.sock is not None and not _has_input(connection.sock):
                connection.timeout = timeout_s
                connection.sock.settimeout(timeout_s)
                return connection
            # The server has closed it, or says what nobody asked.
            connection.close()

    def _new(self, timeout_s: float) -> http.client.HTTPConnection:
        assert self._host is not None
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=timeout_s, context=self._tls
        )

    def give_back(self, connection: http.client.HTTPConnection) -> None:
        """Keep a connection whose answer was read, if there is room."""
        with self._lock:
            if not self._is_closed and len(self._idle) < self._size:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close those that are not in use; the others when they are given back."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


def _has_input(sock: socket.socket) -> bool:
    """Tell whether something has come, be it the end."""
    if sock.fileno() < 0:
        return True
    # Not `select`: it knows no numbers above 1023.
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
