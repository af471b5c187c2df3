"""Which side a column is of, by what it is constant within.

All rows of a random sample of users (items, requests) show in how many of them a column has one
value. A column that hardly varies at all has one value within anything; so what is seen must be far
more than equal draws from the column's values would give.

Shapes: S sampled rows, C columns, G keys with several rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rankloom.data.columns import Ints
from rankloom.data.inspection.coded import Floats, Hashes
from rankloom.data.inspection.names import hint
from rankloom.data.inspection.samples import KeyedRows, run_starts
from rankloom.data.inspection.shape import Shape
from rankloom.schema import Side

MIN_KEYS = 10
"""Keys with several rows that it takes to say anything."""
MIN_CONSTANT = 0.98
"""Share of them in which a column must have one value."""
MAX_UNEXPLAINED = 0.2
"""Part of the keys expected to vary that may vary all the same."""
_COUNTED_ROWS = 50
_COUNTED_VALUES = 200

_SIDE_OF_GROUP: dict[str, Side] = {"user": "user", "item": "item", "request": "context"}


@dataclass(frozen=True)
class SideGuess:
    """A column's side."""

    side: Side
    evidence: str


@dataclass(frozen=True)
class Constancy:
    """How steady a column is within keys."""

    num_keys: int
    """Sampled keys with several rows."""
    share: float
    """Of them, those with one value."""
    by_chance: float
    """The share that rows drawn at random would have."""

    @property
    def holds(self) -> bool:
        """Tell whether the column belongs to the key."""
        return (
            self.num_keys >= MIN_KEYS
            and self.share >= MIN_CONSTANT
            and 1 - self.share <= MAX_UNEXPLAINED * (1 - self.by_chance)
        )


def constancy(group: KeyedRows) -> list[Constancy]:
    """Give, for each of the C columns, how steady it is within the keys."""
    keys, rows = group.rows()
    starts = run_starts(keys)
    if not len(starts):
        return []
    sizes = np.diff(starts, append=len(keys))
    several = sizes > 1
    low = np.minimum.reduceat(rows.hashes, starts, axis=0)[several]
    high = np.maximum.reduceat(rows.hashes, starts, axis=0)[several]
    if not several.any():
        return [Constancy(0, 0.0, 0.0)] * rows.hashes.shape[1]
    shares = (low == high).mean(axis=0)
    chances = [_by_chance(column, sizes[several]) for column in rows.hashes.T]
    return [
        Constancy(int(several.sum()), float(share), chance)
        for share, chance in zip(shares, chances, strict=True)
    ]


def _by_chance(column: Hashes, sizes: Ints) -> float:
    """Give the expected share of constant keys if their rows were drawn from all rows."""
    _, counts = np.unique(column, return_counts=True)
    common: Floats = np.sort(counts)[::-1][:_COUNTED_VALUES] / len(column)
    powers = np.minimum(sizes, _COUNTED_ROWS)
    distinct, times = np.unique(powers, return_counts=True)
    expected = (common[:, None] ** distinct).sum(axis=0)
    return float((expected * times).sum() / times.sum())


def guess_sides(
    shape: Shape, columns: Sequence[str], groups: Mapping[str, KeyedRows]
) -> dict[str, SideGuess]:
    """Guess the side of each sampled column.

    Args:
        shape: How the log is laid out.
        columns: The C columns of the samples.
        groups: `user`, `item`, `request` -> rows of some of them.
    """
    seen = {group: constancy(sample) for group, sample in groups.items()}
    of_role = {column: role for role, column in shape.roles.items()}
    found = {}
    for at, name in enumerate(columns):
        steady = {group: by_column[at] for group, by_column in seen.items() if by_column}
        role = of_role.get(name)
        if role in {"user", "item"}:
            side: Side = "user" if role == "user" else "item"
            found[name] = SideGuess(side, f"names the {role}")
        else:
            found[name] = _guess_side(name, shape, steady)
    return found


def _guess_side(name: str, shape: Shape, steady: Mapping[str, Constancy]) -> SideGuess:
    is_grouped, per_row = shape.layout == "grouped", shape.is_per_row(name)
    # What a grouped log has in lists is of the candidate, and nothing else is.
    possible = [
        group
        for group in ("user", "item", "request")
        if not is_grouped or (group == "item") == per_row
    ]
    for group in possible:
        if group in steady and steady[group].holds:
            one = steady[group]
            text = f"one value within {one.share:.1%} of {one.num_keys:,} {group}s"
            return SideGuess(_SIDE_OF_GROUP[group], text)
    if is_grouped:
        if per_row:
            return SideGuess("cross", "one entry a candidate, and varies within items")
        return SideGuess("context", "one value a request, and varies within users")
    if not {"user", "item"} & set(shape.roles):
        return SideGuess("user", "no users or items are named")
    if hint(name) == "moment" and steady.get("request", Constancy(0, 0, 0)).num_keys < MIN_KEYS:
        return SideGuess("context", "its name; no requests of several rows show it")
    return SideGuess("cross", "varies within users, items and requests")
