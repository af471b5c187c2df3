"""The whole schema: features, roles and tasks, and how they hang together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from rankloom.errors import SchemaError, did_you_mean, join_problems
from rankloom.schema.features import (
    DenseFeature,
    Feature,
    IdSource,
    QuantileEncoding,
    SequenceFeature,
    SparseFeature,
    VectorFeature,
)
from rankloom.schema.tasks import BinaryTask, PositiveTask, Roles
from rankloom.schema.unified import UNIFIED, UnifiedConfig

F = TypeVar("F", bound=Feature)


@dataclass(frozen=True)
class IdColumn:
    """One column of ids: a sparse feature, or one column of a sequence."""

    feature: str
    """The feature it belongs to."""
    name: str | None
    """Its name within a sequence; none for a sparse feature."""
    column: str
    """Its column in the log."""
    table: str
    """The table its ids are rows of."""
    source: IdSource
    """What the run file says of it."""
    lookups: int | None = None
    """Rows of the unified table that a value has; none if its table stands by itself."""

    @property
    def stored_in(self) -> str:
        """The table that holds the rows: `table`, or the unified one."""
        return self.table if self.lookups is None else UNIFIED

    @property
    def path(self) -> str:
        """Where the run file says it."""
        inner = f".columns.{self.name}" if self.name else ""
        return f"schema.{self.feature}{inner}"


class Schema:
    """Features, roles and tasks of a log; checked to hang together.

    Args:
        features: Name -> feature, in the order that models see them.
        roles: Which columns mean what.
        tasks: Name -> task.
        unified: Keeps several tables in one.

    Raises:
        SchemaError: Two features define one table differently, a table has no definition, or a
            task is given an unknown one; all such problems at once.
    """

    def __init__(
        self,
        features: Mapping[str, Feature],
        *,
        roles: Roles | None = None,
        tasks: Mapping[str, BinaryTask | PositiveTask] | None = None,
        unified: UnifiedConfig | None = None,
    ) -> None:
        self.features = dict(features)
        self.roles = roles or Roles()
        self.tasks = dict(tasks or {})
        self.unified = unified
        problems = self.problems()
        if problems:
            raise SchemaError(join_problems(problems, where="schema" if problems[1:] else ""))

    @classmethod
    def unchecked(
        cls,
        features: Mapping[str, Feature],
        *,
        roles: Roles,
        tasks: Mapping[str, BinaryTask | PositiveTask],
        unified: UnifiedConfig | None = None,
    ) -> Schema:
        """Make a schema without checking it, to look for further problems of a wrong one."""
        schema = cls.__new__(cls)
        schema.features, schema.roles, schema.tasks = dict(features), roles, dict(tasks)
        schema.unified = unified
        return schema

    def problems(self) -> list[str]:
        """List what does not hang together, a line each."""
        return [
            *self._name_problems(),
            *self._table_problems(),
            *self._unified_problems(),
            *self._position_problems(),
            *self._task_problems(),
        ]

    def of_kind(self, kind: type[F]) -> dict[str, F]:
        """Give the features of one kind, in order."""
        return {name: f for name, f in self.features.items() if isinstance(f, kind)}

    @property
    def sparse(self) -> dict[str, SparseFeature]:
        """The sparse features."""
        return self.of_kind(SparseFeature)

    @property
    def dense(self) -> dict[str, DenseFeature]:
        """The dense features."""
        return self.of_kind(DenseFeature)

    @property
    def sequences(self) -> dict[str, SequenceFeature]:
        """The sequence features."""
        return self.of_kind(SequenceFeature)

    @property
    def vectors(self) -> dict[str, VectorFeature]:
        """The vector features."""
        return self.of_kind(VectorFeature)

    @property
    def training_only(self) -> dict[str, SparseFeature | DenseFeature]:
        """The features whose values in the log are for training only."""
        return {
            name: feature
            for name, feature in self.features.items()
            if isinstance(feature, SparseFeature | DenseFeature)
            and feature.training_only is not None
        }

    def id_columns(self) -> Iterator[IdColumn]:
        """Go through every column of ids, those of sequences included."""
        for name, feature in self.features.items():
            if isinstance(feature, SparseFeature):
                table = feature.table or name
                yield self._id_column(name, None, feature.column or name, table, feature)
            elif isinstance(feature, SequenceFeature):
                for inner, column in feature.columns.items():
                    at = column.column or f"{name}_{inner}"
                    table = column.table or f"{name}.{inner}"
                    yield self._id_column(name, inner, at, table, column)

    def tables(self) -> dict[str, IdSource]:
        """Give the definition of each table that stands by itself: how values become its rows."""
        return {
            c.table: c.source
            for c in self.id_columns()
            if c.source.defines_table and c.lookups is None
        }

    def unified_tables(self) -> dict[str, int]:
        """Give the tables that the unified one keeps, in order -> rows of a value."""
        return {c.table: c.lookups for c in self.id_columns() if c.lookups is not None}

    def chain(self, task: str) -> list[str]:
        """Give the tasks whose product predicts `task`: itself first, then what it is given."""
        names = [task]
        while (given := self.tasks[names[-1]].given) is not None:
            names.append(given)
        return names

    def columns(self, *, labels: bool = True) -> list[str]:
        """List the columns of the log that are read, each once.

        Args:
            labels: Whether the columns of labels, masks and weights are among them.
        """
        found: dict[str, None] = {}
        for name, feature in self.features.items():
            if isinstance(feature, SequenceFeature):
                extra = (feature.time, feature.first_event)
                found.update(dict.fromkeys(c for c in extra if c))
            else:
                found[feature.column or name] = None
            if isinstance(feature, SparseFeature) and feature.weights:
                found[feature.weights] = None
        found.update(dict.fromkeys(column.column for column in self.id_columns()))
        found.update(dict.fromkeys(v for v in self.roles.to_dict().values() if v))
        if labels:
            found.update(dict.fromkeys(self.label_columns()))
        return list(found)

    def label_columns(self) -> list[str]:
        """List the columns that labels, masks and weights are made of, each once."""
        from rankloom.schema.labels import parse_expression

        found: dict[str, None] = {}
        for task in self.tasks.values():
            found[task.label_expression.column] = None
            if task.mask:
                found[parse_expression(task.mask).column] = None
            if task.weight:
                found[task.weight] = None
        return list(found)

    def digest_values(self) -> dict[str, Any]:
        """Give plain values that identify the schema."""
        # Options that came later are left out where they are not used, so that what was trained
        # before them is still known by its digest.
        values: dict[str, Any] = {
            "features": {
                n: _without(f.to_dict(), training_only=None) for n, f in self.features.items()
            },
            "roles": self.roles.to_dict(),
            "tasks": {n: _without(t.to_dict(), negatives_kept=1.0) for n, t in self.tasks.items()},
        }
        return values if self.unified is None else {**values, UNIFIED: self.unified.to_dict()}

    def _id_column(
        self, feature: str, name: str | None, column: str, table: str, source: IdSource
    ) -> IdColumn:
        lookups = None if self.unified is None else self.unified.lookups_of(table)
        return IdColumn(feature, name, column, table, source, lookups)

    def _name_problems(self) -> list[str]:
        # `.` parts paths and names of sequence columns, `/` metrics, `@` embedding sets.
        named = [(f"schema.{name}", name) for name in self.features]
        named += [(column.path, column.name) for column in self.id_columns() if column.name]
        named += [(f"tasks.{name}", name) for name in self.tasks]
        return [
            f"{path}: a name holds no `.`, `/` or `@`. Rename it; columns may be called anything."
            for path, name in named
            if not name or set(name) & set("./@")
        ]

    def _table_problems(self) -> list[str]:
        problems: list[str] = []
        defined: dict[str, IdColumn] = {}
        ways = ("num_embeddings", "vocabulary", "hash_buckets")
        columns = list(self.id_columns())
        for column in columns:
            if not column.source.defines_table:
                continue
            first = defined.setdefault(column.table, column)
            if any(getattr(first.source, w) != getattr(column.source, w) for w in ways):
                problems.append(
                    f"{column.path}: defines table {column.table!r} otherwise than {first.path}. "
                    "Define it once, and give only `table` elsewhere."
                )
        for column in columns:
            if column.table in defined or column.lookups is not None:
                continue
            if column.source.table is None:
                problems.append(
                    f"{column.path}: needs num_embeddings, vocabulary: {{}} or hash_buckets, or "
                    "the table of a feature that has one. Add one."
                )
                continue
            problems.append(
                f"{column.path}.table: no feature says how values become rows of "
                f"{column.table!r}.{did_you_mean(column.table, defined)} Add num_embeddings, "
                "vocabulary or hash_buckets."
            )
        for name, feature in self.dense.items():
            if isinstance(feature.encode, QuantileEncoding) and name in defined:
                problems.append(f"schema.{name}: a sparse feature's table has the same name.")
        return problems

    def _unified_problems(self) -> list[str]:
        if self.unified is None:
            return []
        kept = self.unified_tables()
        known = dict.fromkeys(column.table for column in self.id_columns())
        problems = []
        for option, names in self.unified.named.items():
            for name in names:
                where = f"model.embedding.unified.{option}"
                if name not in known:
                    hint = did_you_mean(name, known) or f" Known: {', '.join(known)}."
                    problems.append(f"{where}: no table of ids is named {name!r}.{hint}")
                elif name not in kept:
                    problems.append(f"{where}: {name!r} is not among its tables. Add it to tables.")
        taken = {column.path for column in self.id_columns() if column.table == UNIFIED}
        taken |= {f"schema.{name}" for name in self.dense if name == UNIFIED}
        problems += [
            f"{path}: the table that model.embedding.unified makes is named {UNIFIED!r}. Rename "
            "this one."
            for path in sorted(taken)
        ]
        return problems

    def _position_problems(self) -> list[str]:
        position = self.roles.position
        return [
            f"schema.{name}: reads {position!r}, roles.position, which is not known before rows "
            "are ranked. State what stands for it then: training_only: {serving_default: ...}."
            for name, feature in self.features.items()
            if isinstance(feature, SparseFeature | DenseFeature)
            and (feature.column or name) == position
            and feature.training_only is None
        ]

    def _task_problems(self) -> list[str]:
        problems: list[str] = []
        for name, task in self.tasks.items():
            if task.given is None:
                continue
            if isinstance(task, BinaryTask) and task.negatives_kept < 1:
                problems.append(
                    f"tasks.{name}.negatives_kept: is for a task that is given none. Got "
                    f"{task.negatives_kept}. State it of the task that the chain begins with."
                )
            given = self.tasks.get(task.given)
            where = f"tasks.{name}.given"
            if given is None:
                hint = did_you_mean(task.given, self.tasks)
                problems.append(f"{where}: no task is named {task.given!r}.{hint}")
            elif not isinstance(given, BinaryTask):
                problems.append(f"{where}: task {task.given!r} must be binary. It is positive.")
            elif self._is_circular(name):
                problems.append(f"{where}: the chain leads back to {name!r}. Break it.")
        return problems

    def _is_circular(self, name: str) -> bool:
        seen = {name}
        at: str | None = self.tasks[name].given
        while at in self.tasks and at not in seen:
            seen.add(at)
            at = self.tasks[at].given
        return at == name


def _without(values: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    """Leave out the options that have their default."""
    return {k: v for k, v in values.items() if k not in defaults or v != defaults[k]}
