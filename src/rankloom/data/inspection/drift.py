"""How a test log differs from the training log, where the difference is more than noise.

Two samples of one distribution differ too. For shares p over buckets, from n and m independent
rows, the total variation distance between the samples is about

    0.5 * sum over buckets of sqrt(2 / pi * p (1 - p) (1 / n + 1 / m))

Rows of one user are not independent in what describes the user, so for such a column n is the
number of users, weighted by their rows (Kish's effective size).

Shapes: S and S' sampled rows of training and test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rankloom.data.inspection.coded import Floats, Hashes
from rankloom.data.inspection.findings import Finding, share
from rankloom.data.inspection.kinds import Guess
from rankloom.data.inspection.leaks import Label
from rankloom.data.inspection.samples import Rows, run_starts
from rankloom.data.inspection.sides import SideGuess
from rankloom.data.inspection.sketch import KeySketch

MIN_DISTANCE = 0.1
"""Total variation below which a drift is no finding, however certain."""
MAX_NEW_SHARE = 0.5
"""Share of test rows with an id that training does not have, from which on it is a finding."""
MAX_BUCKETS = 64
NOISE_FACTOR = 3.0
"""How many times its noise a distance must be."""
LABEL_SIGMAS = 5.0
MIN_LABEL_CHANGE = 0.1
"""Relative change of a label's rate from which on it is a finding."""
_COMPARED = frozenset({"sparse", "dense", "item id", "weight"})


@dataclass(frozen=True, kw_only=True)
class Distance:
    """How far apart a column's values in two samples are."""

    total_variation: float
    """Half the sum of the absolute differences of the shares."""
    noise: float
    """What it would be about if both samples came from one distribution."""
    psi: float
    """Population stability index over the same buckets."""


def distance(
    first: Floats, second: Floats, *, sizes: tuple[float, float] | None = None
) -> Distance:
    """Compare two counts of the same buckets.

    Args:
        first: (buckets,) counts.
        second: (buckets,) counts.
        sizes: Effective numbers of independent rows; default: the sums.
    """
    p, q = first / max(first.sum(), 1), second / max(second.sum(), 1)
    n, m = sizes or (float(first.sum()), float(second.sum()))
    pooled = (first + second) / max((first + second).sum(), 1)
    spread = pooled * (1 - pooled) * (1 / max(n, 1) + 1 / max(m, 1))
    # Empty buckets would make the index infinite: half a row in each.
    safe_p = (first + 0.5) / (first.sum() + 0.5 * len(first))
    safe_q = (second + 0.5) / (second.sum() + 0.5 * len(second))
    return Distance(
        total_variation=float(np.abs(p - q).sum() / 2),
        noise=float(np.sqrt(2 / np.pi * spread).sum() / 2),
        psi=float(((safe_p - safe_q) * np.log(safe_p / safe_q)).sum()),
    )


def column_counts(train: Rows, test: Rows, at: int) -> tuple[Floats, Floats]:
    """Put a column's values into buckets: by training quantiles, or by its frequent values."""
    numbers, others = train.numbers[:, at], test.numbers[:, at]
    values, counts = np.unique(train.hashes[:, at], return_counts=True)
    if len(values) > MAX_BUCKETS and not np.isnan(numbers).all():
        known = numbers[~np.isnan(numbers)]
        edges = np.unique(np.quantile(known, np.linspace(0, 1, 21)[1:-1], method="lower"))
        size = len(edges) + 2
        buckets = [
            np.where(np.isnan(one), size - 1, np.searchsorted(edges, one, side="right"))
            for one in (numbers, others)
        ]
    else:
        frequent = np.sort(values[np.argsort(-counts, kind="stable")[:MAX_BUCKETS]])
        size = len(frequent) + 1
        buckets = []
        for rows in (train, test):
            hashes = rows.hashes[:, at]
            places = np.minimum(np.searchsorted(frequent, hashes), len(frequent) - 1)
            buckets.append(np.where(frequent[places] == hashes, places, size - 1))
    first, second = (np.bincount(one, minlength=size).astype(np.float64) for one in buckets)
    return first, second


