"""The official files of Ali-CCP: rows and the features that many rows share, joined out of core.

A line of `sample_skeleton_*.csv` is a row: its number, click, purchase, key of its common features,
number of features, features. A line of `common_features_*.csv` is the key, number of features,
features. A feature is `field 0x02 id 0x03 number`; 0x01 stands between features.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rankloom.data.columns import Ints
from rankloom.data.datasets.delimited import Piece, read_delimited
from rankloom.data.datasets.list_store import ListStore, list_array

ROWS = {
    "row": pa.string(),
    "click": pa.int64(),
    "purchase": pa.int64(),
    "common": pa.string(),
    "num_features": pa.int64(),
    "features": pa.string(),
}
COMMON = {"common": pa.string(), "num_features": pa.int64(), "features": pa.string()}

_FEATURE = (
    r"^(?P<field>[0-9_]+)\x02(?P<id>[0-9]{1,18})\x03(?P<number>-?[0-9.]+(?:[eE][-+]?[0-9]+)?)$"
)


@dataclass(frozen=True)
class Features:
    """The features of some lines, in their order."""

    line: Ints
    """(V,) each feature's line, from 0 on."""
    field: Ints
    """(V,) place of its field among those asked for."""
    ids: Ints
    """(V,)."""
    numbers: npt.NDArray[np.float32]
    """(V,)."""
    num_lines: int

    def one(self, field: int) -> pa.Array:
        """Give (lines,) each line's id of a field, the first where there are several, or null."""
        chosen = np.flatnonzero(self.field == field)
        line, first = np.unique(self.line[chosen], return_index=True)
        ids, is_missing = np.zeros(self.num_lines, np.int64), np.ones(self.num_lines, bool)
        ids[line], is_missing[line] = self.ids[chosen[first]], False
        return pa.array(ids, mask=is_missing)

    def several(self, field: int) -> tuple[Ints, Ints, npt.NDArray[np.float32]]:
        """Give (lines,) how many of a field each line has, their ids and their numbers."""
        chosen = self.field == field
        lengths = np.bincount(self.line[chosen], minlength=self.num_lines)
        return lengths, self.ids[chosen], self.numbers[chosen]


def parse_features(piece: Piece, fields: Collection[str]) -> Features:
    """Take the column `features` apart.

    Args:
        piece: Of either file.
        fields: All that may occur.

    Raises:
        DataError: A line reads otherwise, or has another field.
    """
    parts = pc.split_pattern(pc.fill_null(piece.rows.column("features"), ""), "\x01")
    line = pc.list_parent_indices(parts).to_numpy()
    parts = pc.list_flatten(parts)
    is_filled = pc.not_equal(parts, "")
    line = line[is_filled.to_numpy(zero_copy_only=False)]
    cells = pc.extract_regex(parts.filter(is_filled), _FEATURE)
    _refuse(piece, line, cells.is_null(), "must hold features as field 0x02 id 0x03 number")
    field = pc.index_in(pc.struct_field(cells, "field"), pa.array(list(fields)))
    _refuse(piece, line, field.is_null(), f"must hold features of {', '.join(fields)} only")
    return Features(
        line=line,
        field=field.to_numpy().astype(np.int64),
        ids=pc.cast(pc.struct_field(cells, "id"), pa.int64()).to_numpy(),
        numbers=pc.cast(pc.struct_field(cells, "number"), pa.float32()).to_numpy(),
        num_lines=len(piece.rows),
    )


def _refuse(piece: Piece, line: Ints, is_bad: pa.Array, rule: str) -> None:
    bad = np.zeros(len(piece.rows), bool)
    bad[line[is_bad.to_numpy(zero_copy_only=False)]] = True
    piece.refuse("features", bad, rule=rule)


class CommonFeatures:
    """The lines of a `common_features_*.csv`, found by their keys; lists stay on disk.

    Args:
        path: The file.
        scratch: Folder for temporary files.
        one: Fields with at most one id a line.
        several: Fields with any number.
        advice: Ends the message of an error.
        report: Called with each line of progress.

    Raises:
        DataError: The file is damaged.
    """

    def __init__(
        self,
        path: Path,
        *,
        scratch: Path,
        one: Collection[str],
        several: Collection[str],
        advice: str,
        report: Callable[[str], None],
    ) -> None:
        self.path, self.fields = path, (*one, *several)
        self._stores = {
            field: ListStore(
                scratch, f"{path.stem}.{field}", {"ids": np.int64, "numbers": np.float32}
            )
            for field in several
        }
        keys: list[pa.Array] = []
        singles: dict[str, list[pa.Array]] = {field: [] for field in one}
        for piece in read_delimited(path, COMMON, has_header=False, advice=advice, report=report):
            features = parse_features(piece, self.fields)
            keys.append(piece.rows.column("common"))
            for field, arrays in singles.items():
                arrays.append(features.one(self.fields.index(field)))
            for field, store in self._stores.items():
                lengths, ids, numbers = features.several(self.fields.index(field))
                store.add(lengths, {"ids": ids, "numbers": numbers})
        for store in self._stores.values():
            store.seal()
        self._keys = pa.concat_arrays(keys) if keys else pa.array([], pa.string())
        self._singles = {
            field: pa.concat_arrays(arrays) if keys else pa.array([], pa.int64())
            for field, arrays in singles.items()
        }

    def find(self, piece: Piece) -> Ints:
        """Give each row's (rows,) line of the common features.

        Raises:
            DataError: A row's key is not in the file.
        """
        found = pc.index_in(piece.rows.column("common"), self._keys)
        piece.refuse("common", found.is_null(), rule=f"must be a key of {self.path.name}")
        lines: Ints = found.to_numpy().astype(np.int64)
        return lines

    def keys(self, lines: Ints) -> pa.Array:
        """Give (n,) keys of some lines."""
        return self._keys.take(pa.array(lines))

    def one(self, field: str, lines: Ints) -> pa.Array:
        """Give (n,) ids of a field of some lines, null where there is none."""
        return self._singles[field].take(pa.array(lines))

    def several(self, field: str, lines: Ints) -> tuple[pa.Array, pa.Array]:
        """Give (n,) lists of a field's ids and of their numbers, of some lines."""
        store = self._stores[field]
        starts, lengths = store.offsets[lines], np.diff(store.offsets)[lines]
        return (
            list_array(lengths, store.take("ids", starts, lengths)),
            list_array(lengths, store.take("numbers", starts, lengths)),
        )


def read_requests(
    path: Path, *, flags: Collection[str], advice: str, report: Callable[[str], None]
) -> Iterator[Piece]:
    """Read a `sample_skeleton_*.csv` in pieces that cut no run of rows with the same key.

    Raises:
        DataError: The file is damaged.
    """
    held: Piece | None = None
    for piece in read_delimited(
        path, ROWS, has_header=False, flags=flags, advice=advice, report=report
    ):
        if held is not None:
            rows = pa.concat_batches([held.rows, piece.rows])
            piece = Piece(path, held.first_line, rows, advice)
        last = int(run_starts(piece.rows.column("common"))[-1])
        if last:
            yield Piece(path, piece.first_line, piece.rows.slice(0, last), advice)
        held = Piece(path, piece.first_line + last, piece.rows.slice(last), advice)
    if held is not None:
        yield held


def run_starts(keys: pa.Array) -> Ints:
    """Give (runs,) where each run of equal keys starts; there is at least one key."""
    differs = pc.not_equal(keys.slice(1), keys.slice(0, len(keys) - 1))
    changes = pc.fill_null(differs, fill_value=True).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], 1 + np.flatnonzero(changes)])
