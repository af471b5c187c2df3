"""The manifest: what an artifact is, and the digests of its files.

    artifacts/ml/
      manifest.json              this; written last
      weights.safetensors        tables by logical name, constants of the programs; mapped
      vocabularies.safetensors   what finds the keys of each vocabulary; mapped
      programs/user.json ...     what is computed at each rate
      golden.json                requests with the scores that they must be given
      golden.safetensors         what lies between: inputs, user and request state, logits

Nothing in it is ever unpickled, evaluated or imported.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from rankloom.atomic import file_digest
from rankloom.config import Config, validation_problems
from rankloom.embedding import EmbeddingConfig
from rankloom.errors import ArtifactError, SchemaError, join_problems
from rankloom.schema import AnyFeature, AnyTask, Roles, Schema

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
VOCABULARIES = "vocabularies.safetensors"
PROGRAMS = "programs"
GOLDEN_REQUESTS = "golden.json"
GOLDEN_TENSORS = "golden.safetensors"
MAX_JSON_BYTES = 1 << 30
"""Of one JSON file of an artifact."""

_ADVICE = "Name the folder of an artifact, or export the run again."

Storage = Literal["float32", "int8"]
Width = Annotated[int, Field(ge=1, le=1 << 20)]
"""Of what one feature becomes: what a file says of it is not trusted."""


class FileEntry(Config):
    """One file of the artifact."""

    sha256: str
    """In hexadecimal."""
    num_bytes: NonNegativeInt
    """Its size."""


class TableEntry(Config):
    """One table."""

    num_embeddings: PositiveInt
    """Rows."""
    storage: Storage = "float32"
    """float32, or int8 with one scale a row."""


class MomentsEntry(Config):
    """Of a dense feature that is standardized."""

    mean: float
    """Of the training log."""
    deviation: PositiveFloat
    """Of the training log."""


class QuantilesEntry(Config):
    """Of a dense feature with quantile buckets."""

    boundaries: tuple[float, ...]
    """Between the buckets."""


class EmbedderEntry(Config):
    """How the embedder is built."""

    config: EmbeddingConfig
    """Widths."""
    sets: dict[str, Width]
    """Embedding sets beside the main one -> width."""
    ids: tuple[str, ...]
    """Features whose raw ids programs read."""
    length_multiple: dict[str, Width]
    """Sequence -> what its padded length is a multiple of."""
    statistics: dict[str, MomentsEntry | QuantilesEntry]
    """Dense feature -> what the training log says of it."""


class StateEntry(Config):
    """One tensor that passes from a program to a later one."""

    name: str
    """Its name in the programs."""
    rate: Literal["user", "request"]
    """Of the program that makes it; user state may be kept from request to request."""
    sizes: tuple[int | str, ...]
    """Its shape; free sizes by a name, R for requests."""
    dtype: str
    """Its type."""


class QuantizedEntry(Config):
    """What quantizing did, measured on the golden requests when the artifact was written."""

    parts: tuple[Literal["tables", "user", "candidate"], ...] = ()
    """tables and user: stored in int8. candidate: its program may run in bf16."""
    largest_error: dict[str, NonNegativeFloat] = {}
    """Part -> largest |a - b| of a score against the same artifact without that part quantized."""
    saved_bytes: NonNegativeInt = 0
    """What int8 saves in `weights.safetensors`."""


class Manifest(Config):
    """Everything serving needs to know beside the weights."""

    format_version: Literal[1]
    """Of this format."""
    rankloom: str
    """Version that wrote it."""
    features: dict[str, AnyFeature]
    """Name -> feature."""
    roles: Roles
    """Which columns mean what."""
    tasks: dict[str, AnyTask]
    """Name -> task."""
    embedder: EmbedderEntry
    """How inputs are made."""
    tables: dict[str, TableEntry]
    """Logical name -> table."""
    vocabularies: tuple[str, ...]
    """Tables whose rows a vocabulary gives."""
    programs: tuple[Literal["user", "request", "candidate", "one_request"], ...]
    """Files of `programs/`."""
    candidates: Literal["independent", "set"] = "independent"
    """Whether a candidate's score depends on the request's other candidates: then they must be
    scored together."""
    outputs: tuple[str, ...]
    """Tasks in the order of the candidate program's results."""
    state: tuple[StateEntry, ...]
    """What passes between the programs."""
    tolerance: NonNegativeFloat
    """Largest |a - b| / max(1, |b|) that verifying allows on a tensor or score."""
    quantized: QuantizedEntry
    """What is quantized."""
    run: dict[str, Any]
    """The resolved run file, for people: nothing here is built from it."""
    metrics: dict[str, Any]
    """What the last evaluations found, by split."""
    files: dict[str, FileEntry]
    """Every file but this one."""

    @property
    def schema_of_log(self) -> Schema:
        """The features, roles and tasks as one."""
        return Schema(
            self.features,
            roles=self.roles,
            tasks=self.tasks,
            unified=self.embedder.config.unified,
        )


