"""Which columns of a log are read, at which level, and which Arrow types each accepts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from rankloom.data.arrow_keys import is_string
from rankloom.data.vocabulary import Vocabulary
from rankloom.errors import SchemaError, did_you_mean, join_problems
from rankloom.schema import Expression, Schema, SequenceFeature, Side, parse_expression

Layout = Literal["flat", "grouped"]
"""How a log is stored: one row a line, or one request a line with its rows in lists."""

Kind = Literal["rows", "keys", "numbers", "seconds", "text"]

ADVICE_ON_MISSING = " Add it to the log, or take it out of the run file."

ACCEPTED: dict[Kind, str] = {
    "rows": "whole numbers",
    "keys": "whole numbers or texts",
    "numbers": "numbers",
    "seconds": "whole seconds",
    "text": "texts",
}
"""What each kind of column holds; `accepts` has the Arrow types."""


@dataclass(frozen=True, kw_only=True)
class ColumnUse:
    """One thing a column is read for."""

    column: str
    """Its name in the log."""
    kind: Kind
    """What it must hold."""
    declared: str
    """How the schema puts it, for errors: `num_embeddings`, `a dense feature`."""
    advice: str
    """What to do when it holds something else."""
    is_row: bool
    """Whether a grouped log has it in lists, one entry per row."""
    is_list: bool = False
    """Whether each value is itself a list."""
    table: str | None = None
    """Table of its ids, if it holds ids."""

    def depth(self, layout: Layout) -> int:
        """Count the levels of lists around the values."""
        return int(self.is_list) + int(self.is_row and layout == "grouped")

    def problem(self, kind: pa.DataType, layout: Layout) -> str | None:
        """Say what is wrong with an Arrow type, if anything."""
        inner, depth = kind, 0
        while is_list_type(inner):
            inner, depth = inner.value_type, depth + 1
        if depth == self.depth(layout) and accepts(self.kind, inner):
            return None
        lists = "lists of " * self.depth(layout)
        advice = self.advice
        if depth != self.depth(layout):
            advice = _layout_advice(self, layout, depth)
        return (
            f"column {self.column!r} is {kind}, the schema says {self.declared} "
            f"({lists}{ACCEPTED[self.kind]}). {advice}"
        )


def _layout_advice(use: ColumnUse, layout: Layout, depth: int) -> str:
    if use.is_row and layout == "grouped" and depth == use.depth("flat"):
        return "Write it as a list with one entry per candidate, or read the log as flat."
    if use.is_row and layout == "flat" and depth == use.depth("grouped"):
        return "Read the log with layout: grouped, or write one row per line."
    if use.is_list:
        return "Write lists in preparation."
    return "Write one value per line, or declare it with pooling or as a sequence."


def accepts(kind: Kind, leaf: pa.DataType) -> bool:
    """Tell whether a column of this kind may hold values of this Arrow type."""
    if pa.types.is_dictionary(leaf):
        leaf = leaf.value_type
    if kind in {"rows", "seconds"}:
        return bool(pa.types.is_integer(leaf))
    if kind == "keys":
        return bool(pa.types.is_integer(leaf) or is_string(leaf))
    if kind == "text":
        return is_string(leaf)
    is_number = pa.types.is_integer(leaf) or pa.types.is_floating(leaf)
    return bool(is_number or pa.types.is_boolean(leaf) or pa.types.is_decimal(leaf))


def is_list_type(kind: pa.DataType) -> bool:
    """Tell whether a type is one of Arrow's lists."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def is_row_side(side: Side) -> bool:
    """Tell whether a grouped log has a side's columns once per row, not once per request."""
    return side in {"item", "cross"}


