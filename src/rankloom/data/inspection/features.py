"""From what columns seem to be to the features of a draft."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from rankloom.data.arrow_keys import is_string
from rankloom.data.inspection.event_lists import History
from rankloom.data.inspection.kinds import FEATURE_KINDS, Guess
from rankloom.data.inspection.names import identifier, is_same_name
from rankloom.data.inspection.profile import ColumnProfile, Summary
from rankloom.data.inspection.shape import Shape
from rankloom.data.inspection.sides import SideGuess

MAX_VOCABULARY = 1_000_000
"""Distinct ids up to which a table has a vocabulary; with more, they are hashed."""
MAX_ROWS = 256
"""Whole numbers 0, 1, .. taken as rows of a table."""
MIN_COUNT = 20
"""Occurrences of the rarest of them: so that no new one is to be feared."""
BUCKETS_PER_ID = 4
RARE_SHARE = 0.3
"""Share of the ids seen once from which on they share the row of the unknown."""
MIN_SHARED = 0.5
"""Share of a history's ids that an item column must have to share its table."""
SKEW = 20
"""Maximum over the most frequent number, beyond which it is put into buckets."""


@dataclass(frozen=True)
class Proposed:
    """The features of a draft."""

    features: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name -> what the run file says."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Name -> why."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Column -> why it is no feature."""


def propose_features(
    shape: Shape,
    kinds: Mapping[str, Guess],
    sides: Mapping[str, SideGuess],
    profiles: Mapping[str, ColumnProfile],
    leaking: Mapping[str, str],
    broken_times: frozenset[str],
    *,
    is_whole: bool = True,
) -> Proposed:
    """Propose a feature for each column that may be one.

    Args:
        shape: How the log is laid out.
        kinds: What each column seems to be.
        sides: Side of each column with one value or several ids a row.
        profiles: What each column holds.
        leaking: Column -> why it gives a label away.
        broken_times: Histories whose times the reader would refuse.
        is_whole: Whether every row was seen; else larger ids may come.
    """
    found = Proposed()
    summaries = {name: profile.summary() for name, profile in profiles.items()}
    for name, guess in kinds.items():
        if guess.kind in {"sequence", "first event"}:
            continue
        if reason := _why_not(name, guess, shape, summaries.get(name), leaking):
            found.left_out[name] = reason
            continue
        values, how = _feature(name, guess, shape, profiles[name], is_whole)
        side = sides[name] if name in sides else _vector_side(name, shape)
        feature = identifier(name)
        feature = feature if feature not in found.features else f"{feature}_{len(found.features)}"
        column = {} if feature == name else {"column": name}
        found.features[feature] = {"side": side.side, **values, **column}
        found.reasons[feature] = f"{side.side}: {side.evidence}; {guess.reason}{how}"
    for history in shape.histories:
        _add_history(found, history, shape, profiles, summaries, history.name in broken_times)
    return found


def _why_not(
    name: str,
    guess: Guess,
    shape: Shape,
    summary: Summary | None,
    leaking: Mapping[str, str],
) -> str | None:
    if guess.kind not in FEATURE_KINDS or summary is None:
        return f"{guess.kind}: {guess.reason}"
    if name in leaking:
        return f"gives a label away: {leaking[name]}"
    if summary.num_infinite:
        return "holds infinite numbers, which training refuses"
    if shape.roles.get("request") == name:
        return "names the request"
    if guess.kind == "vector" and summary.num_nan + summary.num_nulls:
        return "vectors with missing numbers"
    return None


def _vector_side(name: str, shape: Shape) -> SideGuess:
    if shape.is_per_row(name):
        return SideGuess("item", "one vector a candidate")
    if shape.layout == "grouped":
        return SideGuess("context", "one vector a request")
    return SideGuess("cross", "vectors are not compared")


def _feature(
    name: str, guess: Guess, shape: Shape, profile: ColumnProfile, is_whole: bool
) -> tuple[dict[str, Any], str]:
    """Give what a run file says of a feature besides its side, and why."""
    summary = profile.summary()
    if guess.kind == "vector":
        return {"kind": "vector", "dim": shape.vectors[name], "default": "zeros"}, ""
    if guess.kind == "dense":
        encode, how = _encoding(summary)
        return {"kind": "dense", "encode": {"kind": encode}}, how
    may_be_rows = is_whole and pa.types.is_integer(shape.leaf(name)) and name not in shape.bags
    way, how = _way(summary, profile, may_be_rows=may_be_rows)
    if name == shape.roles.get("item") or name == shape.roles.get("user"):
        # Named, so that a history may share it.
        way = {"table": identifier(name), **way}
    pooling = {"pooling": "mean"} if name in shape.bags else {}
    return {"kind": "sparse", **pooling, **way}, how


def _encoding(summary: Summary) -> tuple[str, str]:
    if summary.num_nulls + summary.num_nan:
        return "quantile", f"; {summary.null_share:.1%} missing, which buckets have a row for"
    low, high = summary.low or 0.0, summary.high or 0.0
    usual = abs(float(summary.frequent[0][0])) if summary.frequent else 0.0
    if low >= 0 and high > SKEW * max(usual, 1.0):
        return "quantile", f"; from {low:g} to {high:g}, so in buckets of equal shares"
    return "linear", f"; from {low:g} to {high:g}"


def _way(
    summary: Summary, profile: ColumnProfile, *, may_be_rows: bool
) -> tuple[dict[str, Any], str]:
    """Choose how ids become rows of a table."""
    count = f"{'' if summary.is_exact else 'about '}{summary.distinct:,.0f} ids"
    is_dense = (
        may_be_rows
        and summary.is_exact
        and not summary.num_nulls
        and summary.low == 0
        and summary.high == summary.distinct - 1
        and summary.distinct <= MAX_ROWS
        and summary.rarest >= MIN_COUNT
    )
    if is_dense:
        size = int(summary.distinct)
        return {"num_embeddings": size}, f"; every number from 0 to {size - 1} occurs, and often"
    is_beyond = summary.high is not None and summary.high >= 2**63
    if is_beyond or summary.distinct > MAX_VOCABULARY:
        buckets = 2 ** math.ceil(math.log2(BUCKETS_PER_ID * summary.distinct))
        why = "some beyond int64" if is_beyond else "too many for a vocabulary"
        return {"hash_buckets": buckets}, f"; {count}, {why}"
    _, counts = profile.sketch.kept()
    once = float((counts == 1).mean()) if len(counts) else 0.0
    if once > RARE_SHARE and summary.num_values >= 10_000:
        text = f"; {count}, {once:.0%} of them seen once, which share a row"
        return {"vocabulary": {"min_count": 2}}, text
    return {"vocabulary": {}}, f"; {count}"


def _add_history(
    found: Proposed,
    history: History,
    shape: Shape,
    profiles: Mapping[str, ColumnProfile],
    summaries: Mapping[str, Summary],
    has_broken_times: bool,
) -> None:
    name = history.name if history.name not in found.features else f"{history.name}_events"
    columns: dict[str, dict[str, Any]] = {}
    notes = []
    for inner, column in history.columns.items():
        leaf = shape.leaf(column)
        if not (pa.types.is_integer(leaf) or is_string(leaf)) or summaries[column].is_all_null:
            found.left_out[column] = f"an event's {leaf}: events are made of ids"
            continue
        way, note = _event_way(column, found, shape, profiles, summaries[column])
        notes += [f"{inner}: {note}"] if note else []
        columns[inner] = {**way, **_other_name(column, f"{name}_{inner}")}
    if not columns:
        return
    longest = max(summaries[column].max_length or 1 for column in history.columns.values())
    feature: dict[str, Any] = {"side": "user", "kind": "sequence"}
    if history.time is not None:
        if has_broken_times or not pa.types.is_integer(shape.leaf(history.time)):
            found.left_out[history.time] = "its times cannot be read; see the findings"
        else:
            feature["time"] = history.time
    if history.first_event is not None and not summaries[history.first_event].num_nulls:
        feature["first_event"] = history.first_event
    feature["max_length"] = min(max(longest, 1), 200)
    found.features[name] = {**feature, "columns": columns}
    notes.insert(0, f"user: past events, up to {longest:,}")
    found.reasons[name] = "; ".join(notes)


def _other_name(column: str, expected: str) -> dict[str, str]:
    return {} if column == expected else {"column": column}


def _is_within(summary: Summary, rows: int | None) -> bool:
    """Tell whether all values are rows of a table, if its values are rows as they are."""
    if rows is None:
        return True
    if summary.low is None or summary.high is None:
        return False
    return summary.low >= 0 and summary.high < rows and not summary.num_nulls


def _event_way(
    column: str,
    found: Proposed,
    shape: Shape,
    profiles: Mapping[str, ColumnProfile],
    summary: Summary,
) -> tuple[dict[str, Any], str]:
    """Choose how an event's ids become rows: those of an item feature, if it has the same ids."""
    keys = profiles[column].sketch
    best = (MIN_SHARED, "", "")
    for name, feature in found.features.items():
        other = feature.get("column", name)
        if feature["kind"] != "sparse" or feature["side"] != "item":
            continue
        if is_string(shape.leaf(other)) != is_string(shape.leaf(column)):
            continue
        same = keys.compare(profiles[other].sketch).shared_key_share
        if not _is_within(summary, feature.get("num_embeddings")):
            continue
        # A name that agrees goes before; without one, small numbers agree by chance.
        alike = is_same_name(column, other)
        is_wide = summary.high is None or summary.high > 10 * summary.distinct
        is_enough = same >= MIN_SHARED and (alike or is_wide)
        if is_enough and same + alike > best[0]:
            best = (same + alike, name, f"{same:.0%} of its ids are those of {other!r}")
    if best[1]:
        feature = found.features[best[1]]
        feature.setdefault("table", best[1])
        return {"table": feature["table"]}, best[2]
    way, _ = _way(summary, profiles[column], may_be_rows=False)
    return way, ""
