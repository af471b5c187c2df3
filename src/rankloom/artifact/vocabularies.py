"""The vocabularies of an artifact, used where they lie in its file; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from rankloom.array_files import map_arrays
from rankloom.data.key_index import KeyIndex, index_of_arrays
from rankloom.errors import ArtifactError


def read_indexes(path: Path, tables: Sequence[str]) -> dict[str, KeyIndex]:
    """Map the indexes of vocabularies' keys.

    Args:
        path: `vocabularies.safetensors`; not read where there are no tables.
        tables: Those that have a vocabulary.

    Raises:
        ArtifactError: The file is missing or damaged, or a vocabulary is.
    """
    if not tables:
        return {}
    try:
        mapped = map_arrays(path)
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path}: cannot be read ({error}). Export the run again, or restore the file."
        ) from None
    arrays: dict[str, dict[str, npt.NDArray[Any]]] = {}
    for name, array in mapped.items():
        table, _, part = name.rpartition("/")
        arrays.setdefault(table, {})[part] = array
    found = {}
    for table in tables:
        try:
            found[table] = index_of_arrays(arrays[table])
        except KeyError:
            raise ArtifactError(f"{path}: has no vocabulary of table {table!r}.") from None
        except ValueError as error:
            raise ArtifactError(f"{path}: vocabulary of table {table!r}: {error}.") from None
    return found
