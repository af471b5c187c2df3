"""From lines of a log to decoded blocks: one path for training, evaluation and given rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa

from rankloom.data.batch import Batch
from rankloom.data.columns import Block, Column, Ints, Key, Plain, join_blocks
from rankloom.data.decode import (
    IdMapping,
    decode_keys,
    decode_numbers,
    decode_sparse,
    decode_vectors,
)
from rankloom.data.events import RawEvents, decode_events
from rankloom.data.id_rows import Way, ways_of
from rankloom.data.labels import decode_task
from rankloom.data.raw import Origin, RawColumn, check_same_lengths
from rankloom.data.serving_default import serving_value
from rankloom.data.tensors import to_batch
from rankloom.data.transforms import Transforms, check_fitted
from rankloom.data.uses import (
    ColumnUse,
    Layout,
    check_sides,
    check_types,
    check_vocabulary_types,
    feature_uses,
    is_list_type,
    is_row_side,
    label_uses,
)
from rankloom.errors import DataError, SchemaError, join_problems
from rankloom.schema import (
    DenseFeature,
    Feature,
    IdSource,
    QuantileEncoding,
    Schema,
    SequenceFeature,
    Side,
    SparseFeature,
    VectorFeature,
)


@dataclass
class _Lines:
    """Lines of a log in Arrow, opened to the level each column has."""

    batch: pa.RecordBatch
    origin: Origin
    layout: Layout
    row_offsets: Ints | None = None
    """Rows of each line; found by the first column with one entry per row."""
    _first: str = ""
    _opened: dict[str, RawColumn] = field(default_factory=dict)

    def request(self, name: str) -> RawColumn:
        """Give a column with one value per line."""
        array = self.batch.column(name)
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        return RawColumn(name, array, self.origin)

    def row(self, name: str) -> RawColumn:
        """Give a column with one value per row."""
        if self.layout == "flat":
            return self.request(name)
        if name not in self._opened:
            offsets, entries = self.request(name).lists()
            if self.row_offsets is None:
                self.row_offsets, self._first = offsets, name
            check_same_lengths(self.row_offsets, self._first, offsets, entries)
            self._opened[name] = entries
        return self._opened[name]

    def count(self, side: Side) -> int:
        """Count the lines, or the rows, whichever a side has a value for."""
        if self.row_offsets is None or not is_row_side(side):
            return int(self.batch.num_rows)
        return int(self.row_offsets[-1])

    def at(self, side: Side, name: str) -> RawColumn:
        """Give a column at the level of its side."""
        return self.row(name) if is_row_side(side) else self.request(name)


class Decoder:
    """Decodes lines of a log as a schema says.

    Args:
        schema: Features, tasks and roles.
        transforms: Fitted for the schema.
        layout: How the log is stored.
        with_labels: Whether to decode labels, masks and weights.
        training: Whether to read training-only features; else they have their serving default,
            whatever the log says.
        keys: Columns to give as `Batch.keys`.

    Raises:
        SchemaError: Something the schema needs was not fitted, a history is of side item or cross,
            or a serving default is no value of its feature.
    """

    def __init__(
        self,
        schema: Schema,
        transforms: Transforms,
        *,
        layout: Layout = "flat",
        with_labels: bool = True,
        training: bool = False,
        keys: Sequence[str] = (),
    ) -> None:
        check_sides(schema)
        check_fitted(schema, transforms)
        self.schema = schema
        self.transforms = transforms
        self.layout = layout
        self.with_labels = with_labels
        self.training = training
        self.keys = tuple(keys)
        uses = self.uses()
        self.columns = list(dict.fromkeys([*(use.column for use in uses), *keys]))
        """Columns of the log that are read."""
        # One column with an entry per row opens a grouped log; every block needs its offsets.
        self._row_column = next((use.column for use in uses if use.is_row), None)
        ways = ways_of(schema)
        self._mappings = {
            (at.feature, at.name): _mapping(at.source, ways[at.table], at.table, transforms)
            for at in schema.id_columns()
        }
        # Computed in training too, so that a wrong one is found before any step.
        defaults = {
            name: serving_value(name, feature, self._mappings.get((name, None)))
            for name, feature in schema.training_only.items()
        }
        self._constants = {} if training else defaults

    def uses(self) -> list[ColumnUse]:
        """List what is read of a log."""
        uses = feature_uses(self.schema, training=self.training)
        return uses + (label_uses(self.schema) if self.with_labels else [])

    def decode(self, batch: pa.RecordBatch, origin: Origin) -> Block:
        """Decode lines.

        Args:
            batch: Has all of `columns`, of types that `check_types` lets pass.
            origin: Where the lines come from.

        Raises:
            DataError: Values are not allowed; one line for each column that holds such.
        """
        lines = _Lines(batch, origin, self.layout)
        if self.layout == "grouped":
            if self._row_column is None:
                raise SchemaError(
                    "schema: a grouped log needs a column with one entry per candidate. Got none "
                    "of side item or cross. Add one, or read the log as flat."
                )
            lines.row(self._row_column)
        requests: dict[Key, Column] = {}
        rows: dict[Key, Column] = {}
        problems = []
        for is_row, decode_part in self._parts(lines):
            try:
                (rows if is_row else requests).update(decode_part())
            except DataError as error:
                problems.append(str(error))
        if problems:
            raise DataError(join_problems(problems, where="data" if problems[1:] else ""))
        return Block(
            requests=requests,
            rows=rows,
            row_offsets=lines.row_offsets,
            num_requests=batch.num_rows,
        )

    def _parts(self, lines: _Lines) -> Iterator[tuple[bool, Callable[[], dict[Key, Column]]]]:
        """Give what there is to decode, and whether it has one entry per row."""
        for name, feature in self.schema.features.items():
            yield is_row_side(feature.side), partial(self._feature, lines, name, feature)
        if self.with_labels:
            for name, task in self.schema.tasks.items():
                yield True, partial(decode_task, name, task, lines.row)
        for key in self.keys:
            yield True, partial(self._key, lines, key)

    def _feature(self, lines: _Lines, name: str, feature: Feature) -> dict[Key, Column]:
        if isinstance(feature, SequenceFeature):
            return self._sequence(lines, name, feature)
        if name in self._constants:
            field, value = self._constants[name]
            return {(field, name): Plain(value.repeat(lines.count(feature.side), axis=0))}
        raw = lines.at(feature.side, feature.column or name)
        if isinstance(feature, SparseFeature):
            mapping = self._mappings[name, None]
            if feature.pooling is None:
                return {("ids", name): Plain(mapping.rows(raw))}
            weights = lines.at(feature.side, feature.weights) if feature.weights else None
            return {("ids", name): decode_sparse(raw, weights, mapping=mapping)}
        if isinstance(feature, DenseFeature):
            keep_missing = isinstance(feature.encode, QuantileEncoding)
            numbers = decode_numbers(raw, default=feature.default, keep_missing=keep_missing)
            return {("numbers", name): Plain(numbers)}
        assert isinstance(feature, VectorFeature)
        is_zeros = feature.default == "zeros"
        return {("vectors", name): decode_vectors(raw, dim=feature.dim, zeros_for_null=is_zeros)}

    def _sequence(self, lines: _Lines, name: str, feature: SequenceFeature) -> dict[Key, Column]:
        names = {inner: c.column or f"{name}_{inner}" for inner, c in feature.columns.items()}
        event_time = self.schema.roles.event_time if feature.time else None
        raw = RawEvents(
            columns={inner: lines.request(column) for inner, column in names.items()},
            time=lines.request(feature.time) if feature.time else None,
            first_event=lines.request(feature.first_event) if feature.first_event else None,
            event_time=lines.request(event_time) if event_time else None,
        )
        mappings = {inner: self._mappings[name, inner] for inner in names}
        return decode_events(name, raw, max_length=feature.max_length, mappings=mappings)

    def _key(self, lines: _Lines, name: str) -> dict[Key, Column]:
        kind = lines.batch.schema.field(name).type
        if self.layout == "flat" or is_list_type(kind):
            return {("keys", name): Plain(decode_keys(lines.row(name)))}
        assert lines.row_offsets is not None
        of_requests = decode_keys(lines.request(name))
        return {("keys", name): Plain(np.repeat(of_requests, np.diff(lines.row_offsets)))}


def _mapping(source: IdSource, way: Way, table: str, transforms: Transforms) -> IdMapping:
    has_vocabulary = isinstance(way, IdSource) and way.vocabulary is not None
    vocabulary = transforms.vocabularies[table] if has_vocabulary else None
    return IdMapping(way, source.default, vocabulary)


def decode_table(
    table: pa.Table | pa.RecordBatch, decoder: Decoder, *, where: str = "rows"
) -> Batch:
    """Make one batch of given lines, by the path that training takes.

    Args:
        table: At least one line; in a grouped one, empty requests are left out.
        decoder: For scoring, one without labels.
        where: What errors call the table.

    Raises:
        SchemaError: Columns are missing or of the wrong type; all are named.
        DataError: Values are not allowed, or there is no row.
    """
    uses = decoder.uses()
    problems = check_types(table.schema, uses, decoder.layout, keys=decoder.keys)
    problems += check_vocabulary_types(table.schema, uses, decoder.transforms.vocabularies)
    if problems:
        raise SchemaError(join_problems(problems, where=where))
    chosen = table.select(decoder.columns)
    batches = chosen.combine_chunks().to_batches() if isinstance(table, pa.Table) else [chosen]
    parts, first_line = [], 0
    for batch in batches:
        parts.append(decoder.decode(batch, Origin(where, first_line)))
        first_line += len(batch)
    counts = [part.num_rows_of_each() for part in parts]
    filled = np.flatnonzero(np.concatenate(counts)) if counts else np.empty(0, np.int64)
    if not len(filled):
        raise DataError(f"{where}: no rows. Give at least one.")
    return to_batch(join_blocks(parts, None if decoder.layout == "flat" else filled))