def feature_uses(schema: Schema, *, training: bool = False) -> list[ColumnUse]:
    """List what the features read; the time of a row among it where a history needs it.

    Args:
        schema: The features.
        training: Whether training-only features read the log too.
    """
    left_out = set() if training else set(schema.training_only)
    uses = list(_id_uses(schema, left_out))
    for name, dense in schema.dense.items():
        if name in left_out:
            continue
        uses.append(
            ColumnUse(
                column=dense.column or name,
                kind="numbers",
                declared="a dense feature",
                advice="Cast it in preparation or declare it as a sparse feature.",
                is_row=is_row_side(dense.side),
            )
        )
    for name, vector in schema.vectors.items():
        uses.append(
            ColumnUse(
                column=vector.column or name,
                kind="numbers",
                declared="a vector feature",
                advice="Write lists of numbers in preparation.",
                is_row=is_row_side(vector.side),
                is_list=True,
            )
        )
    for sequence in schema.sequences.values():
        uses += _sequence_uses(schema, sequence)
    return uses


def _id_uses(schema: Schema, left_out: set[str]) -> Iterator[ColumnUse]:
    tables = schema.tables()
    for at in schema.id_columns():
        if at.feature in left_out:
            continue
        feature = schema.features[at.feature]
        way = tables.get(at.table)
        as_rows = way is not None and way.num_embeddings is not None
        names = ("num_embeddings", "vocabulary", "hash_buckets")
        sparse = schema.sparse.get(at.feature)
        is_row = is_row_side(feature.side)
        yield ColumnUse(
            column=at.column,
            kind="rows" if as_rows else "keys",
            declared=next(
                (name for name in names if getattr(way, name, None) is not None),
                "model.embedding.unified",
            ),
            advice="Cast it in preparation or declare it with hash_buckets."
            if as_rows
            else "Cast it to one of the two in preparation.",
            is_row=is_row,
            is_list=sparse is None or sparse.pooling is not None,
            table=at.table,
        )
        if sparse is not None and sparse.weights is not None:
            yield ColumnUse(
                column=sparse.weights,
                kind="numbers",
                declared=f"the weights of {at.feature!r}",
                advice="Cast it in preparation.",
                is_row=is_row,
                is_list=True,
            )


def _sequence_uses(schema: Schema, sequence: SequenceFeature) -> Iterator[ColumnUse]:
    advice = "Cast it to whole seconds (int64) in preparation."
    if sequence.time is not None:
        yield ColumnUse(
            column=sequence.time,
            kind="seconds",
            declared="the time of a sequence",
            advice=advice,
            is_row=False,
            is_list=True,
        )
        if schema.roles.event_time is not None:
            yield role_use("event_time", schema.roles.event_time)
    if sequence.first_event is not None:
        yield ColumnUse(
            column=sequence.first_event,
            kind="rows",
            declared="the first_event of a sequence",
            advice="Cast it in preparation.",
            is_row=False,
        )


def role_use(role: str, column: str) -> ColumnUse:
    """Say what a role's column must hold."""
    kinds: dict[str, Kind] = {"event_time": "seconds", "position": "rows"}
    return ColumnUse(
        column=column,
        kind=kinds.get(role, "keys"),
        declared=f"roles.{role}",
        advice="Cast it in preparation.",
        is_row=role in {"item", "position"},
    )


def role_uses(schema: Schema) -> list[ColumnUse]:
    """List what the roles name."""
    named = schema.roles.to_dict().items()
    return [role_use(role, column) for role, column in named if column]


def label_uses(schema: Schema) -> list[ColumnUse]:
    """List what labels, masks and weights are made of."""
    uses = []
    for name, task in schema.tasks.items():
        uses.append(_expression_use(f"tasks.{name}.label", task.label_expression))
        if task.mask is not None:
            uses.append(_expression_use(f"tasks.{name}.mask", parse_expression(task.mask)))
        if task.weight is not None:
            uses.append(_expression_use(f"tasks.{name}.weight", Expression(task.weight)))
    return uses


def _expression_use(path: str, expression: Expression) -> ColumnUse:
    is_text = isinstance(expression.literal, str)
    return ColumnUse(
        column=expression.column,
        kind="text" if is_text else "numbers",
        declared=path,
        advice="Compare it with a number."
        if is_text
        else f"Compare it with a text, such as `{expression.column} == 'yes'`, or cast it.",
        is_row=True,
    )


