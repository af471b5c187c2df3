"""Groups of features, and a request in which a group stands at its default.

The default of a feature is what the schema has stand for null: its own default, the row for
unknown ids, zeros; of a history, that it is empty. Where nothing stands for null, there is none.

Shapes: N candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rankloom.data.request import PLACES
from rankloom.schema import Schema, SequenceFeature
from rankloom.serving.request import RankRequest
from rankloom.serving.store.fillable import columns_of

Kind = Literal["feature", "history", "group"]
_At = tuple[str, str]
"""A place of a request (`user`, `context` or `candidates`), and a column there."""


@dataclass(frozen=True)
class Group:
    """Features that are set to their defaults together."""

    kind: Kind
    """One feature, all of the user's histories, or a group of the model's tokenization."""
    name: str
    features: tuple[str, ...]
    fills: Mapping[_At, Any]
    """Each column that they read -> what is sent instead."""
    also: tuple[str, ...]
    """Other features that read some of these columns, and change with them."""


def groups_of(
    schema: Schema, together: Mapping[str, Sequence[str]]
) -> tuple[list[Group], dict[str, str]]:
    """Divide the features of requests into groups.

    Args:
        schema: Of the artifact.
        together: Group -> features. A feature of none is a group by itself; the user's histories
            are one.

    Returns:
        groups: In the order of the features.
        without_default: Feature -> its column for which nothing stands for null.
    """
    reads = {name: _reads(schema, name) for name in schema.features}
    needed = {at for one in reads.values() for at, fill in one.items() if fill is _NOTHING}
    without_default = {
        name: f"{place}/{column}"
        for name, one in reads.items()
        for place, column in one
        if (place, column) in needed
    }
    owners: dict[str, tuple[Kind, str]] = {
        name: ("history", "history")
        for name, feature in schema.sequences.items()
        if feature.side == "user"
    }
    owners |= {name: ("group", group) for group, names in together.items() for name in names}
    members: dict[tuple[Kind, str], list[str]] = {}
    for name, one in reads.items():
        if one and name not in without_default:
            members.setdefault(owners.get(name, ("feature", name)), []).append(name)
    return [_group(key, names, reads) for key, names in members.items()], without_default


def without(request: RankRequest, group: Group) -> RankRequest:
    """Give a request in which a group's features stand at their defaults.

    Args:
        request: It has all columns.
        group: The group.
    """
    filled: dict[str, dict[str, Any]] = {"user": {}, "context": {}, "candidates": {}}
    for (place, column), value in group.fills.items():
        filled[place][column] = value
    candidates, rows = request.candidates, filled["candidates"]
    if isinstance(candidates, Mapping):
        count = max(map(len, candidates.values()), default=0)
        candidates = {**candidates, **{name: [value] * count for name, value in rows.items()}}
    else:
        candidates = [{**one, **rows} for one in candidates]
    return replace(
        request,
        user={**request.user, **filled["user"]},
        context={**request.context, **filled["context"]},
        candidates=candidates,
    )


_NOTHING = object()
"""What stands for null where null is an error."""


def _reads(schema: Schema, name: str) -> dict[_At, Any]:
    """Give the columns that a feature reads of requests -> what stands for nothing there."""
    if name in schema.training_only:
        return {}
    feature = schema.features[name]
    place = PLACES[feature.side]
    found: dict[_At, Any] = {
        (place, column): _NOTHING if needs_value else None
        for column, needs_value in columns_of(schema, name, feature).items()
    }
    if isinstance(feature, SequenceFeature) and feature.first_event is not None:
        # Of an empty history nothing was dropped.
        found[place, feature.first_event] = 0
    if any(one.time is not None for one in schema.sequences.values()):
        # The ages of events are counted from it.
        now = [at for at in found if at[1] == schema.roles.event_time and place != "candidates"]
        found |= dict.fromkeys(now, _NOTHING)
    return found


def _group(key: tuple[Kind, str], names: list[str], reads: Mapping[str, dict[_At, Any]]) -> Group:
    fills = {at: fill for name in names for at, fill in reads[name].items()}
    others = [
        name
        for name, one in reads.items()
        if name not in names and not fills.keys().isdisjoint(one)
    ]
    return Group(*key, tuple(names), fills, tuple(others))
