"""How a log is laid out: flat or grouped, which lists are histories, which columns name what.

Guessed from the columns' names and types and from the first lines, before the log is read; what a
run file says goes before what is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pyarrow as pa

from rankloom.data.arrow_keys import is_string
from rankloom.data.inspection.event_lists import (
    History,
    Lists,
    declared_histories,
    guessed_histories,
    is_readable,
    opened,
)
from rankloom.data.inspection.names import (
    hint,
    is_history_name,
    words,
)
from rankloom.data.uses import Layout
from rankloom.schema import Schema

ROLES = ("user", "item", "request", "event_time", "position", "scenario")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What each column is, as far as it decides how the log is read."""

    schema: pa.Schema
    """Of the files."""
    layout: Layout
    """flat: one row a line. grouped: one request a line."""
    candidates: frozenset[str] = frozenset()
    """Columns of a grouped log that hold a list with one entry a candidate."""
    lines: tuple[str, ...] = ()
    """Columns with one value a line."""
    rows: tuple[str, ...] = ()
    """Columns with one value a candidate, in lists; none in a flat log."""
    bags: tuple[str, ...] = ()
    """Columns with several values a row."""
    vectors: dict[str, int] = field(default_factory=dict)
    """Columns with a vector a row -> its width."""
    histories: tuple[History, ...] = ()
    """Past events, a line each."""
    others: tuple[str, ...] = ()
    """Columns of types that no feature has."""
    roles: dict[str, str] = field(default_factory=dict)
    """Role -> column."""
    labels: tuple[str, ...] = ()
    """Columns that a run file makes labels of, or that are named like one."""

    @property
    def scalars(self) -> tuple[str, ...]:
        """Columns with one value a row or line."""
        return self.lines + self.rows

    def is_per_row(self, column: str) -> bool:
        """Tell whether a grouped log has a column in lists, one entry a candidate."""
        return column in self.candidates

    def leaf(self, column: str) -> pa.DataType:
        """Give the type within all lists of a column."""
        return opened(self.schema.field(column).type)[1]


def find_shape(
    first: pa.Table, *, schema: Schema | None = None, layout: Layout | None = None
) -> Shape:
    """Guess how a log is laid out.

    Args:
        first: Some of its lines.
        schema: What a run file says, if there is one.
        layout: How a run file says that the log is stored.
    """
    lists = Lists(first)
    declared = [one for one in declared_histories(schema) if set(one.lists) <= set(lists.lengths)]
    in_declared = {name for one in declared for name in one.lists}
    candidates = _candidates(first, lists, schema, layout, in_declared)
    layout = layout or ("grouped" if candidates else "flat")
    histories = declared + guessed_histories(first, lists, candidates | in_declared)
    in_history = {name for one in histories for name in one.lists}
    shape = Shape(
        schema=first.schema,
        layout=layout,
        candidates=frozenset(candidates),
        histories=tuple(histories),
    )
    found: dict[str, list[str]] = {"lines": [], "rows": [], "bags": [], "others": []}
    for name in first.column_names:
        if name in in_history:
            continue
        depth, leaf = opened(first.schema.field(name).type)
        depth -= name in candidates
        if not is_readable(leaf) or depth > 1:
            found["others"].append(name)
        elif depth == 0:
            found["rows" if name in candidates else "lines"].append(name)
        elif width := lists.vector_width(name, name in candidates):
            shape.vectors[name] = width
        else:
            found["bags"].append(name)
    lines, rows, bags, others = (tuple(names) for names in found.values())
    shape = replace(shape, lines=lines, rows=rows, bags=bags, others=others)
    labels = (
        set(schema.label_columns()) if schema else {n for n in shape.scalars if hint(n) == "label"}
    )
    in_order = tuple(name for name in shape.scalars if name in labels)
    return replace(shape, roles=_roles(shape, schema), labels=in_order)


def _candidates(
    first: pa.Table,
    lists: Lists,
    schema: Schema | None,
    layout: Layout | None,
    taken: set[str],
) -> set[str]:
    """Find the columns that hold one entry for each candidate of a request."""
    if layout == "flat":
        return set()
    free = [name for name in lists.lengths if name not in taken]
    labels = set(schema.label_columns()) if schema else set()
    anchors = [name for name in free if name in labels]
    anchors += [name for name in free if _is_anchor(first, name)]
    if not anchors and layout == "grouped":
        anchors = [name for name in free if not is_history_name(name)]
    anchor = next(iter(anchors), None)
    if anchor is None:
        return set()
    return {
        name
        for name in free
        if lists.agree(anchor, name) and (name in anchors or not is_history_name(name))
    }


def _is_anchor(first: pa.Table, name: str) -> bool:
    """Tell whether a list must have one entry a candidate, by its name and values."""
    depth, leaf = opened(first.schema.field(name).type)
    what = hint(name)
    if depth != 1 or is_history_name(name) or not is_readable(leaf) or is_string(leaf):
        return False
    if what in {"oracle", "position"}:
        return True
    if what not in {"label", "rating"}:
        return False
    values = first[name].combine_chunks().flatten().drop_null().unique()
    return what == "rating" or set(values.to_pylist()) <= {0, 1}


def _roles(shape: Shape, schema: Schema | None) -> dict[str, str]:
    """Say which column names what: what a run file says, else the first of a fitting name."""
    said: Mapping[str, str | None] = schema.roles.to_dict() if schema else {}
    roles = {role: name for role, name in said.items() if name and name in shape.scalars}
    for role in ROLES:
        fitting = [
            name
            for name in shape.scalars
            if hint(name) == ("time" if role == "event_time" else role) and _fits(shape, role, name)
        ]
        if role not in roles and fitting:
            # An id in the name is clearer than none: `user_id` goes before `user`.
            fitting.sort(key=lambda name: "id" not in words(name) and "uid" not in words(name))
            roles[role] = fitting[0]
    return roles


def _fits(shape: Shape, role: str, name: str) -> bool:
    leaf = shape.leaf(name)
    in_rows = name in shape.rows
    is_key = pa.types.is_integer(leaf) or is_string(leaf)
    if role == "event_time":
        return not in_rows and bool(pa.types.is_integer(leaf) or pa.types.is_temporal(leaf))
    if shape.layout == "grouped" and in_rows != (role in {"item", "position"}):
        return False
    return bool(pa.types.is_integer(leaf) if role == "position" else is_key)
