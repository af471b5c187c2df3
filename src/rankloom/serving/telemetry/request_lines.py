"""Served requests as lines of a grouped log, with one Arrow schema for an artifact.

Shapes: N candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import NoneType
from typing import Any

import numpy as np
import pyarrow as pa

from rankloom.data.plain_lists import as_list
from rankloom.data.plain_values import PlainColumn
from rankloom.data.uses import ColumnUse, feature_uses, role_use
from rankloom.errors import ConfigError, DataError, join_problems
from rankloom.serving.request import Given, RankRequest, RankResult, Served

ID, TIME, DIGEST, SCORES, BLENDED = (
    "request.id",
    "request.time_ms",
    "request.digest",
    "served.",
    "served.blended",
)
KNOWN_ROLES = ("user", "item", "event_time", "scenario")
"""Roles whose columns a request may give; the request's own is its id, positions come later."""
KINDS = {"rows": pa.int64(), "seconds": pa.int64(), "numbers": pa.float64()}
"""Kind of column -> its type; keys have that of the first ones seen."""


@dataclass(frozen=True, kw_only=True)
class _LogColumn:
    """A column that requests give."""

    name: str
    places: tuple[str, ...]
    """Where a request may give it; the first that has it counts."""
    depth: int
    """Lists around the values: that of the candidates, and its own."""
    type_name: str
    """Columns with the same one are of the same type."""


class RequestLines:
    """Makes lines of requests.

    Args:
        served: The artifact that ranked them.
        examples: Requests with values of its training log's types.

    Raises:
        ConfigError: A log with one line a request cannot hold the columns.
    """

    def __init__(self, served: Served, examples: Sequence[RankRequest]) -> None:
        self.digest = served.digest
        self._roles, self._tasks = served.schema.roles, tuple(served.schema.tasks)
        self._columns = _columns_of(served)
        self._types: dict[str, pa.DataType] = dict(KINDS)
        for at in served.schema.id_columns():
            if at.source.default is not None:
                self._types.setdefault(_keys_of(at.table), _key_type(at.source.default))
        for example in examples:
            self._learn_types(_by_place(example))

    def line(self, request: RankRequest, result: RankResult, time_s: float) -> pa.RecordBatch:
        """Make one request's line.

        Args:
            request: What was ranked.
            result: Its scores.
            time_s: When, since 1970.

        Raises:
            DataError: A value is of another type than its column, and cannot be made one of it
                exactly. What Arrow and Python raise of such values is raised too.
        """
        places = _by_place(request)
        self._learn_types(places)
        arrays = {
            column.name: self._array(column, places, len(result.blended), time_s)
            for column in self._columns
        }
        identity = pa.array([request.id or None], pa.string())
        if self._roles.request is not None:
            arrays.setdefault(self._roles.request, identity)
        arrays[ID] = identity
        arrays[TIME] = pa.array([int(time_s * 1000)], pa.int64())
        arrays[DIGEST] = pa.array([result.digest], pa.string())
        arrays[BLENDED] = _nested([result.blended], pa.float64(), 1)
        for task in self._tasks:
            arrays[SCORES + task] = _nested([result.scores[task]], pa.float64(), 1)
        return pa.RecordBatch.from_pydict(arrays)

    def join(self, lines: Sequence[pa.RecordBatch]) -> pa.Table:
        """Put lines behind each other; from now on, the types of all columns are settled."""
        for column in self._columns:
            # Of columns that had nothing but nulls so far: most keys are numbers.
            self._types.setdefault(column.type_name, pa.int64())
        known = {column.name: self._type(column) for column in self._columns}
        schema = pa.schema(
            [field.with_type(known.get(field.name, field.type)) for field in lines[0].schema]
        )
        whole = [line if line.schema.equals(schema) else line.cast(schema) for line in lines]
        return pa.Table.from_batches(whole, schema)

    def _type(self, column: _LogColumn) -> pa.DataType:
        kind = self._types[column.type_name]
        for _ in range(column.depth):
            kind = pa.list_(kind)
        return kind

    def _array(
        self, column: _LogColumn, places: Mapping[str, Given], num_candidates: int, time_s: float
    ) -> pa.Array:
        value = _value(column, places)
        if value is None and column.name == self._roles.event_time:
            value = int(time_s)
        if "candidates" in column.places:
            value = [None] * num_candidates if value is None else value
            if len(value) != num_candidates:
                raise DataError(
                    f"candidates: column {column.name!r} must have {num_candidates} values. "
                    f"Got {len(value)}. Give one for each candidate."
                )
        return _nested([value], self._types.get(column.type_name, pa.null()), column.depth)

    def _learn_types(self, places: Mapping[str, Given]) -> None:
        """Take the types of keys from the first ones there are."""
        for column in self._columns:
            if column.type_name not in self._types:
                key = _first_of(_value(column, places))
                if key is not None:
                    self._types[column.type_name] = _key_type(key)


