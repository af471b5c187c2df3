"""The whole inspection of a log: columns, findings and a draft of a run file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

from rankloom.data.files import FileNames, check_files
from rankloom.data.inspection.chunk import sample_columns
from rankloom.data.inspection.draft import Draft, make_draft
from rankloom.data.inspection.drift import (
    Rate,
    drift_findings,
    effective_size,
    label_finding,
    label_rate,
    new_id_findings,
)
from rankloom.data.inspection.features import propose_features
from rankloom.data.inspection.file_checks import columns_in_all, schema_findings
from rankloom.data.inspection.findings import Finding, by_severity
from rankloom.data.inspection.kinds import Guess, guess_kinds
from rankloom.data.inspection.leaks import leak_findings
from rankloom.data.inspection.profile import Summary
from rankloom.data.inspection.row_checks import chosen_findings, column_findings, repeat_findings
from rankloom.data.inspection.run_checks import run_findings
from rankloom.data.inspection.samples import Rows
from rankloom.data.inspection.scan import Report, Scan, guess_shape, scan
from rankloom.data.inspection.shape import Shape
from rankloom.data.inspection.sides import SideGuess, guess_sides
from rankloom.data.inspection.splits import split_findings
from rankloom.data.inspection.tasks import (
    TaskGuess,
    guess_tasks,
    label_of,
    schema_tasks,
    stated_tasks,
    with_given,
)
from rankloom.data.uses import Layout
from rankloom.errors import ConfigError, did_you_mean
from rankloom.schema import Schema, parse_expression

NO_SCHEMA = Schema({})


@dataclass(frozen=True, kw_only=True)
class Options:
    """What an inspection may be told."""

    schema: Schema | None = None
    """What a run file says: the log is compared with it."""
    layout: Layout | None = None
    """How a run file says that the log is stored."""
    labels: tuple[str, ...] = ()
    """Labels, as columns or comparisons, where no column is named like one."""
    limit_rows: int | None = None
    """Lines that are read of each log, about; all if None."""
    seed: int = 0
    """Of the samples of rows."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a look at a log has found."""

    shape: Shape
    """How it is laid out."""
    num_lines: int
    """Lines read."""
    num_rows: int
    """Rows read."""
    columns: dict[str, Summary]
    """What each readable column holds."""
    kinds: dict[str, Guess]
    """What each column seems to be."""
    sides: dict[str, SideGuess]
    """Side of each column with a value, or several ids, a row."""
    findings: list[Finding]
    """What looks wrong, the worst first."""
    draft: Draft | None
    """A run file, where a label was found."""
    tasks: list[TaskGuess] = field(default_factory=list)
    """What the log seems made for."""

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, for scripts."""
        columns = {
            name: {
                "kind": guess.kind,
                "reason": guess.reason,
                **({"side": asdict(self.sides[name])} if name in self.sides else {}),
                **(_plain(self.columns[name]) if name in self.columns else {}),
            }
            for name, guess in self.kinds.items()
        }
        return {
            "layout": self.shape.layout,
            "lines": self.num_lines,
            "rows": self.num_rows,
            "roles": self.shape.roles,
            "columns": columns,
            "tasks": {task.name: task.to_dict() for task in self.tasks},
            "findings": [asdict(finding) for finding in self.findings],
            "draft": None if self.draft is None else self.draft.values,
        }


def _plain(summary: Summary) -> dict[str, Any]:
    """Give a column's summary as values that JSON has."""
    frequent = [
        # JSON has neither NaN nor infinity.
        {
            "value": str(value) if isinstance(value, float) and not isfinite(value) else value,
            "count": count,
        }
        for value, count in summary.frequent
    ]
    return {**asdict(summary), "frequent": frequent}


