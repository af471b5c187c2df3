"""Which requests are logged: a function of their ids, so that all logs and processes agree."""

from __future__ import annotations

import itertools
import zlib

_WORDS = 1 << 32


class Sample:
    """A share of all requests; one at a higher rate holds that at a lower one.

    Args:
        rate: The share, from 0 to 1.
    """

    def __init__(self, rate: float) -> None:
        self._bound = rate * _WORDS
        self._unnamed = itertools.count()

    def has(self, request_id: str) -> bool:
        """Tell whether a request is in it; one without an id counts as another one each time."""
        name = request_id or str(next(self._unnamed))
        # Spread well enough for shares, at a tenth of a cryptographic hash's time.
        return zlib.crc32(name.encode(errors="replace")) < self._bound
