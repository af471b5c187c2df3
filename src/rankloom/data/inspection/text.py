"""An inspection as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa

from rankloom.data.inspection.findings import share
from rankloom.data.inspection.inspection import Inspection
from rankloom.data.inspection.profile import Summary

MAX_TYPE, MAX_VALUES, SHOWN = 22, 34, 3


def as_text(found: Inspection) -> str:
    """Write the columns as a table, and what was found below it."""
    lines = [
        f"{found.num_rows:,} rows in {found.num_lines:,} lines, {found.shape.layout}; "
        + ", ".join(f"{role}: {column}" for role, column in found.shape.roles.items()),
        "",
        *_table(found),
        "",
    ]
    if not found.findings:
        lines.append("nothing looks wrong")
    lines.extend(f"{finding.severity:8}{finding}" for finding in found.findings)
    return "\n".join(lines)


def _table(found: Inspection) -> list[str]:
    head = ("column", "type", "null", "distinct", "values", "kind", "side", "why")
    rows: list[Sequence[str]] = [head]
    for name, guess in found.kinds.items():
        side = found.sides.get(name)
        summary = found.columns.get(name)
        kind = str(found.shape.schema.field(name).type)
        cells = ("", "", "") if summary is None else _cells(summary, found.shape.leaf(name))
        is_feature = guess.kind in {"sparse", "dense", "user id", "item id"} and side is not None
        why = guess.reason
        if is_feature and side is not None:
            why = f"{guess.reason}; {side.side}: {side.evidence}"
        rows.append(
            (
                name,
                _short(summary.type if summary else kind, MAX_TYPE),
                *cells,
                guess.kind,
                side.side if is_feature and side is not None else "",
                why,
            )
        )
    widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _cells(summary: Summary, leaf: pa.DataType) -> tuple[str, str, str]:
    about = "" if summary.is_exact else "~"
    nulls = share(summary.null_share, 1) if summary.null_share else ""
    return nulls, f"{about}{summary.distinct:,.0f}", _short(_values(summary, leaf), MAX_VALUES)


def _values(summary: Summary, leaf: pa.DataType) -> str:
    length = ""
    if summary.mean_length is not None:
        length = f"; {summary.mean_length:.1f} each"
    if summary.low is None or summary.high is None:
        shown = [
            f"{value!r} {share(count, summary.num_values)}"
            for value, count in summary.frequent[:SHOWN]
        ]
        return (shown[0] if shown else "") + length
    if pa.types.is_timestamp(leaf):
        scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[leaf.unit]
        low, high = (
            datetime.fromtimestamp(one / scale, UTC).strftime("%Y-%m-%d %H:%M")
            for one in (summary.low, summary.high)
        )
        return f"{low} to {high}{length}"
    return f"{summary.low:.10g} to {summary.high:.10g}{length}"


def _short(text: str, width: int) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= width else f"{plain[: width - 2]}.."
