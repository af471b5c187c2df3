"""What each column seems to be, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from rankloom.data.arrow_keys import is_string
from rankloom.data.inspection.names import hint, is_same_name
from rankloom.data.inspection.profile import Summary
from rankloom.data.inspection.shape import Shape

Kind = Literal[
    "sparse", "dense", "sequence", "vector", "label", "outcome", "time", "user id", "item id",
    "request id", "row id", "position", "weight", "first event", "oracle", "empty", "constant",
    "other",
]  # fmt: skip
FEATURE_KINDS = frozenset({"sparse", "dense", "vector", "user id", "item id"})
FEW_VALUES = 256
"""Distinct whole numbers up to which a column is taken for categories."""
FIRST_OF_BLOCK = 3_000
"""Beyond years."""
FEW_AMOUNTS = 16
"""Distinct values of an amount up to which each may have a vector of its own."""
MOSTLY_ZERO = 0.3
MIN_AMOUNTS = 20
_OF_ROLE: dict[str, Kind] = {
    "user": "user id",
    "item": "item id",
    "request": "request id",
    "event_time": "time",
    "position": "position",
}


@dataclass(frozen=True)
class Guess:
    """What a column seems to be."""

    kind: Kind
    reason: str


def guess_kinds(
    shape: Shape, summaries: Mapping[str, Summary], *, num_rows: int, labels: frozenset[str]
) -> dict[str, Guess]:
    """Guess the kind of every column.

    Args:
        shape: How the log is laid out.
        summaries: What each column holds.
        num_rows: Rows of the log.
        labels: Columns that the user says labels are made of.
    """
    found: dict[str, Guess] = {}
    of_column = {column: role for role, column in shape.roles.items()}
    for name in shape.schema.names:
        if name not in summaries:
            found[name] = Guess("other", f"no feature has the type {shape.schema.field(name).type}")
            continue
        guess = _by_place(name, shape) or _by_meaning(name, shape, summaries[name], labels)
        role = of_column.get(name)
        if guess is None and role in _OF_ROLE:
            guess = Guess(_OF_ROLE[role], "its name")
        found[name] = guess or _by_values(name, shape, summaries[name], num_rows)
    if not any(guess.kind == "label" for guess in found.values()):
        _last_as_label(found, shape, summaries)
    return found


def _by_place(name: str, shape: Shape) -> Guess | None:
    for history in shape.histories:
        if name in history.lists:
            return Guess("sequence", f"lists of past events: part of {history.name!r}")
        if name == history.first_event:
            return Guess("first event", f"numbers the events of {history.name!r}")
    if name in shape.vectors:
        return Guess("vector", f"lists of {shape.vectors[name]} numbers each")
    return None


def _by_meaning(name: str, shape: Shape, summary: Summary, labels: frozenset[str]) -> Guess | None:
    """Guess by the name, where the values agree with it."""
    what = hint(name)
    if what == "oracle":
        return Guess("oracle", "its name: true probabilities, never a feature")
    if name in labels:
        return Guess("label", "named as a label")
    if summary.is_all_null:
        return Guess("empty", "has no value")
    has_numbers = summary.low is not None and not pa.types.is_temporal(shape.leaf(name))
    if what == "outcome":
        return Guess("outcome", "its name: known only after the row")
    if what == "weight" and has_numbers:
        return Guess("weight", "its name: a row's weight")
    if name in shape.bags or labels:
        # Where the user names the labels, no other column is one.
        return None
    if what == "label" and has_numbers and _is_label(summary, shape.leaf(name)):
        return Guess("label", "its name and values")
    if what == "rating" and has_numbers and summary.distinct <= FEW_VALUES:
        return Guess("label", "its name: a rating")
    return None


def _is_label(summary: Summary, leaf: pa.DataType) -> bool:
    """Tell a label from a score: two values, or counts of what happened."""
    is_count = summary.distinct <= 2 or not pa.types.is_floating(leaf)
    return is_count and summary.low is not None and summary.low >= 0 and not summary.num_infinite


def _by_values(name: str, shape: Shape, summary: Summary, num_rows: int) -> Guess:
    leaf, what = shape.leaf(name), hint(name)
    if summary.is_constant:
        return Guess("constant", "has one value")
    if pa.types.is_temporal(leaf) or (what == "time" and pa.types.is_integer(leaf)):
        return Guess("time", "its type" if pa.types.is_temporal(leaf) else "its name")
    if name in shape.bags:
        if is_string(leaf) or pa.types.is_integer(leaf):
            return Guess("sparse", "lists of ids")
        return Guess("other", f"lists of {leaf} of several lengths")
    if what == "request":
        return Guess("request id", "its name")
    is_row_id = summary.distinct >= 0.99 * num_rows and num_rows >= 100
    if is_string(leaf):
        if is_row_id:
            return Guess("row id", "another text in every row")
        return Guess("sparse", "texts")
    if pa.types.is_boolean(leaf):
        return Guess("dense", "true or false: a number of 0 or 1")
    if not pa.types.is_integer(leaf):
        return Guess("dense", f"{leaf} numbers")
    if is_row_id and what == "id":
        return Guess("row id", "its name, and another number in every row")
    if any(is_same_name(e, name) for one in shape.histories for e in one.columns.values()):
        return Guess("sparse", "whole numbers, and events of a history are named after it")
    return _of_integers(what, summary)


def _of_integers(what: str | None, summary: Summary) -> Guess:
    """Tell categories and ids from amounts."""
    assert summary.low is not None
    assert summary.high is not None
    count = f"{summary.distinct:,.0f} whole numbers"
    if what in {"id", "moment", "user", "item", "scenario"}:
        return Guess("sparse", f"its name, and {count}")
    if summary.low >= FIRST_OF_BLOCK and summary.high - summary.low < 2 * summary.distinct:
        # Numbered through all columns, as some public logs are.
        return Guess("sparse", f"{count}, a block from {summary.low:,.0f} on")
    if summary.low < 0:
        return Guess("dense", f"{count}, some below 0")
    if what in {"number", "rating", "weight"} and summary.distinct > FEW_AMOUNTS:
        return Guess("dense", f"its name, and {count}")
    value, seen = next(iter(summary.frequent), (None, 0))
    if value == 0 and seen >= MOSTLY_ZERO * summary.num_values and summary.distinct > MIN_AMOUNTS:
        return Guess("dense", f"{count}, {seen / summary.num_values:.0%} of them 0, as amounts are")
    if summary.distinct <= FEW_VALUES:
        return Guess("sparse", f"only {count}")
    if summary.high > 10 * summary.distinct:
        return Guess("sparse", f"{count} spread up to {summary.high:,.0f}, as ids are")
    return Guess("dense", f"{count}, nearly all from {summary.low:,.0f} to {summary.high:,.0f}")


def _last_as_label(found: dict[str, Guess], shape: Shape, summaries: Mapping[str, Summary]) -> None:
    """Take the last column for the label if it has two values and no role."""
    name = shape.schema.names[-1]
    summary = summaries.get(name)
    if summary is None or name not in shape.scalars or summary.distinct != 2:
        return
    if found[name].kind in {"sparse", "dense"} and name not in shape.roles.values():
        found[name] = Guess(
            "label", "no column is named like a label; this one stands last and has two values"
        )
