"""A decoded request taken apart by rate, and the key of its user; needs no torch.

What depends on the user alone is computed once and kept under a key of the values themselves: two
requests with equal values share it, whoever they are from, and a value that changes is another key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rankloom.data.columns import Block, Column, Key, Lists
from rankloom.schema import Rate, Schema


@dataclass(frozen=True)
class Parts:
    """The columns of one request, by rate."""

    user: Mapping[Key, Column]
    """One entry each."""
    request: Mapping[Key, Column]
    """One entry each."""
    rows: Mapping[Key, Column]
    """N entries each."""
    num_rows: int
    """N."""

    @property
    def num_events(self) -> int:
        """Events of all the user's histories."""
        return sum(int(one.offsets[-1]) for one in self.histories().values())

    def histories(self) -> dict[str, Lists]:
        """Give the user's histories by name."""
        return {
            name: column
            for (kind, name), column in self.user.items()
            if kind == "sequences" and isinstance(column, Lists)
        }


def take_apart(block: Block, schema: Schema) -> Parts:
    """Divide a request's columns by rate."""
    user: dict[Key, Column] = {}
    request: dict[Key, Column] = {}
    for (kind, name), column in block.requests.items():
        # How long ago the newest event was, depends on when it is asked.
        is_user = kind != "age_newest" and schema.features[name].rate <= Rate.USER
        (user if is_user else request)[kind, name] = column
    return Parts(user, request, block.rows, block.num_rows)


def user_key(parts: Parts) -> bytes:
    """Give 16 bytes that differ where a user's values do."""
    digest = hashlib.blake2b(digest_size=16)
    for (kind, name), column in parts.user.items():
        digest.update(f"{kind}/{name}".encode())
        if isinstance(column, Lists):
            arrays = [column.offsets, *column.values.values()]
        else:
            arrays = [column.values]
        for array in arrays:
            # Sizes too, so that no two sets of arrays give the same bytes.
            digest.update(f"|{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.digest()
