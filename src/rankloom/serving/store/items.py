"""Items by id, in a folder that is mapped and not loaded.

    items.json            what is in it, with the digests of the other files
    items.arrow           an Arrow IPC file: one row an item, uncompressed
    index.safetensors     what finds the row of an id

Any tool that reads Arrow reads `items.arrow`. Processes that map the folder share its memory.

Shapes: K items, N candidates.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
from pydantic import PositiveInt, ValidationError

from rankloom.array_files import map_arrays
from rankloom.atomic import file_digest
from rankloom.config import Config, validation_problems
from rankloom.data.columns import Bools, Ints
from rankloom.data.hashing import Keys
from rankloom.data.key_index import KeyIndex, index_of_arrays
from rankloom.data.plain_lists import as_list
from rankloom.data.plain_values import PlainColumn
from rankloom.data.texts import Texts
from rankloom.errors import ArtifactError, DataError, RequestError, join_problems
from rankloom.serving.store.item_values import StoredValues, Values, stored_values

MANIFEST = "items.json"
TABLE = "items.arrow"
INDEX = "index.safetensors"
MAX_MANIFEST_BYTES = 1 << 24

_ADVICE = "Write it again with `rankloom items`, or restore it."


class ItemsManifest(Config):
    """What is in a folder of items."""

    format_version: Literal[1]
    """Of this format."""
    rankloom: str
    """Version that wrote it."""
    item: str
    """Column of the ids that items are looked up by."""
    columns: tuple[str, ...]
    """The columns that are looked up."""
    num_items: PositiveInt
    """Rows."""
    digests: dict[str, str]
    """File -> its sha256."""


@dataclass(frozen=True)
class FoundItems:
    """What is known of N candidates."""

    columns: dict[str, Values]
    """Column -> N values as a client would send them; of a missing item null, and zeros for a
    vector."""
    is_missing: Bools | None
    """(N,) or none, where no candidate is missing."""


class ItemFeatures(Protocol):
    """What looks up items."""

    @property
    def item(self) -> str:
        """Give the column of the ids."""
        ...

    @property
    def columns(self) -> Sequence[str]:
        """Give the columns that it has."""
        ...

    def look_up(self, ids: Values, columns: Sequence[str]) -> FoundItems:
        """Look up N candidates.

        Args:
            ids: (N,) a null one is a missing item.
            columns: Some of those that it has.

        Raises:
            RequestError: An id is of another type than the items'.
        """
        ...


class ItemStore:
    """Items of one folder.

    Args:
        folder: As `export_items` writes it.
        check_digests: Whether all files are read, to be sure that they are whole. One process of
            several that share the folder may do so for all.

    Raises:
        ArtifactError: It is missing, damaged or of another format.
    """

    def __init__(self, folder: Path, *, check_digests: bool = True) -> None:
        self.folder = folder
        self.manifest = _read_manifest(folder)
        if check_digests:
            _check_digests(folder, self.manifest)
        try:
            # Kept, as the columns lie in it.
            self._file = pa.memory_map(str(folder / TABLE))
            self.schema = pa.ipc.open_file(self._file).schema
            """Types of the columns."""
            batch = pa.ipc.open_file(self._file).get_batch(0)
            batch.validate()
            self._index: KeyIndex = index_of_arrays(map_arrays(folder / INDEX))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise ArtifactError(f"{folder}: cannot be read ({error}). {_ADVICE}") from None
        if batch.schema.names != list(self.manifest.columns) or self._num_keys != len(batch):
            raise ArtifactError(f"{folder}: its files do not fit each other. {_ADVICE}")
        self._values: dict[str, StoredValues] = {
            name: stored_values(batch.column(name)) for name in self.manifest.columns
        }

    @property
    def item(self) -> str:
        """Give the column of the ids."""
        return self.manifest.item

    @property
    def columns(self) -> Sequence[str]:
        """Give the columns that it has."""
        return self.manifest.columns

    def __len__(self) -> int:
        return self.manifest.num_items

    def look_up(self, ids: Values, columns: Sequence[str]) -> FoundItems:
        """Look up N candidates.

        Args:
            ids: (N,) a null one is a missing item.
            columns: Some of those that it has.

        Raises:
            RequestError: An id is of another type than the items'.
        """
        keys, is_null = self._keys(ids)
        items: Ints = self._index.find(keys)
        unknown = items < 0 if is_null is None else (items < 0) | is_null
        is_missing = None
        if unknown.any():
            is_missing = unknown
            # Any item will do: it is given as null.
            items[unknown] = 0
        return FoundItems(
            {name: self._values[name].take(items, is_missing) for name in columns}, is_missing
        )

    def _keys(self, ids: Values) -> tuple[Keys, Bools | None]:
        """Give ids as keys of the index, with anything for null, and where null is."""
        is_text = self._index.is_text
        if is_text and isinstance(ids, Texts):
            return ids, None
        is_number = isinstance(ids, np.ndarray) and ids.dtype.kind != "O"
        values: Any = ids if is_number and not is_text else as_list(ids)
        is_null = None
        if isinstance(values, list | tuple) and any(one is None for one in values):
            is_null = np.array([one is None for one in values])
            values = [("" if is_text else 0) if one is None else one for one in values]
        column = PlainColumn(self.item, values, "candidates")
        rule = f"must be a {'text' if is_text else 'whole number'}, as the items' ids are"
        try:
            if not is_text:
                return column.whole_numbers(rule=rule, advice="Cast it."), is_null
            column.check([isinstance(one, str) for one in values], rule=rule, advice="Cast it.")
            return Texts.of(values), is_null
        except DataError as error:
            raise RequestError(str(error)) from None
        except UnicodeEncodeError:
            raise RequestError(
                f"candidates: column {self.item!r} holds half a surrogate pair. Decode it anew."
            ) from None

    @property
    def _num_keys(self) -> int:
        """Count the keys of the index."""
        arrays = self._index.arrays()
        if "positions" in arrays:
            return int(arrays["positions"].max()) + 1
        return len(arrays["hashes"])


def _read_manifest(folder: Path) -> ItemsManifest:
    """Read what is in a folder.

    Raises:
        ArtifactError: It is missing or damaged.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ValueError("it is too large")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArtifactError(
            f"{path}: cannot be read. Got: {reason}. Name a folder written by `rankloom items`."
        ) from None
    try:
        return ItemsManifest.model_validate(values)
    except ValidationError as error:
        problems = validation_problems(error)
        raise ArtifactError(join_problems(problems, where=str(path))) from None


def _check_digests(folder: Path, manifest: ItemsManifest) -> None:
    """Check that all files are as they were written.

    Raises:
        ArtifactError: One is missing or was changed; all such are named.
    """
    problems = []
    for name in (TABLE, INDEX):
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing. {_ADVICE}")
        elif file_digest(path) != manifest.digests.get(name):
            problems.append(f"{name} was changed since it was written. {_ADVICE}")
    if problems:
        raise ArtifactError(join_problems(problems, where=str(folder)))
