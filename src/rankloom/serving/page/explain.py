"""What a ranking owes to each group of features: how scores change without it.

    explanation = await Explainer(backend).explain(request)

The request is ranked once as it is and once for each group with the group at its default; a change
is the second score less the first. Groups act together in a model, so that changes do not add up.

Shapes: N candidates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from rankloom.errors import DeadlineError, OverloadedError, RequestError
from rankloom.serving.page.groups import Group, groups_of, without
from rankloom.serving.request import Backend, Floats, RankRequest, RankResult

MAX_CANDIDATES = 1000
MAX_GROUPS = 64
AT_ONCE = 4
"""Rankings of explanations that one process asks for at one time: real requests need the rest."""
DEADLINE_MS = 30_000.0
"""Of each ranking; the earliest deadline comes first, which is nearly always a real request's."""
TIMEOUT_S = 60.0
"""Of a whole explanation."""


class PageBackend(Backend, Protocol):
    """A backend that the page can try things with."""

    def examples(self) -> Sequence[RankRequest]:
        """Give some requests that can be ranked."""
        ...

    def groups(self) -> Mapping[str, Sequence[str]]:
        """Give group -> features, where the model has such groups."""
        ...

    async def fill(self, request: RankRequest) -> RankRequest:
        """Give a request with what a feature store has of it."""
        ...

    async def try_out(self, request: RankRequest, *, keep_state: bool) -> RankResult:
        """Rank a request that nobody made; see `Backend.rank`.

        Args:
            request: What to rank.
            keep_state: Whether the user's state may take the place of another's in the cache.
        """
        ...


@dataclass(frozen=True)
class Change:
    """How scores change when a group is set to its default."""

    group: Group
    blended: Floats
    """(N,). Not a number where a score was not finite."""
    scores: Mapping[str, Floats]
    """Task -> (N,)."""


@dataclass(frozen=True)
class Explanation:
    """One request's scores, and their changes."""

    result: RankResult
    """As it was asked."""
    changes: Sequence[Change]
    """In the order of the schema's features."""
    without_default: Mapping[str, str]
    """Feature that has no default -> its place and column."""
    left_out: Sequence[str]
    """Groups beyond the limit."""


class Explainer:
    """Explains rankings, some at a time.

    Args:
        backend: What ranks.
    """

    def __init__(self, backend: PageBackend) -> None:
        self._backend = backend
        self._room = asyncio.Semaphore(AT_ONCE)

    async def explain(self, request: RankRequest, *, by_feature: bool = False) -> Explanation:
        """Rank a request with and without each group of features.

        Args:
            request: At most `MAX_CANDIDATES`.
            by_feature: Whether each feature is a group, even if the model has groups.

        Raises:
            RequestError: The request is wrong, or has too many candidates.
            OverloadedError: There is no room, or another artifact was served meanwhile.
            DeadlineError: It took too long.
        """
        served = self._backend.served()
        if served is None:
            raise OverloadedError("server: nothing is served at the moment. Ask again later.")
        count = request.num_candidates
        if count > MAX_CANDIDATES:
            raise RequestError(
                f"candidates: at most {MAX_CANDIDATES} can be explained. Got {count}. Send fewer."
            )
        together = {} if by_feature else self._backend.groups()
        groups, without_default = groups_of(served.schema, together)
        kept = groups[:MAX_GROUPS]
        request = replace(request, deadline_ms=DEADLINE_MS)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                # Whatever depends on an id must not change with it.
                request = await self._backend.fill(request)
                # All variants that leave the user alone need this user's state, and no other.
                result = await self._rank(request, keep_state=True)
                changed = await self._rank_all([without(request, group) for group in kept])
        except TimeoutError:
            raise DeadlineError(
                f"explanation: took more than {TIMEOUT_S:.0f} s. Send fewer candidates, or ask "
                "when less is going on."
            ) from None
        if {served.digest} != {one.digest for one in (result, *changed)}:
            raise OverloadedError("server: another artifact was served meanwhile. Ask again.")
        changes = [_change(*pair, result) for pair in zip(kept, changed, strict=True)]
        return Explanation(
            result, changes, without_default, [group.name for group in groups[MAX_GROUPS:]]
        )

    async def _rank_all(self, requests: Sequence[RankRequest]) -> list[RankResult]:
        tasks = [asyncio.create_task(self._rank(one, keep_state=False)) for one in requests]
        try:
            return await asyncio.gather(*tasks)
        finally:
            # Where one fails, nobody needs the others.
            for task in tasks:
                task.cancel()

    async def _rank(self, request: RankRequest, *, keep_state: bool) -> RankResult:
        async with self._room:
            return await self._backend.try_out(request, keep_state=keep_state)


def _change(group: Group, changed: RankResult, result: RankResult) -> Change:
    # Infinity less infinity is not a number, which is what is meant.
    with np.errstate(invalid="ignore"):
        blended = changed.blended - result.blended
        scores = {task: changed.scores[task] - one for task, one in result.scores.items()}
    return Change(group, blended, scores)