def inspect_log(
    files: FileNames,
    *,
    test: FileNames | None = None,
    options: Options = Options(),
    report: Report = lambda _: None,
) -> Inspection:
    """Look at a log in one pass and bounded memory.

    Args:
        files: Paths or glob patterns of the training log.
        test: Of the test log, which is compared with it.
        options: What else is known of the log.
        report: Called with the lines done.

    Raises:
        DataError: Files are missing, empty or no Parquet, or hold no column or row.
        ConfigError: A label is no expression, or names no column.
    """
    log = check_files(files, NO_SCHEMA)
    other = None if test is None else check_files(test, NO_SCHEMA)
    columns, findings = columns_in_all(log)
    shape = guess_shape(log, columns, schema=options.schema, layout=options.layout)
    asked = _asked_tasks(options, shape)
    read = [name for name in columns if name not in shape.others]
    limit, seed = options.limit_rows, options.seed
    found = scan(log, shape, read, limit_lines=limit, report=report, seed=seed)
    inspector = _Inspector(found, asked, options)
    findings += inspector.findings()
    if other is not None:
        common, changed = columns_in_all(other, like=log)
        findings += changed
        within = _restricted(shape, common)
        read = [name for name in read if name in common]
        done = found.num_lines
        against = scan(
            other, within, read, limit_lines=limit,
            report=lambda lines: report(done + lines), seed=seed + 1,
        )  # fmt: skip
        findings += inspector.test_findings(against)
    paths = {"train": _named(files), "test": [] if test is None else _named(test)}
    return inspector.result(by_severity(findings), paths)


def _asked_tasks(options: Options, shape: Shape) -> list[TaskGuess]:
    tasks = stated_tasks(options.labels)
    if options.schema is not None and not tasks:
        tasks = schema_tasks(options.schema)
    known = shape.schema.names
    for text in options.labels:
        column = parse_expression(text).column
        if column not in known:
            hint = did_you_mean(column, known)
            raise ConfigError(
                f"--label {text}: no column is named {column!r}.{hint} Give one of the log's."
            )
    return tasks


def _named(files: FileNames) -> list[str]:
    return [str(one) for one in ([files] if isinstance(files, str | Path) else files)]


def _restricted(shape: Shape, columns: Sequence[str]) -> Shape:
    """Leave out what the test log does not have."""
    kept = set(columns)
    return replace(
        shape,
        lines=tuple(name for name in shape.lines if name in kept),
        rows=tuple(name for name in shape.rows if name in kept),
        bags=tuple(name for name in shape.bags if name in kept),
        vectors={name: dim for name, dim in shape.vectors.items() if name in kept},
        histories=tuple(one for one in shape.histories if kept.issuperset(one.lists)),
        roles={role: name for role, name in shape.roles.items() if name in kept},
        labels=tuple(name for name in shape.labels if name in kept),
    )