def _columns_of(served: Served) -> list[_LogColumn]:
    """List the columns of a log that features and roles read.

    Raises:
        ConfigError: A line of one request cannot hold a column; all such are named.
    """
    schema = served.schema
    uses: dict[str, list[ColumnUse]] = {}
    for use in feature_uses(schema):
        uses.setdefault(use.column, []).append(use)
    for role, name in schema.roles.to_dict().items():
        if name is not None and role in KNOWN_ROLES:
            uses.setdefault(name, [role_use(role, name)])
    own = {ID, TIME, DIGEST, BLENDED, *(SCORES + task for task in schema.tasks)}
    columns, problems = [], []
    for name, found in uses.items():
        places = _places_of(name, found[0], served)
        if len({(use.is_row, use.is_list) for use in found}) > 1 or len(places) > 1:
            problems.append(
                f"column {name!r} is read in several ways, and a line of one request has it once. "
                f"Got {', '.join(dict.fromkeys(use.declared for use in found))}. Rename one."
            )
        if name in own:
            problems.append(f"column {name!r} is one that the log adds. Rename it.")
        if name == schema.roles.event_time or not places:
            places = ("user", "context")
        depth, type_name = found[0].depth("grouped"), _type_name(found)
        columns.append(_LogColumn(name=name, places=places, depth=depth, type_name=type_name))
    if problems:
        raise ConfigError(join_problems(problems, where="request log"))
    return columns


def _places_of(name: str, use: ColumnUse, served: Served) -> tuple[str, ...]:
    """List where features read a column; it may be a role's only."""
    if use.is_row:
        return ("candidates",)
    return tuple(place for place in ("user", "context") if name in served.columns[place])


def _type_name(uses: Sequence[ColumnUse]) -> str:
    kinds = {use.kind for use in uses}
    if kinds == {"keys"}:
        return _keys_of(uses[0].table or f"column {uses[0].column}")
    return "numbers" if kinds == {"numbers"} else "rows"


def _keys_of(table: str) -> str:
    return f"keys of {table}"


def _key_type(key: int | str) -> pa.DataType:
    return pa.string() if isinstance(key, str) else pa.int64()


def _by_place(request: RankRequest) -> dict[str, Given]:
    """Give a request's values by place and column."""
    candidates = request.candidates
    if not isinstance(candidates, Mapping):
        names = dict.fromkeys(name for one in candidates for name in one)
        candidates = {name: [one.get(name) for one in candidates] for name in names}
    return {"user": request.user, "context": request.context, "candidates": candidates}


def _value(column: _LogColumn, places: Mapping[str, Given]) -> Any:
    """Give a column's value, or values of all candidates; none if it has none."""
    given = next((places[at] for at in column.places if column.name in places[at]), {})
    return given.get(column.name)


def _first_of(values: Any) -> int | str | None:
    """Give the first number or text within lists."""
    values = as_list(values)
    if isinstance(values, list | tuple):
        return next((key for one in values if (key := _first_of(one)) is not None), None)
    return values if isinstance(values, int | str) else None


def _nested(values: Any, kind: pa.DataType, depth: int) -> pa.Array:
    """Make an array of values, or of lists of them.

    Args:
        values: (n,).
        kind: Of the values inside.
        depth: Lists around them.
    """
    if depth == 0:
        return _flat(values, kind)
    if len(values) == 1 and isinstance(values[0], list | tuple | np.ndarray):
        inner = _nested(values[0], kind, depth - 1)
        return pa.ListArray.from_arrays(_one_list(len(inner)), inner)
    column = PlainColumn("", values, "candidates")
    offsets, entries = column.lists()
    is_null = pa.array(column.is_null) if column.is_null.any() else None
    inner = _nested(entries.values, kind, depth - 1)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), inner, mask=is_null)


@lru_cache(maxsize=16)
def _one_list(length: int) -> pa.Array:
    """Give the offsets of one list; most columns of a request have as many candidates."""
    return pa.array([0, length], pa.int32())


def _flat(values: Any, kind: pa.DataType) -> pa.Array:
    if type(values) is np.ndarray and values.ndim == 1 and values.dtype.kind in "biuf":
        array = pa.array(values)
        return array if array.type == kind else array.cast(kind)
    values = as_list(values)
    array = pa.array(values, kind)
    if kind == pa.int64() and not set(map(type, values)) <= {int, NoneType}:
        # Fractions are cut off above; a cast refuses them.
        return pa.array(values, pa.float64()).cast(kind)
    return array