def check_types(
    found: pa.Schema, uses: Sequence[ColumnUse], layout: Layout, *, keys: Sequence[str] = ()
) -> list[str]:
    """List the columns that are missing or of the wrong type.

    Args:
        found: What a file or table has.
        uses: What is read of it.
        layout: How it is stored.
        keys: Columns asked for as keys of evaluation; in a grouped log they may be at either level.
    """
    problems = []
    missing: set[str] = set()
    for use in uses:
        if use.column in missing:
            continue
        if use.column not in found.names:
            missing.add(use.column)
            hint = did_you_mean(use.column, found.names) or ADVICE_ON_MISSING
            problems.append(f"column {use.column!r} ({use.declared}) is missing.{hint}")
        elif problem := use.problem(found.field(use.column).type, layout):
            problems.append(problem)
    problems += _mixed_tables(found, uses, layout)
    for key in keys:
        if key not in found.names:
            hint = did_you_mean(key, found.names) or ADVICE_ON_MISSING
            problems.append(f"column {key!r} (a key) is missing.{hint}")
        elif not _is_key_type(found.field(key).type, layout):
            problems.append(
                f"column {key!r} is {found.field(key).type}, a key must be {ACCEPTED['keys']}. "
                "Cast it in preparation."
            )
    return list(dict.fromkeys(problems))


def _mixed_tables(found: pa.Schema, uses: Sequence[ColumnUse], layout: Layout) -> list[str]:
    """List the tables with texts in one column and numbers in another: ids would not agree."""
    problems = []
    first: dict[str, tuple[str, bool]] = {}
    for use in uses:
        if use.kind != "keys" or use.table is None or use.column not in found.names:
            continue
        kind = found.field(use.column).type
        if use.problem(kind, layout):
            continue
        is_text = is_string(_leaf(kind))
        column, was_text = first.setdefault(use.table, (use.column, is_text))
        if is_text != was_text:
            problems.append(
                f"column {use.column!r} is {kind}, column {column!r} of the same table "
                f"{use.table!r} holds {'texts' if was_text else 'numbers'}. Cast it in preparation."
            )
    return problems


def _leaf(kind: pa.DataType) -> pa.DataType:
    """Give the type of the values within lists and dictionaries."""
    while is_list_type(kind) or pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind


def _is_key_type(kind: pa.DataType, layout: Layout) -> bool:
    if layout == "grouped" and is_list_type(kind):
        kind = kind.value_type
    return accepts("keys", kind) or bool(pa.types.is_boolean(kind))


def check_vocabulary_types(
    found: pa.Schema, uses: Sequence[ColumnUse], vocabularies: dict[str, Vocabulary]
) -> list[str]:
    """List the id columns whose type is not that of their vocabulary's keys."""
    problems = []
    for use in uses:
        vocabulary = vocabularies.get(use.table or "")
        if vocabulary is None or not len(vocabulary.keys) or use.column not in found.names:
            continue
        leaf = _leaf(found.field(use.column).type)
        is_text = vocabulary.key_type == "string"
        if accepts("keys", leaf) and is_string(leaf) != is_text:
            problems.append(
                f"column {use.column!r} is {leaf}, the vocabulary of table {use.table!r} has "
                f"{'texts' if is_text else 'whole numbers'}. Cast it to the training log's type."
            )
    return problems


def check_sides(schema: Schema) -> None:
    """Check that every history belongs to the request.

    Raises:
        SchemaError: A sequence feature is of side item or cross; all such are named.
    """
    problems = [
        f"schema.{name}.side: a history belongs to the user or the context. Got {feature.side}. "
        "Declare it as a sparse feature with pooling, or change its side."
        for name, feature in schema.sequences.items()
        if is_row_side(feature.side)
    ]
    if problems:
        raise SchemaError(join_problems(problems, where="schema" if problems[1:] else ""))
