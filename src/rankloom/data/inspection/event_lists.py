"""Lists of a log's first lines: how they are aligned, and which of them are histories."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from rankloom.data.arrow_keys import is_string
from rankloom.data.columns import Ints
from rankloom.data.inspection.names import (
    HISTORY_WORDS,
    hint,
    identifier,
    is_history_name,
    is_time_name,
    words,
)
from rankloom.data.raw import list_lengths
from rankloom.data.uses import is_list_type
from rankloom.schema import Schema

ALIGNED = 0.9
"""Share of lines in which two lists are equally long, from which on they belong together: a few
broken lines are for a finding, not for a different reading of the log."""


@dataclass(frozen=True, kw_only=True)
class History:
    """Aligned lists of past events."""

    name: str
    """Of the sequence feature."""
    columns: dict[str, str]
    """Name within the sequence -> column, without the time."""
    time: str | None
    """Column with the events' times."""
    first_event: str | None = None
    """Column with the number of the first listed event."""

    @property
    def lists(self) -> list[str]:
        """Every column of lists."""
        return [*self.columns.values(), *([self.time] if self.time else [])]


def opened(kind: pa.DataType) -> tuple[int, pa.DataType]:
    """Give the levels of lists of a type, and the type within."""
    depth = 0
    while is_list_type(kind):
        kind, depth = kind.value_type, depth + 1
    return depth, kind.value_type if pa.types.is_dictionary(kind) else kind


def is_readable(leaf: pa.DataType) -> bool:
    """Tell whether a feature, role or label may be of a type."""
    return bool(
        is_string(leaf)
        or pa.types.is_integer(leaf)
        or pa.types.is_floating(leaf)
        or pa.types.is_boolean(leaf)
        or pa.types.is_decimal(leaf)
        or (pa.types.is_temporal(leaf) and not pa.types.is_interval(leaf))
    )


class Lists:
    """The lengths of the lists of a table's columns."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.lengths: dict[str, Ints] = {
            name: list_lengths(table[name].combine_chunks())
            for name in table.column_names
            if is_list_type(table.schema.field(name).type)
        }

    def agree(self, one: str, other: str) -> bool:
        """Tell whether two columns' lists are nearly always equally long, and not by chance."""
        first, second = self.lengths[one], self.lengths[other]
        said = first + second > 0
        return bool(said.any()) and float((first == second)[said].mean()) >= ALIGNED

    def vector_width(self, name: str, in_candidates: bool) -> int | None:
        """Give the width of a column's vectors, if it holds such."""
        array = self._table[name].combine_chunks()
        if in_candidates:
            array = array.flatten()
        if not pa.types.is_floating(opened(array.type)[1]):
            return None
        lengths = list_lengths(array)[array.is_valid().to_numpy(zero_copy_only=False)]
        if not len(lengths) or lengths[0] < 2 or (lengths != lengths[0]).any():
            return None
        return int(lengths[0])


def declared_histories(schema: Schema | None) -> list[History]:
    """Give the histories of a run file."""
    if schema is None:
        return []
    return [
        History(
            name=name,
            columns={str(at.name): at.column for at in schema.id_columns() if at.feature == name},
            time=sequence.time,
            first_event=sequence.first_event,
        )
        for name, sequence in schema.sequences.items()
    ]


def guessed_histories(first: pa.Table, lists: Lists, taken: set[str]) -> list[History]:
    """Find lists of past events: by their names, or as aligned lists one of which holds times.

    Args:
        first: The log's first lines.
        lists: Their lists.
        taken: Columns that are something else.
    """
    free = [
        name
        for name in lists.lengths
        if name not in taken
        and opened(first.schema.field(name).type)[0] == 1
        and is_readable(opened(first.schema.field(name).type)[1])
        and lists.vector_width(name, in_candidates=False) is None
    ]
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in free:
        if is_history_name(name):
            groups.setdefault(_history_key(name), []).append(name)
    found = [names for names in groups.values() for names in _split(names, lists)]
    for name in free:
        if is_history_name(name):
            continue
        home = next((names for names in found if lists.agree(names[0], name)), None)
        if home is not None:
            home.append(name)
        elif is_time_name(name):
            found.append([name])
    named: dict[str, list[str]] = {}
    for names in found:
        title = _title(names)
        if len(names) == 1 and is_time_name(names[0]):
            continue
        named[title if title not in named else f"{title}_{len(named) + 1}"] = names
    return [_history(title, names, first.schema) for title, names in named.items()]


def _history_key(name: str) -> tuple[str, ...]:
    """Give the words by which the columns of one history know each other."""
    parts = words(name)
    at = next(place for place, word in enumerate(parts) if word in HISTORY_WORDS)
    return (parts[at],) if at == len(parts) - 1 else parts[: at + 1]


def _split(names: list[str], lists: Lists) -> list[list[str]]:
    """Part lists whose lengths mostly differ: they are different histories."""
    groups: list[list[str]] = []
    for name in names:
        home = next((group for group in groups if _half_agree(group[0], name, lists)), None)
        if home is None:
            groups.append([name])
        else:
            home.append(name)
    return groups


def _half_agree(one: str, other: str, lists: Lists) -> bool:
    first, second = lists.lengths[one], lists.lengths[other]
    return not len(first) or float((first == second).mean()) >= 0.5


def _title(names: Sequence[str]) -> str:
    parts = [words(name) for name in names]
    common = [
        same[0]
        for same in itertools.takewhile(lambda w: len(set(w)) == 1, zip(*parts, strict=False))
    ]
    if len(names) == 1:
        return identifier(names[0])
    if common and HISTORY_WORDS & set(common):
        return "_".join(common)
    ends = {part[-1] for part in parts}
    return ends.pop() if len(ends) == 1 and ends <= HISTORY_WORDS else "history"


def _history(title: str, names: Sequence[str], schema: pa.Schema) -> History:
    time = next((name for name in names if is_time_name(name) and _is_time(schema, name)), None)
    columns: dict[str, str] = {}
    for name in names:
        if name != time:
            inner = _inner_name(title, name)
            columns[inner if inner not in columns else identifier(name)] = name
    stem = words(title)
    first_event = next(
        (
            name
            for name in schema.names
            if hint(name) == "first_event"
            and words(name)[: len(stem)] == stem
            and pa.types.is_integer(schema.field(name).type)
        ),
        None,
    )
    return History(name=title, columns=columns, time=time, first_event=first_event)


def _inner_name(title: str, name: str) -> str:
    plain, parts = identifier(name), words(title)
    kept = [word for word in words(name) if word not in parts]
    if plain.startswith(f"{title}_"):
        return plain.removeprefix(f"{title}_")
    return "_".join(kept) or plain


def _is_time(schema: pa.Schema, name: str) -> bool:
    leaf = opened(schema.field(name).type)[1]
    return bool(pa.types.is_integer(leaf) or pa.types.is_temporal(leaf))
