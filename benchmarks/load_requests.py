"""Users and candidates for the models of `load_models`; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

COLUMNS, NUM_IDS, EVENTS = 12, 1000, 1000
"""Columns of a side, values of a column, events of a history."""
Columns = dict[str, npt.NDArray[np.int64]]


class LoadRequests:
    """Users and candidates, drawn at random.

    Args:
        has_history: Whether users have one.
        seed: Of the draws.
    """

    def __init__(self, *, has_history: bool, seed: int | Sequence[int]) -> None:
        self._has_history = has_history
        self._generator = np.random.default_rng(seed)

    def user(self) -> dict[str, Any]:
        """Draw a user whom nobody has seen."""
        ids = self._generator.integers(NUM_IDS, size=COLUMNS)
        user: dict[str, Any] = {f"user_{n}": int(one) for n, one in enumerate(ids)}
        if self._has_history:
            user["history_item_0"] = self._generator.integers(NUM_IDS, size=EVENTS)
        return user

    def candidates(self, count: int) -> Columns:
        """Draw so many candidates."""
        ids = self._generator.integers(NUM_IDS, size=(COLUMNS, count))
        return {f"item_{n}": column for n, column in enumerate(ids)}