class _Inspector:
    """What one scan of the training log says.

    Args:
        train: The scan.
        asked: Tasks that the user has named.
        options: What else is known of the log.
    """

    def __init__(self, train: Scan, asked: Sequence[TaskGuess], options: Options) -> None:
        self.train, self.schema = train, options.schema
        shape = train.shape
        self.summaries = train.summaries()
        stated = frozenset(parse_expression(task.label).column for task in asked)
        self.kinds = guess_kinds(shape, self.summaries, num_rows=train.num_rows, labels=stated)
        self.columns = sample_columns(shape)
        self.sides = guess_sides(shape, self.columns, train.groups)
        self.sample = train.sample.rows()[1]
        tasks = list(asked) or guess_tasks(shape, self.kinds, self.summaries)
        pairs = [(task, label_of(task, self.sample, self.columns)) for task in tasks]
        known = [(task, label) for task, label in pairs if label is not None]
        self.labels = [label for _, label in known]
        self.tasks = with_given([task for task, _ in known], self.labels)
        used = frozenset(self.schema.columns(labels=False)) if self.schema else frozenset()
        self.leaks = list(leak_findings(self.sample, self.columns, self.kinds, self.labels, used))

    def findings(self) -> Iterator[Finding]:
        """Say what is wrong with the log by itself, and against the run file."""
        yield from self.leaks
        for check in self.train.histories.values():
            yield from check.findings()
        yield from repeat_findings(self.train)
        yield from chosen_findings(self.train, self.kinds)
        yield from column_findings(self.train, self.summaries, self.kinds)
        if not self.tasks:
            yield Finding(
                severity="warning", check="no_label", where="labels",
                problem="no column looks like a label, so no run file is drafted",
                got=", ".join(list(self.kinds)[:8]) + (" .." if len(self.kinds) > 8 else ""),
                advice="Name one with --label, such as --label 'rating >= 4'.",
            )  # fmt: skip
        if self.schema is not None:
            shape = self.train.shape
            yield from schema_findings(self.schema, shape)
            yield from run_findings(self.schema, self.train.profiles, self.summaries)

    def test_findings(self, test: Scan) -> Iterator[Finding]:
        """Say what is wrong with the test log beside this one."""
        train = self.train
        columns = sample_columns(test.shape)
        places = [self.columns.index(name) for name in columns]
        # The samples of both logs with the same columns.
        mine = Rows(self.sample.hashes[:, places], self.sample.numbers[:, places])
        theirs = test.sample.rows()[1]
        sizes = _effective_sizes(train, test)
        yield from drift_findings(mine, theirs, columns, self.kinds, self.sides, sizes)
        for task, label in zip(self.tasks, self.labels, strict=True):
            rates = [_label_rate(task, one) for one in (train, test)]
            if rates[0] is not None and rates[1] is not None:
                yield from label_finding(label, rates[0], rates[1])
        keys = [{name: p.sketch for name, p in one.profiles.items()} for one in (train, test)]
        yield from new_id_findings(keys[0], keys[1], self.kinds)
        # What is wrong with the test log by itself.
        alone = [
            *repeat_findings(test),
            *(f for c in test.histories.values() for f in c.findings()),
        ]
        yield from (replace(one, where=f"{one.where} (test)") for one in alone)
        time = test.shape.roles.get("event_time")
        times, at = None, None
        if time is not None:
            times = self.summaries[time], test.profiles[time].summary()
            at = self.columns.index(time)
        yield from split_findings(train, test, times, at)

    def result(self, findings: list[Finding], paths: Mapping[str, Sequence[str]]) -> Inspection:
        """Put all together, with the draft."""
        train = self.train
        broken = [name for name, one in train.histories.items() if one.breaks_training]
        leaking = {
            one.where: one.problem
            for one in self.leaks
            if one.check == "leak" and one.severity == "error"
        }
        proposed = propose_features(
            train.shape,
            self.kinds,
            self.sides,
            train.profiles,
            leaking,
            frozenset(broken),
            is_whole=train.is_whole,
        )
        draft = make_draft(paths, train.shape, proposed, self.tasks, self.summaries, train.num_rows)
        return Inspection(
            shape=train.shape,
            num_lines=train.num_lines,
            num_rows=train.num_rows,
            columns=self.summaries,
            kinds=self.kinds,
            sides=self.sides,
            findings=findings,
            draft=draft,
            tasks=self.tasks,
        )


def _label_rate(task: TaskGuess, found: Scan) -> Rate | None:
    """Give the mean of a task's label, by the users of a log where there are such."""
    keys, rows = (found.groups["user"] if "user" in found.shape.roles else found.sample).rows()
    label = label_of(task, rows, sample_columns(found.shape))
    return None if label is None else label_rate(label.values, keys, found.num_rows)


def _effective_sizes(train: Scan, test: Scan) -> dict[str, tuple[float, float]]:
    """Give, for each side, how many independent rows the logs are worth."""
    sizes: dict[str, tuple[float, float]] = {}
    for role, side in (("user", "user"), ("item", "item"), ("request", "context")):
        column = train.shape.roles.get(role)
        if column is not None and column in test.profiles:
            first, second = (
                effective_size(one.profiles[column].sketch, one.num_rows) for one in (train, test)
            )
            sizes[side] = first, second
    return sizes
