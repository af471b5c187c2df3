"""Writing a folder of items from Parquet files: a catalogue, or a training log.

An item of several lines has the values of its last one: a log is in the order of time, and the last
values are the newest. The source is read twice, a piece at a time: for the last line of each id,
and for the values of those lines. Held in memory is what is written, once, and its largest column.

Shapes: K items.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from safetensors.numpy import save

from rankloom.atomic import file_digest, is_occupied, new_folder
from rankloom.data.arrow_keys import keys_of, normalize_keys
from rankloom.data.columns import Ints
from rankloom.data.files import FileNames
from rankloom.data.key_index import KeyIndex, build_key_index
from rankloom.data.raw import RawColumn, check_same_lengths
from rankloom.data.regroup.log import Log, open_log
from rankloom.data.uses import (
    ColumnUse,
    Layout,
    check_types,
    feature_uses,
    is_list_type,
    role_use,
)
from rankloom.errors import ArtifactError, ConfigError, DataError, SchemaError, join_problems
from rankloom.schema import Schema
from rankloom.serving.store.fillable import fillable
from rankloom.serving.store.item_check import check_items
from rankloom.serving.store.items import INDEX, MANIFEST, TABLE, ItemsManifest, ItemStore

Report = Callable[[str, int, int], None]

CHUNK_LINES = 16_384
"""Read at a time."""
MERGE_ROWS = 1 << 20
"""Ids that are held before they are joined with those found so far, at least."""


@dataclass(frozen=True)
class ExportedItems:
    """What was written."""

    folder: Path
    """Where."""
    item: str
    """Column of the ids."""
    columns: tuple[str, ...]
    """What is looked up."""
    num_items: int
    """Different ids."""
    num_rows: int
    """Rows of the source."""
    num_nameless: int
    """Rows without an id, which were left out."""
    num_bytes: int
    """Of all files."""


def export_items(
    source: FileNames,
    to: Path,
    schema: Schema,
    *,
    item: str | None = None,
    columns: Sequence[str] | None = None,
    indexes: Mapping[str, KeyIndex],
    report: Report = lambda *_: None,
) -> ExportedItems:
    """Write what features of side item read, to be looked up by id; whole or not at all.

    Args:
        source: Parquet files or patterns: one line an item, or a flat or grouped log.
        to: Folder; must not be there yet.
        schema: Of the artifact that will score.
        item: Column of the ids; default: `roles.item`.
        columns: Some of the columns that features of side item read; default: all.
        indexes: Table -> index of its vocabulary's keys, to check that all items can be scored.
        report: Is told what is done, how much of it and of how much.

    Raises:
        ArtifactError: The folder is there already, or cannot be written.
        ConfigError: `item` or `columns` is wrong.
        DataError: The source cannot be read, or holds values that cannot be scored.
        SchemaError: Columns are missing or of the wrong type.
    """
    if is_occupied(to):
        raise ArtifactError(f"{to}: is there already. Remove it, or give another place with --to.")
    item, names = _chosen(schema, item, columns)
    rows = _Rows(open_log(source), item)
    rows.check(schema, names)
    keys, last_rows, num_nameless = _last_rows(rows, report)
    found = _values(rows, names, last_rows, report)
    try:
        with new_folder(to) as folder:
            _write(folder, {name: _packed(found.pop(name), name, schema) for name in names})
            (folder / INDEX).write_bytes(save(build_key_index(keys_of(keys)).arrays()))
            manifest = ItemsManifest(
                format_version=1,
                rankloom=importlib.metadata.version("rankloom"),
                item=item,
                columns=tuple(names),
                num_items=len(keys),
                digests={name: file_digest(folder / name) for name in (TABLE, INDEX)},
            )
            (folder / MANIFEST).write_text(json.dumps(manifest.to_dict(), indent=1))
            num_bytes = sum(path.stat().st_size for path in folder.iterdir())
            store = ItemStore(folder, check_digests=False)
            check_items(store, keys, schema, indexes, report=report)
    except OSError as error:
        raise ArtifactError(
            f"{to}: cannot be written ({error.strerror or error}). Free some space, or give "
            "another place."
        ) from error
    return ExportedItems(to, item, tuple(names), len(keys), rows.num_rows, num_nameless, num_bytes)


def _chosen(
    schema: Schema, item: str | None, columns: Sequence[str] | None
) -> tuple[str, list[str]]:
    """Choose the column of ids and those that are looked up.

    Raises:
        ConfigError: There is none, or one is no item's.
    """
    item = item or schema.roles.item
    if item is None:
        raise ConfigError("--item: the artifact states no roles.item. Name the column of the ids.")
    known = [name for name in fillable(schema, "item").columns if name != item]
    unknown = [name for name in columns or () if name not in known]
    if unknown:
        raise ConfigError(
            f"--columns: only features of side item are looked up. Got {', '.join(unknown)}. "
            f"Choose from: {', '.join(known) or 'none'}."
        )
    names = [name for name in known if columns is None or name in columns]
    if not names:
        raise ConfigError(
            f"--columns: at least one must be looked up. Got none beside the id {item!r}. "
            "An artifact whose items have no other feature needs no items."
        )
    return item, names


class _Rows:
    """A log's rows, whatever its layout.

    Args:
        log: Of any columns.
        item: Column of the ids.
    """

    def __init__(self, log: Log, item: str) -> None:
        self.log, self.item = log, item
        self.num_rows = 0
        """Rows, once all were read."""
        kinds = log.schemas[0]
        is_grouped = item in kinds.names and is_list_type(kinds.field(item).type)
        self.layout: Layout = "grouped" if is_grouped else "flat"

    def check(self, schema: Schema, columns: Sequence[str]) -> None:
        """Check that the columns are there, and of the types that features read.

        Raises:
            SchemaError: Some are not; all such are named.
        """
        uses: list[ColumnUse] = [role_use("item", self.item)]
        uses += [one for one in feature_uses(schema) if one.is_row and one.column in columns]
        problems = check_types(self.log.schemas[0], uses, self.layout)
        if problems:
            where = str(self.log.paths[0])
            if any("is missing" in one for one in problems):
                problems[-1] += " Columns that clients send are left out with --columns."
            raise SchemaError(join_problems(problems, where=where))

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[list[RawColumn], int]]:
        """Read columns of all rows, in order.

        Yields:
            Each column of some rows, the ids first; and the number of lines read so far.

        Raises:
            DataError: A file cannot be read, or lists are not as long as the ids'.
        """
        lines = self.num_rows = 0
        for batch, origin in self.log.batches([self.item, *columns], CHUNK_LINES):
            found = [RawColumn(name, batch.column(name), origin) for name in (self.item, *columns)]
            if self.layout == "grouped":
                opened = [one.lists() for one in found]
                for offsets, entries in opened[1:]:
                    check_same_lengths(opened[0][0], self.item, offsets, entries)
                found = [entries for _, entries in opened]
            lines += len(batch)
            self.num_rows += len(found[0])
            yield found, lines


def _last_rows(rows: _Rows, report: Report) -> tuple[pa.Array, Ints, int]:
    """Find the last row of each id.

    Returns:
        keys: (K,) ids in the order of their last rows.
        last_rows: (K,) ascending.
        num_nameless: Rows without an id.
    """
    held: list[pa.Table] = []
    num_held = num_joined = num_nameless = first = 0
    for (ids,), lines in rows.batches([]):
        array = ids.array
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        keys = normalize_keys(array, where=f"{ids.origin.name}: column {ids.name!r}")
        numbers = pa.array(np.arange(first, first + len(keys)))
        first += len(keys)
        num_nameless += keys.null_count
        held.append(pa.table({"key": keys, "row": numbers}).filter(pc.is_valid(keys)))
        num_held += len(held[-1])
        if num_held > max(2 * num_joined, MERGE_ROWS):
            held = [_joined(held)]
            num_held = num_joined = len(held[0])
        report("finding items", lines, rows.log.num_lines)
    if not num_held:
        raise DataError(f"{rows.log.paths[0]}: names no item. Got no row with an id. Add some.")
    found = _joined(held).sort_by("row").combine_chunks()
    return (
        found["key"].combine_chunks(),
        found["row"].combine_chunks().to_numpy(),
        num_nameless,
    )


def _joined(tables: list[pa.Table]) -> pa.Table:
    """Keep the last row of each id."""
    whole = pa.concat_tables(tables).group_by("key", use_threads=False)
    return whole.aggregate([("row", "max")]).rename_columns({"row_max": "row"})


def _values(
    rows: _Rows, columns: Sequence[str], wanted: Ints, report: Report
) -> dict[str, list[pa.Array]]:
    """Read the columns of some rows.

    Args:
        rows: Of the source.
        columns: Their names.
        wanted: (K,) ascending numbers of rows.
        report: Is told of the lines.
    """
    found: dict[str, list[pa.Array]] = {name: [] for name in columns}
    first = 0
    for (ids, *values), lines in rows.batches(columns):
        from_, to = np.searchsorted(wanted, [first, first + len(ids)])
        picked = pa.array(wanted[from_:to] - first)
        for one in values:
            found[one.name].append(_plain(one, picked))
        first += len(ids)
        report("reading items", lines, rows.log.num_lines)
    return found


def _plain(column: RawColumn, picked: pa.Array) -> pa.Array:
    """Take rows out of a column, in one of the types that are stored."""
    array = column.array.take(picked)
    try:
        return pc.cast(array, _stored_type(array.type))
    except pa.ArrowException as error:
        raise DataError(
            f"{column.origin.name}: column {column.name!r} is {array.type} and cannot be stored. "
            f"Got: {error}. Cast it in preparation."
        ) from error


def _stored_type(kind: pa.DataType) -> pa.DataType:
    if is_list_type(kind):
        return pa.large_list(_stored_type(kind.value_type))
    if pa.types.is_dictionary(kind):
        return _stored_type(kind.value_type)
    if pa.types.is_boolean(kind):
        return pa.uint8()
    if pa.types.is_decimal(kind):
        return pa.float64()
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return kind
    return pa.large_string()


def _packed(parts: list[pa.Array], name: str, schema: Schema) -> pa.Array:
    """Join a column's parts; vectors stand side by side."""
    array = pa.concat_arrays(parts)
    parts.clear()
    dims = {one.dim for key, one in schema.vectors.items() if (one.column or key) == name}
    lengths = pc.unique(pc.list_value_length(array).drop_null()) if dims else None
    if lengths is not None and lengths.to_pylist() == list(dims):
        return pc.cast(array, pa.list_(array.type.value_type, dims.pop()))
    return array


def _write(folder: Path, columns: Mapping[str, pa.Array]) -> None:
    # One batch, so that the row of an item is its place in every column.
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    with pa.ipc.new_file(str(folder / TABLE), batch.schema) as file:
        file.write_batch(batch)
