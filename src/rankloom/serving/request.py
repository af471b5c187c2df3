"""What the server is asked and what it answers, whatever the format; needs no torch.

Shapes: N candidates, K of them asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    # Clients import this file, and have no use for what reads configs.
    from rankloom.schema import Schema


Given = Mapping[str, Any]
"""Column of the log -> value; of candidates: column -> N values."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class RankRequest:
    """Rank these candidates for this user."""

    user: Given
    """Column -> value, what features of side user read."""
    candidates: Given | Sequence[Given]
    """Column -> N values, what features of side item and cross read; or N mappings."""
    context: Given = field(default_factory=dict)
    """Column -> value, what features of side context read; and the event time."""
    deadline_ms: float | None = None
    """What is left of the client's time when the request arrives; else the server's default."""
    top_k: int | None = None
    """How many of the best `order` names; else all."""
    id: str = ""
    """The client's name for it; given back."""

    @property
    def num_candidates(self) -> int:
        """N, as far as it is told before the request is decoded."""
        given = self.candidates
        if isinstance(given, Mapping):
            return max(map(len, given.values()), default=0)
        return len(given)


@dataclass(frozen=True, kw_only=True)
class RankResult:
    """Scores of one request's candidates."""

    scores: Mapping[str, Floats]
    """Task -> (N,). A probability or a mean."""
    blended: Floats
    """(N,). By the server's formula."""
    order: npt.NDArray[np.int64]
    """(K,). Places of the best candidates by `blended`, the best first; ties by place."""
    digest: str
    """Of the artifact that scored them."""
    timing_ms: Mapping[str, float] = field(default_factory=dict)
    """Stage -> milliseconds: `decode`, `queue`, `user`, `candidates`, `total`."""
    id: str = ""
    """Of the request."""
    is_hit: bool | None = None
    """Whether the user's state was kept from before, where that is known."""


@dataclass(frozen=True)
class Served:
    """The artifact that is served at the moment."""

    name: str
    """What clients call the model."""
    digest: str
    """Its identity."""
    schema: Schema
    """Features, roles and tasks."""
    columns: Mapping[str, Sequence[str]]
    """`user`, `context` and `candidates` -> the columns that are read there."""


class Backend(Protocol):
    """What answers requests: the way to the compute process, or a double in tests."""

    def served(self) -> Served | None:
        """Give what is served, or none as long as nothing is."""
        ...

    async def rank(self, request: RankRequest) -> RankResult:
        """Rank one request's candidates.

        Raises:
            RequestError: Columns are missing or values not allowed; all such at once.
            DeadlineError: It cannot be answered in time, or was not.
            OverloadedError: There is no room for it, or nothing that could answer.
        """
        ...
