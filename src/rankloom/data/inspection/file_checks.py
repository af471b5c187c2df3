"""Columns that all files share, and what a run file wants of them."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from rankloom.data.files import LogFiles
from rankloom.data.inspection.findings import Finding
from rankloom.data.inspection.shape import Shape
from rankloom.data.uses import ColumnUse, feature_uses, label_uses, role_uses
from rankloom.errors import DataError, did_you_mean
from rankloom.schema import Schema


def columns_in_all(
    log: LogFiles, *, like: LogFiles | None = None
) -> tuple[list[str], list[Finding]]:
    """List the columns that all files hold with one type, and what the others lack.

    Args:
        log: The files.
        like: Another log that sets the types; default: the first file.

    Raises:
        DataError: There is no such column.
    """
    schemas = {group.path: group.metadata.schema.to_arrow_schema() for group in log.row_groups}
    wanted: pa.Schema = next(iter(schemas.values()))
    if like is not None:
        wanted = like.row_groups[0].metadata.schema.to_arrow_schema()
    columns = list(wanted.names)
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise DataError(
            f"{next(iter(schemas))}: several columns have one name. Got {', '.join(repeated)} more "
            "than once. Rename them."
        )
    findings = []
    for path, schema in schemas.items():
        for name in list(columns):
            found = None if name not in schema.names else schema.field(name).type
            if found == wanted.field(name).type:
                continue
            columns.remove(name)
            missing = found is None
            findings.append(
                Finding(
                    severity="error",
                    check="changing_types",
                    where=str(path),
                    problem=f"column {name!r} is {'missing' if missing else 'of another type'}",
                    got=f"{'nothing' if missing else found} where others have "
                    f"{wanted.field(name).type}",
                    advice="Write all files with the same columns; it is left out here.",
                )
            )
    if not columns:
        first = next(iter(schemas))
        raise DataError(
            f"{first}: no column is common to all files. Got {len(wanted.names)} columns in the "
            "first. Name the files of one log."
        )
    return columns, findings


def schema_findings(schema: Schema, shape: Shape) -> Iterator[Finding]:
    """Find the columns that a run file names and that are missing or of another type."""
    missing: dict[str, ColumnUse] = {}
    for use in [*feature_uses(schema), *label_uses(schema), *role_uses(schema)]:
        if use.column not in shape.schema.names:
            missing.setdefault(use.column, use)
            continue
        kind = shape.schema.field(use.column).type
        problem = use.problem(kind, shape.layout)
        if problem is not None:
            head, _, advice = problem.partition(". ")
            yield Finding(
                severity="error", check="schema", where=use.column,
                problem="does not hold what the run file says",
                got=f"{kind}, not {head.partition('the schema says ')[2]}", advice=advice,
            )  # fmt: skip
    for column, use in missing.items():
        hint = did_you_mean(column, shape.schema.names).strip()
        yield Finding(
            severity="error", check="schema", where=column,
            problem=f"is missing ({use.declared})", got=f"{len(shape.schema.names)} other columns",
            advice=hint or "Add it to the log, or take it out of the run file.",
        )  # fmt: skip