def manifest_text(manifest: Manifest) -> str:
    """Write a manifest with its own digest."""
    values = manifest.to_dict()
    return json.dumps({"digest": _digest(values), **values}, indent=1)


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """Read a manifest and check it against its digest.

    Returns:
        The manifest, and its digest: the artifact's identity.

    Raises:
        ArtifactError: There is none, or it is damaged or of another format.
    """
    path = folder / MANIFEST
    values = read_json(path)
    version = values.get("format_version") if isinstance(values, dict) else None
    if type(version) is not int or version != FORMAT_VERSION:
        raise ArtifactError(
            f"{path}: must have format_version {FORMAT_VERSION}. Got {str(version)[:80]!r}. Use "
            "the version of rankloom that wrote it, or export the run again."
        )
    said = values.pop("digest", None)
    try:
        found = _digest(values)
    except RecursionError:
        raise ArtifactError(f"{path}: is nested too deep. {_ADVICE}") from None
    if found != said:
        raise ArtifactError(
            f"{path}: its content does not match its digest. Got {found[:16]}..., it says "
            f"{str(said)[:16]}... Export the run again, or restore the file."
        )
    try:
        manifest = Manifest.model_validate(values)
        manifest.schema_of_log  # noqa: B018 (checks that the features hang together)
    except ValidationError as error:
        problems = validation_problems(error)
        raise ArtifactError(f"{join_problems(problems, where=str(path))}") from None
    except (SchemaError, RecursionError) as error:
        raise ArtifactError(f"{path}: {error}") from None
    return manifest, found


def read_json(path: Path) -> Any:
    """Read one JSON file of an artifact.

    Raises:
        ArtifactError: It is missing, too large or no JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: is no JSON. Got: {error}. {_ADVICE}") from None


def read_text(path: Path) -> str:
    """Read one text file of an artifact.

    Raises:
        ArtifactError: It is missing, too large or no text.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArtifactError(f"{path}: cannot be read. Got: {reason}. {_ADVICE}") from None


def check_files(folder: Path, manifest: Manifest) -> None:
    """Check sizes and digests of all files.

    Raises:
        ArtifactError: A file is missing or was changed; all such are named.
    """
    known = _names_of_files(manifest)
    problems = [f"{name} is not listed." for name in known if name not in manifest.files]
    for name, entry in manifest.files.items():
        path = folder / name
        if name not in known:
            problems.append(f"{name!r} is no file of an artifact.")
        elif not path.is_file():
            problems.append(f"{name} is missing.")
        elif path.stat().st_size != entry.num_bytes:
            problems.append(f"{name} has {path.stat().st_size} bytes instead of {entry.num_bytes}.")
        elif file_digest(path) != entry.sha256:
            problems.append(f"{name} was changed since it was written.")
    if problems:
        raise ArtifactError(
            join_problems(problems, where=str(folder)) + " Export the run again, or restore it."
        )


def _names_of_files(manifest: Manifest) -> list[str]:
    """Name the files that an artifact consists of, beside the manifest."""
    names = [WEIGHTS, GOLDEN_REQUESTS, GOLDEN_TENSORS]
    names += [VOCABULARIES] if manifest.vocabularies else []
    return [*names, *(f"{PROGRAMS}/{name}.json" for name in manifest.programs)]


def _digest(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