def effective_size(keys: KeySketch | None, num_rows: float) -> float:
    """Give how many independent rows a log is worth for what belongs to a key."""
    if keys is None:
        return num_rows
    _, counts = keys.kept()
    if not len(counts):
        return num_rows
    total = float(counts.sum())
    per_key = total * total / float(np.square(counts.astype(np.float64)).sum())
    return min(num_rows, per_key * keys.distinct / len(counts))


def drift_findings(
    train: Rows,
    test: Rows,
    columns: Sequence[str],
    kinds: Mapping[str, Guess],
    sides: Mapping[str, SideGuess],
    sizes: Mapping[str, tuple[float, float]],
) -> Iterator[Finding]:
    """Find the columns whose values differ.

    Args:
        train: Rows of the training log drawn at random.
        test: Of the test log.
        columns: Of both.
        kinds: What each column seems to be; times and ids of requests differ by nature.
        sides: Side of each column.
        sizes: Side -> effective numbers of independent rows in training and test.
    """
    for at, name in enumerate(columns):
        if kinds[name].kind not in _COMPARED:
            continue
        first, second = column_counts(train, test, at)
        limits = sizes.get(sides[name].side, (np.inf, np.inf))
        seen = min(first.sum(), limits[0]), min(second.sum(), limits[1])
        found = distance(first, second, sizes=seen)
        if found.total_variation > max(MIN_DISTANCE, NOISE_FACTOR * found.noise):
            yield Finding(
                severity="warning", check="drift", where=name,
                problem="its values in the test log differ from those in training",
                got=f"a total variation of {found.total_variation:.2f} (noise {found.noise:.2f}; "
                f"PSI {found.psi:.2f})",
                advice="Check how it is made, or expect a lower quality than in training.",
            )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Rate:
    """The mean of a label in a log."""

    mean: float
    deviation: float
    """Standard deviation of the mean, were the log drawn again with other users."""


def label_rate(values: Floats, keys: Hashes, num_rows: int) -> Rate | None:
    """Estimate a label's mean and how certain it is; none where there is no label.

    Args:
        values: (S,) labels of sampled rows; NaN where there is none.
        keys: (S,) ascending; rows with one key are of one user and not independent.
        num_rows: Of the whole log.
    """
    known = ~np.isnan(values)
    values, keys = values[known], keys[known]
    if not len(values):
        return None
    mean = float(values.mean())
    # What the rows of a user are off together: with users of one row, the usual formula.
    off = np.add.reduceat(values - mean, run_starts(keys))
    variance = float(np.square(off).sum()) / len(values) / max(num_rows, len(values))
    return Rate(mean=mean, deviation=float(np.sqrt(variance)))


def label_finding(label: Label, train: Rate, test: Rate) -> Iterator[Finding]:
    """Find a label whose mean differs between the logs."""
    noise = float(np.hypot(train.deviation, test.deviation))
    change = abs(test.mean - train.mean)
    if change > max(LABEL_SIGMAS * noise, MIN_LABEL_CHANGE * abs(train.mean)):
        yield Finding(
            severity="warning", check="label_drift", where=label.column,
            problem=f"the label of {label.task!r} has another mean in the test log",
            got=f"{test.mean:.4g} beside {train.mean:.4g} in training (noise {noise:.2g})",
            advice="Check how both were sampled: calibration will be off by as much.",
        )  # fmt: skip


def new_id_findings(
    train: Mapping[str, KeySketch], test: Mapping[str, KeySketch], kinds: Mapping[str, Guess]
) -> Iterator[Finding]:
    """Find the id columns most of whose test rows have an id that training does not have."""
    for name, keys in test.items():
        if name not in train or kinds[name].kind not in {"sparse", "user id", "item id"}:
            continue
        overlap = keys.compare(train[name])
        new = overlap.new_row_share
        if overlap.num_keys >= 20 and new > MAX_NEW_SHARE:
            yield Finding(
                severity="warning", check="new_ids", where=name,
                problem="most rows of the test log have an id that training does not have",
                got=f"{share(new, 1)} of the rows, "
                f"{share(1 - overlap.shared_key_share, 1)} of the ids",
                advice="Their row of the table is the unknown one: rely on other features, or "
                "split otherwise.",
            )  # fmt: skip
