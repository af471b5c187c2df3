"""An artifact at work: one user and its candidates in, scores out.

Imports no architecture, no training code and no Parquet library.

    ranker = load("artifacts/ml")
    scores = ranker.score({"user_id": 7}, {"item_id": [3, 5]})["click"]

Shapes: R requests, B rows, N candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rankloom.artifact.fit import (
    CONSTANT,
    NUMERIC,
    RATE_OF_PROGRAM,
    SCALE,
    TABLE,
    check_programs,
    check_tables,
    refusing,
)
from rankloom.artifact.manifest import (
    GOLDEN_TENSORS,
    PROGRAMS,
    VOCABULARIES,
    WEIGHTS,
    Manifest,
    check_files,
    read_manifest,
    read_text,
)
from rankloom.artifact.program_file import from_json
from rankloom.artifact.tuning import Choice, tune
from rankloom.artifact.vocabularies import read_indexes
from rankloom.data.batch import Batch
from rankloom.data.key_index import KeyIndex
from rankloom.data.request import Given, RequestDecoder
from rankloom.data.statistics import statistics_from_dict
from rankloom.embedding import MAIN_SET, Embedder, FusedTables
from rankloom.embedding.int8_tables import Int8Tables
from rankloom.errors import ArtifactError
from rankloom.hoist import Programs
from rankloom.hoist.capture import inputs_by_path
from rankloom.losses import predictions
from rankloom.ops.device import choose_device
from rankloom.tensor_files import map_tensors


class Ranker:
    """A loaded artifact.

    Args:
        manifest: What it is.
        digest: Its identity.
        decoder: From plain values to batches.
        embedder: From batches to inputs.
        programs: From inputs to logits.
        choices: How the programs run here, where there was a choice.
        device: Where it computes.
    """

    def __init__(
        self,
        manifest: Manifest,
        digest: str,
        *,
        decoder: RequestDecoder,
        embedder: Embedder,
        programs: Programs,
        choices: Sequence[Choice],
        device: torch.device,
    ) -> None:
        self.manifest = manifest
        self.digest = digest
        self.schema = manifest.schema_of_log
        self.decoder = decoder
        self.embedder = embedder
        self.programs = programs
        self.choices = tuple(choices)
        self.device = device

    def score(
        self,
        user: Given,
        candidates: Given | Sequence[Given],
        context: Given | None = None,
    ) -> dict[str, npt.NDArray[np.float64]]:
        """Score one user's candidates.

        Args:
            user: Column of the log -> value: what the features of side user read.
            candidates: Column -> N values, what those of side item and cross read; or N mappings of
                column -> value.
            context: Column -> value: what those of side context read, and the event time.

        Returns:
            Task -> (N,) float64: a probability or a mean.

        Raises:
            DataError: Columns are missing or values not allowed; all such at once.
        """
        inputs = self.inputs(self.decoder.decode(user, candidates, context))
        scores = self.predictions(self.logits(inputs))
        return {task: values.numpy() for task, values in scores.items()}

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Look up and encode a batch: path -> tensor at R or B rows."""
        with torch.inference_mode():
            return dict(inputs_by_path(self.embedder(batch.to(self.device)).inputs))

    def user_state(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute what depends on the user alone; it may be kept."""
        with torch.inference_mode():
            return self.programs.user_state(inputs)

    def logits(
        self, inputs: Mapping[str, Tensor], user_state: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Run the programs.

        Args:
            inputs: Of one or several requests.
            user_state: Of the same users, computed before; else it is computed.

        Returns:
            Task -> (B,) raw outputs.
        """
        with torch.inference_mode():
            user = self.programs.user_state(inputs) if user_state is None else dict(user_state)
            request = self.programs.request_state(inputs, user)
            results = self.programs.results(inputs, {**user, **request})
        return dict(zip(self.manifest.outputs, results, strict=True))

    def predictions(self, logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give task -> (B,) float64 on the CPU, from raw outputs."""
        with torch.inference_mode():
            wide = {task: value.double() for task, value in logits.items()}
            return {task: value.cpu() for task, value in predictions(wide, self.schema).items()}


def load(
    folder: str | Path,
    *,
    device: Literal["auto", "cpu", "cuda"] = "cpu",
    check: bool = True,
) -> Ranker:
    """Load an artifact.

    Args:
        folder: What `rankloom export` wrote.
        device: Where to compute.
        check: Whether to read every file once and compare its digest. Without, weights are read
            when they are used.

    Raises:
        ArtifactError: A file is missing, damaged, of another format, or holds what no artifact may.
        ConfigError: cuda is asked for and there is none.
    """
    folder = Path(folder)
    manifest, digest = read_manifest(folder)
    if check:
        check_files(folder, manifest)
    texts: dict[str, str] = {
        name: read_text(folder / PROGRAMS / f"{name}.json") for name in manifest.programs
    }
    indexes = read_indexes(folder / VOCABULARIES, manifest.vocabularies)
    tensors = _mapped(folder / WEIGHTS)
    return assemble(
        manifest,
        tensors,
        texts,
        indexes,
        inputs=_golden_inputs(folder / GOLDEN_TENSORS) if manifest.quantized.parts else None,
        digest=digest,
        device=choose_device(device),
        where=str(folder),
    )


def assemble(
    manifest: Manifest,
    tensors: Mapping[str, Tensor],
    texts: Mapping[str, str],
    indexes: Mapping[str, KeyIndex],
    *,
    inputs: Mapping[str, Tensor] | None = None,
    digest: str = "",
    device: torch.device | None = None,
    where: str = "artifact",
) -> Ranker:
    """Put a ranker together from what an artifact holds.

    Args:
        manifest: What it is.
        tensors: Of the weights file.
        texts: Program -> its JSON.
        indexes: Table -> index of its vocabulary's keys.
        inputs: Of one request, to measure what is faster where the artifact leaves a choice.
        digest: The artifact's identity.
        device: Where to compute; default: the CPU.
        where: What errors call the artifact.

    Raises:
        ArtifactError: The parts do not fit each other, or hold what no artifact may.
    """
    device = device or torch.device("cpu")
    constants = {
        name.removeprefix(CONSTANT): value
        for name, value in tensors.items()
        if name.startswith(CONSTANT)
    }
    read = {
        name: from_json(text, constants, where=f"{where}/{PROGRAMS}/{name}.json", device=device).to(
            device
        )
        for name, text in texts.items()
    }
    check_tables(manifest, tensors, indexes, where=where)
    with refusing(f"{where}/{WEIGHTS}", "its tables or statistics do not fit"):
        embedder = _embedder(where, manifest, tensors).to(device).train(False)
    check_programs(manifest, read, embedder.layout(), where=where)
    by_rate = {rate: read[name] for name, rate in RATE_OF_PROGRAM.items() if name in read}
    with refusing(f"{where}/{PROGRAMS}"):
        programs, choices = tune(
            Programs(by_rate, read["one_request"]),
            None if inputs is None else {name: one.to(device) for name, one in inputs.items()},
            may_use_bf16="candidate" in manifest.quantized.parts,
            device=device,
        )
    return Ranker(
        manifest,
        digest,
        decoder=RequestDecoder(manifest.schema_of_log, indexes),
        embedder=embedder,
        programs=programs,
        choices=choices,
        device=device,
    )


def _embedder(where: str, manifest: Manifest, tensors: Mapping[str, Tensor]) -> Embedder:
    about = manifest.embedder
    schema = manifest.schema_of_log
    sizes = {
        name: entry.num_embeddings for name, entry in manifest.tables.items() if "@" not in name
    }
    embedder = Embedder(
        schema,
        sizes,
        {name: statistics_from_dict(one.to_dict()) for name, one in about.statistics.items()},
        about.config,
        sets={name: dim for name, dim in about.sets.items() if name != MAIN_SET},
        ids=about.ids,
        length_multiple=about.length_multiple,
        generator=None,
    )
    for number, group in enumerate(embedder.table_groups()):
        embedder.groups[number] = _bound(where, group, tensors)
    numeric = {
        name.removeprefix(NUMERIC): value
        for name, value in tensors.items()
        if name.startswith(NUMERIC)
    }
    try:
        embedder.numeric.load_state_dict(numeric)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(f"{where}: statistics of numbers do not fit. Got: {reason}") from None
    return embedder


def _bound(where: str, group: FusedTables, tensors: Mapping[str, Tensor]) -> FusedTables:
    """Give a group of tables its weight; rows and types were checked."""
    tables = []
    for name in group.sizes:
        table = tensors.get(TABLE + name)
        if table is None or table.shape[1] != group.dim:
            got = "none" if table is None else table.shape[1]
            raise ArtifactError(
                f"{where}: table {name!r} must be {group.dim} wide. Got {got}. Export the run "
                "again."
            )
        tables.append(table)
    weight = _side_by_side(tables)
    if weight.dtype == torch.int8:
        return Int8Tables(group, weight, _side_by_side([tensors[SCALE + n] for n in group.sizes]))
    group.weight = weight
    return group


def _side_by_side(parts: list[Tensor]) -> Tensor:
    """Put tables below each other: without a copy where the file has them so."""
    first, end = parts[0], parts[0].data_ptr()
    file = first.untyped_storage().data_ptr()
    for part in parts:
        if part.data_ptr() != end or part.untyped_storage().data_ptr() != file:
            return torch.cat(parts)
        end += part.numel() * part.element_size()
    shape = (sum(len(part) for part in parts), *first.shape[1:])
    return first.as_strided(shape, first.stride())


def _golden_inputs(path: Path) -> dict[str, Tensor]:
    """Give the inputs of the golden request with the most candidates."""
    by_request: dict[str, dict[str, Tensor]] = {}
    for name, tensor in _mapped(path).items():
        number, _, rest = name.partition("/")
        if rest.startswith("inputs/"):
            by_request.setdefault(number, {})[rest.removeprefix("inputs/")] = tensor
    requests = [one for one in by_request.values() if "request_index" in one]
    return max(requests, key=lambda one: len(one["request_index"]), default={})


def _mapped(path: Path) -> dict[str, Tensor]:
    try:
        return map_tensors(path)
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path}: cannot be read ({error}). Export the run again, or restore the file."
        ) from None
