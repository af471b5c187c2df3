"""Write an artifact: whole, verified, or not at all.

Shapes: N candidates.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rankloom.artifact.fit import CONSTANT, NUMERIC, RATE_OF_PROGRAM, SCALE, TABLE
from rankloom.artifact.golden import GoldenRequest, write_golden
from rankloom.artifact.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    PROGRAMS,
    VOCABULARIES,
    WEIGHTS,
    FileEntry,
    Manifest,
    QuantizedEntry,
    manifest_text,
)
from rankloom.artifact.program_file import to_json
from rankloom.artifact.quantize import quantize_weights
from rankloom.artifact.ranker import Ranker, assemble
from rankloom.artifact.tuning import candidate_in_bf16
from rankloom.artifact.verify import Verification, verify
from rankloom.atomic import file_digest, is_occupied, new_folder, sync
from rankloom.data.key_index import KeyIndex
from rankloom.data.statistics import Statistics, statistics_to_dict
from rankloom.embedding.int8_tables import quantize_rows
from rankloom.errors import ArtifactError, ConfigError
from rankloom.hoist import Decision, Hoisted, Program, hoist
from rankloom.models import Model
from rankloom.models.example import example_batch
from rankloom.tensor_files import write_tensors

Part = Literal["tables", "user", "candidate"]
PARTS: tuple[Part, ...] = ("tables", "user", "candidate")
TOLERANCE = 1e-5
"""Largest |a - b| / max(1, |b|) of a score in fp32 against the plain network's."""
_NAMES = {rate: name for name, rate in RATE_OF_PROGRAM.items()}


@dataclass(frozen=True)
class About:
    """What the manifest says beside the model itself."""

    run: Mapping[str, Any]
    """The resolved run file."""
    metrics: Mapping[str, Any]
    """What evaluations found, by split."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    num_bytes: int
    """Of all files."""
    verification: Verification
    """Of the files as they were written."""
    decisions: list[Decision]
    """Which products are divided by rate."""
    quantized: QuantizedEntry
    """What is quantized, and the error of each."""


def export(
    folder: Path,
    model: Model,
    *,
    indexes: Mapping[str, KeyIndex],
    statistics: Mapping[str, Statistics],
    golden: Sequence[GoldenRequest],
    about: About,
    quantize: Sequence[str] = (),
    report: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Hoist a model and write it.

    Args:
        folder: Must not exist, or be empty.
        model: Is put into evaluation mode, on the CPU.
        indexes: Table -> index of its vocabulary's keys.
        statistics: Dense feature -> what the training log says of it.
        golden: Raw requests with the plain network's scores.
        about: What else the manifest says.
        quantize: `tables`: int8 with one scale a row. `user`: weights of the user program in int8.
            `candidate`: its program may run in bf16 where that is faster.
        report: Is told what is done next.

    Raises:
        ConfigError: `quantize` names something else.
        HoistError: The network cannot be divided by rate.
        ArtifactError: The folder holds something, cannot be written, or what was written does not
            give the plain network's scores.
    """
    check_request(folder, quantize)
    model = model.to("cpu").train(False)
    report("hoisting")
    with torch.no_grad():
        example = model.embedder(example_batch(model)).inputs
    draft = _Draft(model, hoist(model.network, example), indexes, statistics, about)
    report("scoring golden requests")
    plain = draft.ranker(())
    _check_scores(plain, golden)
    errors = {part: _error(draft.ranker((part,)), plain, golden) for part in quantize}
    tolerance = TOLERANCE
    if quantize:
        # Twice what was seen on a few requests, as others may be off by more.
        tolerance += 2 * _error(draft.ranker(quantize), plain, golden)
    contents = draft.contents(quantize)
    quantized = QuantizedEntry(
        parts=tuple(part for part in PARTS if part in quantize),
        largest_error=errors,
        saved_bytes=_num_bytes(draft.contents(()).tensors) - _num_bytes(contents.tensors),
    )
    report("writing")
    try:
        with new_folder(folder) as temporary:
            _write(temporary, draft, contents, quantized, tolerance, golden)
            report("verifying")
            verification = verify(temporary)
    except OSError as error:
        raise ArtifactError(
            f"{folder}: cannot be written ({error.strerror or error}). Free some space, or give "
            "another folder."
        ) from None
    return Exported(
        folder=folder,
        num_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        verification=verification,
        decisions=draft.hoisted.decisions,
        quantized=quantized,
    )


def check_request(folder: Path, quantize: Sequence[str]) -> None:
    """Check what a person asks for, before anything takes time.

    Raises:
        ConfigError: `quantize` names something else than parts.
        ArtifactError: The folder holds something.
    """
    unknown = [part for part in quantize if part not in PARTS]
    if unknown:
        raise ConfigError(
            f"quantize: must be of {', '.join(PARTS)}. Got {', '.join(unknown)}. Leave it out."
        )
    if is_occupied(folder):
        raise ArtifactError(f"{folder}: is there already. Give another folder, or remove it.")


@dataclass(frozen=True)
class _Contents:
    """What an artifact holds beside manifest and golden requests."""

    tensors: dict[str, Tensor]
    programs: dict[str, str]


