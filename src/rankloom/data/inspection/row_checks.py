"""Columns that say nothing, rows and requests that come twice, times that no role can take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa

from rankloom.data.inspection.findings import Finding, share
from rankloom.data.inspection.kinds import Guess
from rankloom.data.inspection.profile import Summary
from rankloom.data.inspection.scan import Scan

MOSTLY_NULL = 0.9
CHOSEN_SHARE = 0.9
MILLISECONDS = 10**11
"""Whole numbers beyond it are no seconds of this millennium."""


def column_findings(
    scan: Scan, summaries: Mapping[str, Summary], kinds: Mapping[str, Guess]
) -> Iterator[Finding]:
    """Find columns that hold nothing, one value, or what no float32 holds."""
    for name, summary in summaries.items():
        rows = f"{summary.num_values:,} values"
        if summary.is_all_null:
            yield Finding(
                severity="warning", check="all_null", where=name, problem="holds no value at all",
                got=f"{summary.num_nulls + summary.num_nan:,} nulls in {rows}",
                advice="Leave it out, or mend what writes it.",
            )  # fmt: skip
            continue
        if summary.is_constant and kinds[name].kind not in {"oracle", "first event"}:
            value = repr(summary.frequent[0][0]) if summary.frequent else "one value"
            is_label = kinds[name].kind == "label"
            yield Finding(
                severity="error" if is_label else "warning", check="constant", where=name,
                problem="has the same value everywhere", got=f"{value} in {rows}",
                advice="A label needs two values: check how it is made." if is_label
                else "Leave it out: it tells the model nothing.",
            )  # fmt: skip
        elif summary.null_share > MOSTLY_NULL:
            yield Finding(
                severity="note", check="mostly_null", where=name, problem="is nearly always null",
                got=f"{share(summary.null_share, 1)} nulls",
                advice="Check that it is written as it should be.",
            )  # fmt: skip
        if summary.num_infinite:
            yield Finding(
                severity="error", check="infinite", where=name, problem="holds infinite numbers",
                got=f"{summary.num_infinite:,} of them",
                advice="Clip them in preparation; training refuses such rows.",
            )  # fmt: skip
    yield from _time_findings(scan, summaries)


def _time_findings(scan: Scan, summaries: Mapping[str, Summary]) -> Iterator[Finding]:
    shape = scan.shape
    columns = [history.time for history in shape.histories]
    for name in dict.fromkeys([shape.roles.get("event_time"), *columns]):
        if name is None or name not in summaries:
            continue
        high = summaries[name].high
        if not pa.types.is_integer(shape.leaf(name)):
            yield Finding(
                severity="warning", check="time_type", where=name,
                problem="is a time that RankLoom cannot read",
                got=f"{summaries[name].type}",
                advice="Cast it to whole seconds (int64) in preparation.",
            )  # fmt: skip
        elif high is not None and high > MILLISECONDS:
            yield Finding(
                severity="warning", check="time_unit", where=name,
                problem="seems not to be in seconds", got=f"{high:,.0f}",
                advice="Divide it in preparation: gaps of a history are taken for seconds.",
            )  # fmt: skip


def repeat_findings(scan: Scan) -> Iterator[Finding]:
    """Find rows, (user, item, time) and requests that come twice, and unaligned candidates."""
    shape, roles = scan.shape, scan.shape.roles
    for name, lines in scan.unaligned.items():
        yield Finding(
            severity="error", check="unaligned", where=name,
            problem="its lists are not as long as those of the other candidate columns",
            got=f"{lines:,} lines",
            advice="Write the same candidates to all; training refuses such lines.",
        )  # fmt: skip
    if scan.num_empty:
        yield Finding(
            severity="note", check="empty_request", where="requests",
            problem="have no candidates",
            got=f"{scan.num_empty:,} of {scan.num_lines:,}", advice="Drop them in preparation.",
        )  # fmt: skip
    rows, events = scan.rows.repeated(), scan.events.repeated()
    # Without a time or a request, equal rows may well be different ones.
    is_named = "request" in roles or {"user", "event_time"} <= roles.keys()
    if rows.extra and is_named:
        yield Finding(
            severity="warning", check="duplicate_rows", where="rows",
            problem="are there more than once, equal in all columns but lists",
            got=_about(rows.extra, scan.num_rows, is_exact=rows.is_exact),
            advice="Drop them in preparation: they count twice.",
        )  # fmt: skip
    if events.extra > rows.extra * 1.01:
        where = f"({roles['user']}, {roles['item']}, {roles['event_time']})"
        yield Finding(
            severity="note", check="duplicate_events", where=where,
            problem="is there more than once, with other values beside it",
            got=_about(events.extra - rows.extra, scan.num_rows, is_exact=events.is_exact),
            advice="Check that each impression is one row.",
        )  # fmt: skip
    runs, whole = scan.request_runs.repeated(), scan.request_runs.distinct
    got = _about(runs.keys, whole, is_exact=runs.is_exact, of="requests")
    if runs.extra and shape.layout == "flat":
        yield Finding(
            severity="warning", check="requests_apart", where=roles["request"],
            problem="the rows of a request do not follow each other",
            got=got,
            advice="Sort the log by request before it is grouped.",
        )  # fmt: skip
    elif runs.extra:
        yield Finding(
            severity="warning", check="duplicate_requests", where=roles["request"],
            problem="stands in several lines",
            got=got,
            advice="Write each request as one line.",
        )  # fmt: skip


def chosen_findings(scan: Scan, kinds: Mapping[str, Guess]) -> Iterator[Finding]:
    """Find lists of what was chosen out of another list: labels in another form."""
    lists = [name for name in scan.shape.bags if name in scan.profiles]
    for name in lists:
        if kinds[name].kind != "outcome":
            continue
        keys = scan.profiles[name].sketch
        for shown in lists:
            if shown == name or scan.shape.leaf(shown) != scan.shape.leaf(name):
                continue
            within = keys.compare(scan.profiles[shown].sketch).shared_key_share
            if within > CHOSEN_SHARE:
                yield Finding(
                    severity="warning", check="chosen", where=name,
                    problem=f"seems to hold what was chosen of {shown!r}",
                    got=f"{share(within, 1)} of its ids among those",
                    advice="Write a list of 0 and 1 beside the shown ids: then the log is grouped, "
                    "with that list as its label.",
                )  # fmt: skip


def _about(number: float, whole: float, *, is_exact: bool, of: str = "rows") -> str:
    about = "" if is_exact else "about "
    return f"{about}{number:,.0f} of {whole:,.0f} {of} ({share(number, whole)})"
