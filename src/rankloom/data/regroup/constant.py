"""Which columns are constant within every request: proven by comparing each row with the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rankloom.data.columns import Bools
from rankloom.data.raw import list_lengths
from rankloom.data.regroup.arrange import Piece
from rankloom.data.uses import is_list_type
from rankloom.errors import SchemaError, join_problems


@dataclass(frozen=True)
class Variation:
    """The first place where a column varies within a request."""

    first_row: int
    """Of the request, in the log."""
    values: pa.Array
    """(2,) the values that differ."""


def find_variations(
    pieces: Iterator[Piece], names: Sequence[str], *, report: Callable[[int], None]
) -> dict[str, Variation]:
    """Find the columns that vary within a request.

    Null equals null, NaN equals NaN, and 0.0 differs from -0.0: a value that stands for all of its
    request's must give them back.

    Args:
        pieces: With all rows.
        names: The columns to look at.
        report: Told of the rows read so far.

    Returns:
        Column -> where it varies first.
    """
    found: dict[str, Variation] = {}
    last: Piece | None = None
    done = 0
    for piece in pieces:
        if last is not None:
            pair = pa.Table.from_batches([last.batch, piece.batch.slice(0, 1)]).combine_chunks()
            first_rows = np.append(last.first_rows, piece.first_rows[0])
            _look_at(Piece(pair.to_batches()[0], first_rows), names, found)
        _look_at(piece, names, found)
        num_rows = len(piece.first_rows)
        last = piece.cut(num_rows - 1, num_rows)
        done += num_rows
        report(done)
        if len(found) == len(names):
            break
    return found


def check_column_types(schema: pa.Schema) -> None:
    """Check that values of each column can be compared and taken.

    Raises:
        SchemaError: Arrow cannot, for the types of some columns; all are named.
    """
    problems = []
    for field in schema:
        try:
            nulls = pa.nulls(2, field.type)
            unequal(nulls, nulls)
            nulls.take(pa.array([0]))
        except (pa.ArrowNotImplementedError, NotImplementedError):
            problems.append(
                f"column {field.name!r} has a type that cannot be regrouped. Got {field.type}. "
                "Cast it in preparation, a view to string."
            )
    if problems:
        raise SchemaError(join_problems(problems, where="data"))


def _look_at(piece: Piece, names: Sequence[str], found: dict[str, Variation]) -> None:
    same_request = piece.first_rows[1:] == piece.first_rows[:-1]
    if not same_request.any():
        return
    for name in names:
        if name in found:
            continue
        column = piece.batch.column(name)
        bad = unequal(column.slice(0, len(column) - 1), column.slice(1)) & same_request
        if bad.any():
            at = int(bad.argmax())
            found[name] = Variation(int(piece.first_rows[at]), column.slice(at, 2))


def unequal(left: pa.Array, right: pa.Array) -> Bools:
    """Compare two arrays of one type, value by value.

    Returns:
        (n,) whether the values differ, as `find_variations` says.
    """
    kind = left.type
    if pa.types.is_null(kind):
        return np.zeros(len(left), np.bool_)
    if pa.types.is_dictionary(kind):
        return unequal(left.dictionary_decode(), right.dictionary_decode())
    if pa.types.is_map(kind):
        as_list = pa.list_(pa.struct([kind.key_field, kind.item_field]))
        return unequal(left.cast(as_list), right.cast(as_list))
    result = np.zeros(len(left), np.bool_)
    if left.null_count or right.null_count:
        result = _numpy(left.is_null()) != _numpy(right.is_null())
    if is_list_type(kind):
        return _unequal_lists(left, right, result)
    if pa.types.is_struct(kind):
        for one, other in zip(left.flatten(), right.flatten(), strict=True):
            result |= unequal(one, other)
        return result
    if pa.types.is_floating(kind):
        ones, others = (array.to_numpy(zero_copy_only=False) for array in (left, right))
        bits = f"u{ones.dtype.itemsize}"
        # A null reads as NaN here: equal to another one, and to NaN, which `result` tells apart.
        result |= (ones.view(bits) != others.view(bits)) & ~(np.isnan(ones) & np.isnan(others))
        return result
    differs = pc.not_equal(left, right)
    if pc.any(differs).as_py():
        result |= _numpy(pc.fill_null(differs, False))
    return result


def _unequal_lists(left: pa.Array, right: pa.Array, is_unequal: Bools) -> Bools:
    lengths = list_lengths(left)
    is_unequal |= lengths != list_lengths(right)
    alike = np.flatnonzero(~is_unequal)
    if len(alike) < len(lengths):
        # What remains has lists of equal lengths, so that their entries stand side by side.
        kept = pa.array(~is_unequal)
        left, right, lengths = left.filter(kept), right.filter(kept), lengths[alike]
    entries = unequal(left.flatten(), right.flatten())
    if entries.any():
        is_unequal[np.repeat(alike, lengths)[entries]] = True
    return is_unequal


def _numpy(array: pa.BooleanArray) -> Bools:
    values: Bools = array.to_numpy(zero_copy_only=False)
    return values
