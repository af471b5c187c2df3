"""A log against the schema of a run file: what training would refuse, and what tables would waste.

Shapes: K keys of a column.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

from rankloom.data.id_rows import FIRST_HASH_ROW
from rankloom.data.inspection.findings import Finding, share
from rankloom.data.inspection.profile import ColumnProfile, Summary
from rankloom.schema import (
    DenseFeature,
    IdColumn,
    IdSource,
    QuantileEncoding,
    Schema,
    VectorFeature,
    VocabularyConfig,
    parse_expression,
)

MAX_COLLIDING = 0.1
"""Share of the keys that share their bucket with another, from which on it is a finding."""
MAX_WASTE = 4
"""Rows of a table for each key, beyond which most are never used."""
BIG_TABLE = 10_000
MAX_UNKNOWN = 0.2


def run_findings(
    schema: Schema, profiles: Mapping[str, ColumnProfile], summaries: Mapping[str, Summary]
) -> Iterator[Finding]:
    """Compare what columns hold with what a run file says of them."""
    tables = schema.tables()
    users = Counter(at.table for at in schema.id_columns())
    for at in schema.id_columns():
        if at.column not in summaries:
            continue
        way, summary = tables[at.table], summaries[at.column]
        yield from _nulls_of_ids(at, way, summary)
        if way.num_embeddings is not None:
            yield from _as_rows(at, way.num_embeddings, summary)
        elif way.hash_buckets is not None:
            yield from _hashed(at, way.hash_buckets, summary)
        elif way.vocabulary is not None and users[at.table] == 1:
            # A table's columns add to each other's counts, which a single one does not show.
            yield from _vocabulary(at, way.vocabulary, profiles[at.column])
    yield from _nulls_of_numbers(schema, summaries)
    yield from _nulls_of_labels(schema, summaries)


def colliding_share(num_keys: float, num_buckets: int) -> float:
    """Give the expected share of K keys that share their bucket with another one."""
    return 1 - math.exp((num_keys - 1) * math.log1p(-1 / num_buckets)) if num_buckets > 1 else 1.0


def _nulls_of_ids(at: IdColumn, way: IdSource, summary: Summary) -> Iterator[Finding]:
    if summary.num_nulls and at.source.default is None and way.num_embeddings is not None:
        yield _null_finding(at.path, at.column, summary, "Set default, or use a vocabulary.")


def _null_finding(path: str, column: str, summary: Summary, advice: str) -> Finding:
    nulls = summary.num_nulls + summary.num_nan
    return Finding(
        severity="error", check="null_without_default", where=path,
        problem=f"column {column!r} holds nulls, and nothing stands for them",
        got=f"{nulls:,} of {summary.num_values:,} ({share(nulls, summary.num_values)})",
        advice=advice,
    )  # fmt: skip


def _as_rows(at: IdColumn, rows: int, summary: Summary) -> Iterator[Finding]:
    if summary.low is None or summary.high is None:
        return
    if summary.low < 0 or summary.high >= rows:
        yield Finding(
            severity="error", check="id_outside", where=f"{at.path}.num_embeddings",
            problem=f"column {at.column!r} has ids outside of 0 to {rows - 1:,}",
            got=f"{summary.low:,.0f} to {summary.high:,.0f}",
            advice="Raise it, or use a vocabulary or hash_buckets.",
        )  # fmt: skip
    elif rows >= BIG_TABLE and rows > MAX_WASTE * summary.distinct:
        yield Finding(
            severity="note", check="unused_rows", where=f"{at.path}.num_embeddings",
            problem=f"most rows of table {at.table!r} are never used",
            got=f"{rows:,} rows for {summary.distinct:,.0f} ids",
            advice="A vocabulary takes as many rows as there are ids.",
        )  # fmt: skip


def _hashed(at: IdColumn, buckets: int, summary: Summary) -> Iterator[Finding]:
    colliding = colliding_share(summary.distinct, buckets)
    if colliding > MAX_COLLIDING:
        wanted = math.ceil(summary.distinct / -math.log1p(-MAX_COLLIDING))
        yield Finding(
            severity="warning", check="collisions", where=f"{at.path}.hash_buckets",
            problem=f"{share(colliding, 1)} of the ids of {at.column!r} are expected to share "
            "their row with another",
            got=f"{buckets:,} buckets for {summary.distinct:,.0f} ids",
            advice=f"{wanted:,} buckets would leave {MAX_COLLIDING:.0%}; or use a vocabulary.",
        )  # fmt: skip
    elif buckets >= BIG_TABLE and buckets + FIRST_HASH_ROW > 4 * MAX_WASTE * summary.distinct:
        yield Finding(
            severity="note", check="unused_rows", where=f"{at.path}.hash_buckets",
            problem=f"most rows of table {at.table!r} are never used",
            got=f"{buckets:,} buckets for {summary.distinct:,.0f} ids",
            advice="A vocabulary takes as many rows as there are ids.",
        )  # fmt: skip


def _vocabulary(
    at: IdColumn, vocabulary: VocabularyConfig, profile: ColumnProfile
) -> Iterator[Finding]:
    _, counts = profile.sketch.kept()
    rare = counts[counts < vocabulary.min_count]
    unknown = float(rare.sum()) / max(float(counts.sum()), 1)
    if unknown > MAX_UNKNOWN:
        yield Finding(
            severity="warning", check="unknown_ids", where=f"{at.path}.vocabulary.min_count",
            problem=f"leaves many rows of {at.column!r} with the unknown id",
            got=f"{share(unknown, 1)} of the rows at min_count {vocabulary.min_count}",
            advice="Lower it, or use hash_buckets.",
        )  # fmt: skip


def _nulls_of_numbers(schema: Schema, summaries: Mapping[str, Summary]) -> Iterator[Finding]:
    numbers: dict[str, DenseFeature | VectorFeature] = {**schema.dense, **schema.vectors}
    for name, feature in numbers.items():
        column = feature.column or name
        summary = summaries.get(column)
        if summary is None or feature.default is not None:
            continue
        encode = getattr(feature, "encode", None)
        if not isinstance(encode, QuantileEncoding) and summary.num_nulls + summary.num_nan:
            advice = "Set default" + (", or encode: {kind: quantile}." if encode else ": zeros.")
            yield _null_finding(f"schema.{name}", column, summary, advice)


def _nulls_of_labels(schema: Schema, summaries: Mapping[str, Summary]) -> Iterator[Finding]:
    for name, task in schema.tasks.items():
        column = parse_expression(task.label).column
        summary = summaries.get(column)
        if summary is None or task.mask is not None:
            continue
        if summary.num_nulls + summary.num_nan:
            yield _null_finding(f"tasks.{name}.label", column, summary, "Set mask.")
