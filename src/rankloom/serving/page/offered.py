"""What the compute process tells front ends for the page alone; no torch, no Starlette."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

MAX_EXAMPLES = 5
MAX_EXAMPLE_BYTES = 1 << 20
"""Of all but the first, as JSON."""


def few(requests: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Give the first requests, few and small enough to be sent and shown; at least one."""
    kept = [*requests[:1]]
    left = MAX_EXAMPLE_BYTES
    for one in requests[1:MAX_EXAMPLES]:
        left -= len(msgspec.json.encode(one))
        if left < 0:
            break
        kept.append(one)
    return kept


def groups_of_run(run: Mapping[str, Any]) -> dict[str, list[str]]:
    """Give the groups of features that a run's tokenization names, for people only.

    Args:
        run: The resolved run file, as an artifact's manifest keeps it; nobody has checked it.

    Returns:
        Group -> features. Empty, where the run has no such tokenization.
    """
    found: Any = run
    for name in ("model", "tokenization", "groups"):
        found = found.get(name) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        return {}
    return {
        str(group): [str(one) for one in features]
        for group, features in found.items()
        if isinstance(features, list | tuple)
    }
