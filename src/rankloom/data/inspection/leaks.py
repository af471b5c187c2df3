"""Label leaks: columns that tell the label better than any feature should.

Each column alone is made a predictor: a number by its size and by the label's rate in its bucket, a
category by the label's rate among the other half of the rows. Their AUC on a sample of rows is
measured; an id of a million values gains nothing by being many, since it is scored on rows that its
rates have not seen.

Shapes: S sampled rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rankloom.data.columns import Bools, Ints
from rankloom.data.inspection.coded import NULL_HASH, Floats, Hashes
from rankloom.data.inspection.findings import Finding, Severity, by_severity, share
from rankloom.data.inspection.kinds import Guess
from rankloom.data.inspection.samples import Rows

CERTAIN_AUC = 0.98
"""A column this good alone is made from the label."""
DOUBTFUL_AUC = 0.95
"""One this good may be made from it."""
MIN_CLASS = 25
"""Rows of each class that it takes to judge."""
NUM_BUCKETS = 64
MIN_MISSING_POSITIVES = 30
"""Positives that chance would put among the nulls, of which there is none."""
_PRIOR_ROWS = 2.0
_CHECKED = frozenset({"sparse", "dense", "outcome", "time", "position", "request id", "weight"})


@dataclass(frozen=True)
class Label:
    """A label of the sampled rows."""

    task: str
    column: str
    values: Floats
    """(S,) 1, 0, or NaN where there is none."""


def leak_findings(
    sample: Rows,
    columns: Sequence[str],
    kinds: dict[str, Guess],
    labels: Sequence[Label],
    features: frozenset[str] = frozenset(),
) -> Iterator[Finding]:
    """Find the columns that give a label away.

    Args:
        sample: Rows drawn at random.
        columns: Their columns.
        kinds: What each column seems to be: labels and ids of users and items are left alone.
        labels: Judged one after the other.
        features: Columns that a run file makes features of.
    """
    for at, name in enumerate(columns):
        is_outcome = kinds[name].kind == "outcome"
        if kinds[name].kind not in _CHECKED or any(label.column == name for label in labels):
            continue
        found = [
            finding
            for label in labels
            for finding in _judge(name, sample.hashes[:, at], sample.numbers[:, at], label)
        ]
        if found and (not is_outcome or name in features):
            # One line a column: the worst.
            yield by_severity(found)[0]
        elif is_outcome:
            used = name in features
            yield Finding(
                severity="error" if used else "warning",
                check="outcome_name",
                where=name,
                problem="is known only after the row, by its name"
                + (", and the run file makes it a feature" if used else ""),
                got=found[0].got if found else "no high AUC" if labels else "no label to try it on",
                advice="Keep it out of the features; it may serve as a label or its mask.",
            )


def _judge(name: str, hashes: Hashes, numbers: Floats, label: Label) -> Iterator[Finding]:
    known = ~np.isnan(label.values)
    truth = label.values[known] > 0
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if min(positives, negatives) < MIN_CLASS:
        return
    hashes, numbers = hashes[known], numbers[known]
    is_null: Bools = hashes == NULL_HASH
    null_auc = single_auc(is_null.astype(np.float64), truth)
    auc = column_auc(hashes, numbers, truth)
    expected = float(is_null.mean()) * positives
    if null_auc >= CERTAIN_AUC:
        yield _leak(
            name, label, "error", f"is null just where the label of {label.task!r} is "
            f"{'1' if truth[is_null].mean() > 0.5 else '0'}",
            got=f"nulls in {share(is_null[truth].mean(), 1)} of the positive rows and in "
            f"{share(is_null[~truth].mean(), 1)} of the negative ones",
        )  # fmt: skip
    elif auc >= DOUBTFUL_AUC:
        certain = auc >= CERTAIN_AUC
        yield _leak(
            name, label, "error" if certain else "warning",
            f"tells the label of {label.task!r} {'by itself' if certain else 'very well'}",
            got=f"a single-column AUC of {auc:.4f}",
        )  # fmt: skip
    elif expected >= MIN_MISSING_POSITIVES and not truth[is_null].any():
        yield _leak(
            name, label, "warning", f"is never null where the label of {label.task!r} is 1",
            got=f"{int(is_null.sum()):,} nulls, none positive, where chance gives {expected:,.0f}",
        )  # fmt: skip


def _leak(name: str, label: Label, severity: Severity, problem: str, *, got: str) -> Finding:
    return Finding(
        severity=severity, check="leak", where=name,
        problem=problem, got=f"{got} ({label.column!r})",
        advice="Leave it out unless it is known before the row is shown.",
    )  # fmt: skip


def column_auc(hashes: Hashes, numbers: Floats, truth: Bools) -> float:
    """Give the AUC of one column alone, at least 0.5.

    Args:
        hashes: (S,) of the values.
        numbers: (S,) the values where they are numbers, else NaN.
        truth: (S,) the label.
    """
    has_numbers = ~np.isnan(numbers)
    best = 0.5
    groups: Ints = np.unique(hashes, return_inverse=True)[1]
    if has_numbers.any():
        # Null is a value of its own, below all.
        filled = np.where(has_numbers, numbers, -np.inf)
        best = max(best, single_auc(filled, truth))
        if groups.max(initial=0) >= NUM_BUCKETS:
            groups = _buckets(filled)
    return max(best, _rates_auc(groups, truth))


def single_auc(values: Floats, truth: Bools) -> float:
    """Give the AUC of values, ties one half, or of their opposite if that is better."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    positives = np.add.reduceat(truth[order].astype(np.float64), starts)
    negatives = np.diff(starts, append=len(values)) - positives
    pairs = positives.sum() * negatives.sum()
    if not pairs:
        return 0.5
    won = (positives * (np.cumsum(negatives) - negatives / 2)).sum() / pairs
    return float(max(won, 1 - won))


def _buckets(values: Floats) -> Ints:
    edges = np.unique(np.quantile(values, np.linspace(0, 1, NUM_BUCKETS + 1)[1:-1], method="lower"))
    return np.searchsorted(edges, values, side="right")


def _rates_auc(groups: Ints, truth: Bools) -> float:
    """Score each half of the rows by the label's rate per group in the other half."""
    # The sample's order is random, so every other row is a random half.
    half = np.arange(len(truth)) % 2 == 0
    base = float(truth.mean())
    aucs = []
    for seen in (half, ~half):
        size = int(groups.max(initial=0)) + 1
        rows = np.bincount(groups[seen], minlength=size)
        positives = np.bincount(groups[seen], weights=truth[seen], minlength=size)
        rates = (positives + _PRIOR_ROWS * base) / (rows + _PRIOR_ROWS)
        aucs.append(single_auc(rates[groups[~seen]], truth[~seen]))
    return float(np.mean(aucs))