@dataclass(frozen=True)
class _Draft:
    """A model that is to be written."""

    model: Model
    hoisted: Hoisted
    indexes: Mapping[str, KeyIndex]
    statistics: Mapping[str, Statistics]
    about: About

    def contents(self, quantize: Sequence[str]) -> _Contents:
        """Give the tensors and programs, some of them in int8."""
        embedder = self.model.embedder
        tensors: dict[str, Tensor] = {}
        for name, table in embedder.tables().items():
            if "tables" in quantize:
                tensors[TABLE + name], tensors[SCALE + name] = quantize_rows(table)
            else:
                tensors[TABLE + name] = table
        tensors |= {NUMERIC + name: one for name, one in embedder.numeric.state_dict().items()}
        programs: dict[str, Program] = {
            _NAMES[rate]: program for rate, program in self.hoisted.programs.by_rate.items()
        }
        programs["one_request"] = self.hoisted.programs.one_request
        if "user" in quantize and "user" in programs:
            programs["user"], _ = quantize_weights(programs["user"])
        for program in programs.values():
            tensors |= {CONSTANT + name: one for name, one in program.module.named_buffers()}
        return _Contents(tensors, {name: to_json(program) for name, program in programs.items()})

    def manifest(
        self,
        contents: _Contents,
        quantized: QuantizedEntry,
        *,
        tolerance: float = TOLERANCE,
        files: Mapping[str, FileEntry] | None = None,
    ) -> Manifest:
        """Describe it."""
        embedder, schema = self.model.embedder, self.model.schema.digest_values()
        storage = "int8" if "tables" in quantized.parts else "float32"
        return Manifest.model_validate(
            {
                "format_version": FORMAT_VERSION,
                "rankloom": importlib.metadata.version("rankloom"),
                **{key: schema[key] for key in ("features", "roles", "tasks")},
                "embedder": {
                    "config": embedder.config.to_dict(),
                    "sets": embedder.sets,
                    "ids": embedder.ids,
                    "length_multiple": embedder.length_multiple,
                    "statistics": {n: statistics_to_dict(s) for n, s in self.statistics.items()},
                },
                "tables": {
                    name: {"num_embeddings": len(table), "storage": storage}
                    for name, table in embedder.tables().items()
                },
                "vocabularies": tuple(self.indexes),
                "programs": tuple(contents.programs),
                "candidates": self.model.network.candidates,
                "outputs": tuple(self.hoisted.tasks),
                "state": tuple(
                    {
                        "name": one.name,
                        "rate": _NAMES[one.rate],
                        "sizes": one.sizes,
                        "dtype": str(one.dtype),
                    }
                    for one in self.hoisted.state
                ),
                "tolerance": tolerance,
                "quantized": quantized,
                "run": dict(self.about.run),
                "metrics": dict(self.about.metrics),
                "files": dict(files or {}),
            }
        )

    def ranker(self, quantize: Sequence[str]) -> Ranker:
        """Put it together in memory."""
        contents = self.contents(quantize)
        quantized = QuantizedEntry(parts=tuple(part for part in PARTS if part in quantize))
        manifest = self.manifest(contents, quantized)
        ranker = assemble(manifest, contents.tensors, contents.programs, self.indexes)
        if "candidate" in quantize:
            ranker.programs = candidate_in_bf16(ranker.programs, ranker.device)
        return ranker


def _write(
    folder: Path,
    draft: _Draft,
    contents: _Contents,
    quantized: QuantizedEntry,
    tolerance: float,
    golden: Sequence[GoldenRequest],
) -> None:
    """Write all files; the manifest last."""
    (folder / PROGRAMS).mkdir(parents=True)
    write_tensors(folder / WEIGHTS, contents.tensors)
    for name, text in contents.programs.items():
        (folder / PROGRAMS / f"{name}.json").write_text(text, encoding="utf-8")
    if draft.indexes:
        arrays = {
            f"{table}/{name}": torch.from_numpy(array)
            for table, index in draft.indexes.items()
            for name, array in index.arrays().items()
        }
        write_tensors(folder / VOCABULARIES, arrays)
    # What lies between is computed by what is written, not by the draft.
    manifest = draft.manifest(contents, quantized, tolerance=tolerance)
    write_golden(
        folder, assemble(manifest, contents.tensors, contents.programs, draft.indexes), golden
    )
    files = {
        str(path.relative_to(folder)): FileEntry(
            sha256=file_digest(path), num_bytes=path.stat().st_size
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = draft.manifest(contents, quantized, tolerance=tolerance, files=files)
    (folder / MANIFEST).write_text(manifest_text(manifest), encoding="utf-8")
    for path in (*folder.rglob("*"), folder):
        sync(path)


def _check_scores(ranker: Ranker, golden: Sequence[GoldenRequest]) -> None:
    """Check that the programs give the plain network's scores.

    Raises:
        ArtifactError: They do not, or there is no golden request.
    """
    if not golden:
        raise ArtifactError("export: there is no golden request. Give a log with at least one row.")
    for number, request in enumerate(golden):
        found = ranker.score(request.user, request.candidates, request.context)
        for task, expected in request.scores.items():
            error = float(np.abs(found[task] - np.asarray(expected)).max())
            # Written so that NaN fails.
            if not error <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
                raise ArtifactError(
                    f"export: golden request {number} is scored otherwise by the programs than by "
                    f"the plain network. Got an error of {error:.3g} for {task}. Report it with "
                    "the run file."
                )


def _error(ranker: Ranker, plain: Ranker, golden: Sequence[GoldenRequest]) -> float:
    """Give the largest difference of scores on the golden requests."""
    largest = 0.0
    for request in golden:
        raw = (request.user, request.candidates, request.context)
        found, expected = ranker.score(*raw), plain.score(*raw)
        for task in expected:
            largest = max(largest, float(np.abs(found[task] - expected[task]).max()))
    return largest


def _num_bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(math.prod(one.shape) * one.element_size() for one in tensors.values())
