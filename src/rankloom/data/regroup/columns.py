"""Which columns are the request's and which the candidates', and how a file says so."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from rankloom.data.uses import ColumnUse, feature_uses, is_list_type, label_uses, role_uses
from rankloom.errors import SchemaError, join_problems
from rankloom.schema import Schema

MARK = b"rankloom.grouped"
"""Key of a grouped file's metadata: which columns are lists of candidates."""


@dataclass(frozen=True)
class Sides:
    """What is known of a log's columns."""

    request: tuple[str, ...] = ()
    """Have one value for a request."""
    candidate: tuple[str, ...] = ()
    """Have one value for a row."""

    def unknown(self, names: Iterable[str]) -> list[str]:
        """Give the columns that are neither."""
        known = {*self.request, *self.candidate}
        return [name for name in names if name not in known]


def sides_of_schema(schema: Schema) -> Sides:
    """Give the columns that a run reads at each level.

    Raises:
        SchemaError: A column is read at both, which no grouped log can have.
    """
    uses = [*feature_uses(schema, training=True), *label_uses(schema), *role_uses(schema)]
    by_level: dict[bool, dict[str, ColumnUse]] = {True: {}, False: {}}
    for use in uses:
        by_level[use.is_row].setdefault(use.column, use)
    of_rows, of_requests = by_level[True], by_level[False]
    problems = [
        f"column {name!r} must be the request's or the candidates'. Got "
        f"{of_requests[name].declared} and {of_rows[name].declared}. Write it twice, or change a "
        "feature's side."
        for name in of_rows
        if name in of_requests
    ]
    if problems:
        raise SchemaError(join_problems(problems, where="schema"))
    return Sides(tuple(of_requests), tuple(of_rows))


def grouped_schema(flat: pa.Schema, candidates: Sequence[str], by: str) -> pa.Schema:
    """Give the columns of a grouped file: the candidates' in lists, all else as it was."""
    fields = [
        pa.field(field.name, _list_of(field), nullable=False, metadata=field.metadata)
        if field.name in candidates
        else field
        for field in flat
    ]
    return marked(pa.schema(fields, metadata=flat.metadata), candidates, by)


def marked(grouped: pa.Schema, candidates: Sequence[str], by: str) -> pa.Schema:
    """Have a grouped file name its candidates' columns."""
    mark = json.dumps({"by": by, "candidates": list(candidates)})
    return grouped.with_metadata({**(grouped.metadata or {}), MARK: mark})


def flat_schema(grouped: pa.Schema, candidates: Sequence[str]) -> pa.Schema:
    """Undo `grouped_schema`.

    Raises:
        SchemaError: Columns of candidates are no lists; all are named.
    """
    problems = [
        f"column {name!r} must be a list with one entry per candidate. Got "
        f"{grouped.field(name).type}. Leave it out of the candidates' columns."
        for name in candidates
        if not is_list_type(grouped.field(name).type)
    ]
    if problems:
        raise SchemaError(join_problems(problems, where="data"))
    fields = []
    for field in grouped:
        if field.name in candidates:
            entry = field.type.value_field
            field = pa.field(field.name, entry.type, entry.nullable, metadata=field.metadata)
        fields.append(field)
    metadata = {k: v for k, v in (grouped.metadata or {}).items() if k != MARK}
    return pa.schema(fields, metadata=metadata or None)


def marked_candidates(schema: pa.Schema) -> list[str] | None:
    """Give the candidates' columns that a grouped file names; none if it names none."""
    mark = (schema.metadata or {}).get(MARK)
    if mark is None:
        return None
    candidates: list[str] = json.loads(mark)["candidates"]
    return candidates


def _list_of(field: pa.Field) -> pa.DataType:
    return pa.list_(pa.field("element", field.type, field.nullable))
