"""Training and test as two logs: which comes first, and what both hold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rankloom.data.inspection.findings import Finding, share
from rankloom.data.inspection.profile import Summary
from rankloom.data.inspection.samples import KeyedRows, run_starts
from rankloom.data.inspection.scan import Scan

MAX_EARLY_USERS = 0.02
"""Share of users with test rows before their newest training row, from which on it is a leak."""
MIN_USERS = 20


def split_findings(
    train: Scan, test: Scan, times: tuple[Summary, Summary] | None, time_column: int | None
) -> Iterator[Finding]:
    """Find test rows that training has seen, or that are older than it.

    Args:
        train: The training log.
        test: The test log.
        times: What the column of times holds in both.
        time_column: Its place among the sampled columns.
    """
    yield from _shared_rows(train, test)
    if times is None or time_column is None:
        return
    first, second = times
    if first.high is None or second.low is None or second.low >= first.high:
        return
    name = train.shape.roles["event_time"]
    if second.high is not None and first.low is not None and second.high < first.low:
        yield Finding(
            severity="error", check="test_before_train", where=name,
            problem="the whole test log is older than the training log",
            got=f"{second.high:,.0f} as newest test time, {first.low:,.0f} as oldest of training",
            advice="Test on what comes after training.",
        )  # fmt: skip
        return
    early, users = _early_users(train.groups["user"], test.groups["user"], time_column)
    if users >= MIN_USERS and early <= MAX_EARLY_USERS * users:
        yield Finding(
            severity="note", check="time_overlap", where=name,
            problem="training and test overlap in time, but not within users",
            got=f"{second.low:,.0f} as oldest test time, {first.high:,.0f} as newest of training",
            advice="Fine for comparing models; a model in service has no other users' future.",
        )  # fmt: skip
        return
    got = f"{second.low:,.0f} as oldest test time, {first.high:,.0f} as newest of training"
    if users >= MIN_USERS:
        got += f"; {share(early, users)} of {users:,} users have test rows before training ones"
    yield Finding(
        severity="error" if users >= MIN_USERS else "warning",
        check="test_before_train", where=name,
        problem="test rows are older than training rows", got=got,
        advice="Split by time, so that a test asks of the future.",
    )  # fmt: skip


def _shared_rows(train: Scan, test: Scan) -> Iterator[Finding]:
    roles = train.shape.roles
    if not {"user", "item", "event_time"} <= roles.keys():
        return
    overlap = test.events.compare(train.events)
    if not overlap.shared_rows:
        return
    part = overlap.shared_rows / overlap.num_rows
    yield Finding(
        severity="error" if part >= 0.01 else "warning", check="shared_rows",
        where=f"({roles['user']}, {roles['item']}, {roles['event_time']})",
        problem="rows of the test log are in the training log too",
        got=f"{share(part, 1)} of the test rows",
        advice="Take them out of one of the two.",
    )  # fmt: skip


def _early_users(train: KeyedRows, test: KeyedRows, time_column: int) -> tuple[int, int]:
    """Count the users with a test row before their newest training row, and all in both."""
    train_users, newest = _per_user(train, time_column, np.maximum)
    test_users, oldest = _per_user(test, time_column, np.minimum)
    _, here, there = np.intersect1d(train_users, test_users, return_indices=True)
    return int((oldest[there] < newest[here]).sum()), len(here)


def _per_user(
    group: KeyedRows, column: int, extreme: np.ufunc
) -> tuple[
    np.ndarray[tuple[int], np.dtype[np.uint64]], np.ndarray[tuple[int], np.dtype[np.float64]]
]:
    keys, rows = group.rows()
    if not len(keys):
        return np.empty(0, np.uint64), np.empty(0)
    starts = run_starts(keys)
    return keys[starts], extreme.reduceat(rows.numbers[:, column], starts)
