"""What fitting on the training log gives: vocabularies, and the statistics numbers are encoded by.

The reader turns ids into rows with it; the embedder takes the statistics into its encodings. On
disk it is a folder: one Parquet file per vocabulary, named by its content, and `transforms.json`,
written last.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankloom.data.id_rows import FIRST_HASH_ROW, unified_sizes
from rankloom.data.statistics import (
    Moments,
    Quantiles,
    Statistics,
    statistics_from_dict,
    statistics_to_dict,
)
from rankloom.data.vocabulary import Vocabulary
from rankloom.errors import DataError, SchemaError, join_problems
from rankloom.schema import LinearEncoding, QuantileEncoding, Schema

FORMAT_VERSION = 1
FILE_NAME = "transforms.json"


@dataclass(frozen=True)
class Transforms:
    """Fitted values of a schema.

    Example:
        >>> Transforms().statistics
        {}
    """

    vocabularies: dict[str, Vocabulary] = field(default_factory=dict)
    """Table -> its vocabulary."""
    statistics: dict[str, Statistics] = field(default_factory=dict)
    """Dense feature -> what its encoding needs."""

    @property
    def digest(self) -> str:
        """Sha256 over all values, in hexadecimal."""
        return _digest(self._content())

    def _content(self) -> dict[str, Any]:
        statistics = {name: statistics_to_dict(one) for name, one in self.statistics.items()}
        vocabularies = {table: v.digest for table, v in self.vocabularies.items()}
        return {"vocabularies": vocabularies, "statistics": statistics}

    def save(self, folder: Path) -> None:
        """Write the folder; what `load` finds there is the old content or the new, never a mixture.

        Raises:
            DataError: The folder cannot be written to, or the disk is full.
        """
        content = self._content()
        for vocabulary in self.vocabularies.values():
            vocabulary.save(_vocabulary_path(folder, vocabulary.digest))
        about = {"format_version": FORMAT_VERSION, "digest": _digest(content), **content}
        _write_text(folder / FILE_NAME, json.dumps(about, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Transforms:
        """Read what `save` wrote.

        Raises:
            DataError: A file is missing, damaged or of a newer format.
        """
        path = folder / FILE_NAME
        advice = "Fit again, or restore the folder."
        try:
            about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read. Got: {error}. {advice}") from error
        if not isinstance(about, dict) or about.get("format_version") != FORMAT_VERSION:
            version = about.get("format_version") if isinstance(about, dict) else None
            raise DataError(
                f"{path}: must have format_version {FORMAT_VERSION}. Got {version}. "
                "Use the version of rankloom that wrote it, or fit again."
            )
        content = {key: about.get(key) for key in ("vocabularies", "statistics")}
        if _digest(content) != about.get("digest"):
            raise DataError(
                f"{path}: its content does not match its digest. Got {_digest(content)}, the file "
                f"says {about.get('digest')}. {advice}"
            )
        vocabularies = {
            table: _load_vocabulary(_vocabulary_path(folder, digest), digest)
            for table, digest in about["vocabularies"].items()
        }
        statistics = {
            name: statistics_from_dict(values) for name, values in about["statistics"].items()
        }
        return cls(vocabularies, statistics)


def check_fitted(schema: Schema, transforms: Transforms) -> None:
    """Check that everything a schema needs fitted is there.

    Raises:
        SchemaError: Some is not; all that lack are named.
    """
    problems = [
        f"table {table!r} has no vocabulary."
        for table, source in schema.tables().items()
        if source.vocabulary is not None and table not in transforms.vocabularies
    ]
    for name, feature in schema.dense.items():
        needed = statistics_of(feature.encode)
        if needed is not None and not isinstance(transforms.statistics.get(name), needed):
            problems.append(f"dense feature {name!r} has no {needed.__name__.lower()}.")
    if problems:
        advice = "Fit on the training log with this schema."
        raise SchemaError(f"{join_problems(problems, where='transforms')}\n{advice}")


def statistics_of(encoding: object) -> type[Moments | Quantiles] | None:
    """Give the kind of statistics that an encoding needs, if any."""
    if isinstance(encoding, LinearEncoding) and encoding.standardize:
        return Moments
    return Quantiles if isinstance(encoding, QuantileEncoding) else None


def table_sizes(schema: Schema, transforms: Transforms) -> dict[str, int]:
    """Give each table's number of rows.

    Raises:
        SchemaError: A table's vocabulary was not fitted.
    """
    check_fitted(schema, transforms)
    sizes = unified_sizes(schema)
    for table, source in schema.tables().items():
        if source.num_embeddings is not None:
            sizes[table] = source.num_embeddings
        elif source.hash_buckets is not None:
            sizes[table] = FIRST_HASH_ROW + source.hash_buckets
        else:
            sizes[table] = transforms.vocabularies[table].num_embeddings
    return sizes


def _load_vocabulary(path: Path, digest: str) -> Vocabulary:
    vocabulary = Vocabulary.load(path)
    if vocabulary.digest != digest:
        raise DataError(
            f"{path}: is not the vocabulary that {FILE_NAME} names. Got digest "
            f"{vocabulary.digest}. Fit again, or restore the folder."
        )
    return vocabulary


def _vocabulary_path(folder: Path, digest: str) -> Path:
    return folder / f"vocabulary-{digest[:16]}.parquet"


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written. Got: {error}. "
            "Free space, or choose a folder that you may write to."
        ) from error
