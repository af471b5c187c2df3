"""What one client may ask for, as an option of the server."""

from __future__ import annotations

from rankloom.config import Config


class Limits(Config):
    """What one client may ask for. Beyond it a request is refused before it costs anything."""

    body_bytes: int = 16 << 20
    """Of one HTTP body, as it is sent."""
    requests: int = 64
    """Users of one body."""
    candidates: int = 10_000
    """Of one user."""
    events: int = 100_000
    """Values of one user's or context's column, such as its history."""
    depth: int = 8
    """Lists and mappings inside each other."""
