"""Checkpoints: everything needed to go on bit for bit, in safetensors and JSON.

    checkpoints/
      last.json best.json        which folder each is; replaced atomically
      step-00001200.0/           written under another name, then renamed
        manifest.json            format, digests of the files, the trainer's state
        network.safetensors      dense parameters and buffers, by name
        tables.safetensors       tables by logical name, and the embedder's numeric statistics
        optimizer.safetensors    dense and sparse optimizer state, random state

A kill at any moment leaves the previous checkpoint readable: a folder that is not named by a
pointer does not count, and is removed by the next save.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from rankloom.atomic import file_digest, sync, write_text
from rankloom.errors import CheckpointError
from rankloom.models import Model
from rankloom.tensor_files import describe, read_into, write_tensors
from rankloom.training.sparse import SparseOptimizer

FORMAT = 1
FILES = ("network.safetensors", "tables.safetensors", "optimizer.safetensors")
NUMERIC = "numeric/"


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: `<run>/checkpoints`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(
        self,
        model: Model,
        dense: Optimizer,
        sparse: SparseOptimizer,
        *,
        step: int,
        state: Mapping[str, Any],
        best: bool = False,
    ) -> Path:
        """Write a checkpoint and point `last` (and `best`) to it.

        Args:
            model: What is trained.
            dense: Its dense optimizer.
            sparse: Its sparse optimizer.
            step: Steps made.
            state: The trainer's own plain values.
            best: Whether it is the best so far.

        Raises:
            CheckpointError: It cannot be written; earlier checkpoints are left as they were.
        """
        # The same step is written twice when an epoch ends on it: the second knows more.
        paths = (self.folder / f"step-{step:08d}.{number}" for number in count())
        final = next(path for path in paths if not path.exists())
        try:
            self._write(final, model, dense, sparse, state)
            self._point("last", final)
            if best:
                self._point("best", final)
            self._remove_unnamed()
        except OSError as error:
            reason = error.strerror or str(error)
            raise CheckpointError(
                f"{final}: cannot be written ({reason}). Earlier checkpoints are untouched. "
                "Free some space or give another folder, then go on with --resume."
            ) from None
        return final

    def mark_best(self, folder: Path) -> None:
        """Point `best` to a checkpoint that is written already."""
        self._point("best", folder)

    def path(self, which: str) -> Path | None:
        """Give the folder that `last` or `best` points to, or none.

        Raises:
            CheckpointError: The pointer or what it names is damaged.
        """
        pointer = self.folder / f"{which}.json"
        if not pointer.is_file():
            return None
        try:
            name = json.loads(pointer.read_text())["folder"]
            target = self.folder / str(name)
            if target.parent != self.folder or not target.is_dir():
                raise KeyError(name)
        except (OSError, ValueError, KeyError, TypeError):
            raise CheckpointError(
                f"{pointer}: names no checkpoint. Remove it to start anew."
            ) from None
        return target

    def _write(
        self,
        final: Path,
        model: Model,
        dense: Optimizer,
        sparse: SparseOptimizer,
        state: Mapping[str, Any],
    ) -> None:
        temporary = self.folder / f".writing-{final.name}-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            contents = (
                network_tensors(model),
                table_tensors(model),
                optimizer_tensors(model, dense, sparse),
            )
            digests = {
                name: write_tensors(temporary / name, tensors)
                for name, tensors in zip(FILES, contents, strict=True)
            }
            manifest = {
                "format": FORMAT,
                "schema": schema_digest(model),
                "digests": digests,
                "state": dict(state),
            }
            (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1))
            for path in temporary.iterdir():
                sync(path)
            temporary.rename(final)
            sync(self.folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _point(self, which: str, folder: Path) -> None:
        write_text(self.folder / f"{which}.json", json.dumps({"folder": folder.name}))

    def _remove_unnamed(self) -> None:
        named = {self.path("last"), self.path("best")}
        for path in self.folder.iterdir():
            if path.is_dir() and path not in named:
                shutil.rmtree(path, ignore_errors=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check a checkpoint's manifest and the digests of its files.

    Raises:
        CheckpointError: Anything is missing, damaged, or of an unknown format.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
        digests = dict(manifest["digests"])
        format_ = manifest["format"]
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(
            f"{folder}: is no checkpoint, or its manifest is damaged. Use another checkpoint."
        ) from None
    if format_ != FORMAT:
        raise CheckpointError(
            f"{folder}: has format {format_!r}, this version reads {FORMAT}. Use the version that "
            "wrote it."
        )
    wrong = [name for name in FILES if _digest_or_none(folder / name) != digests.get(name)]
    if wrong:
        raise CheckpointError(
            f"{folder}: {', '.join(wrong)} missing or changed since written. Use another one."
        )
    return manifest


def restore(
    folder: Path, model: Model, dense: Optimizer, sparse: SparseOptimizer
) -> dict[str, Any]:
    """Put a checkpoint into a model and its optimizers, in place, with the random state.

    Returns:
        The trainer's own values.

    Raises:
        CheckpointError: It is damaged or belongs to another schema or model.
    """
    manifest = read_manifest(folder)
    load_weights(folder, model)
    path = folder / "optimizer.safetensors"
    with reading(path):
        # The sparse state may be larger than the tables: it is read where it belongs.
        read_into(path, {f"sparse/{name}": t for name, t in sparse_state_views(sparse).items()})
        others = {
            name: torch.empty(at.shape, dtype=at.dtype)
            for name, at in describe(path).items()
            if not name.startswith("sparse/")
        }
        read_into(path, others)
    torch.set_rng_state(others["random/cpu"])
    if "random/cuda" in others and torch.cuda.is_available():
        torch.cuda.set_rng_state(others["random/cuda"])
    _load_dense_state(dense, _parameter_names(model), others)
    state: dict[str, Any] = manifest["state"]
    return state


def load_weights(folder: Path, model: Model) -> None:
    """Put a checkpoint's weights into a model of the same schema and config, in place.

    Raises:
        CheckpointError: It is damaged or belongs to another schema or model.
    """
    manifest = read_manifest(folder)
    if manifest["schema"] != schema_digest(model):
        raise CheckpointError(
            f"{folder}: was trained with another schema. Resume with the run's own run.yaml, or "
            "set training.warm_start to start a new run from these weights."
        )
    for name, current in (
        ("network.safetensors", network_tensors(model)),
        ("tables.safetensors", table_tensors(model)),
    ):
        with reading(folder / name):
            stored = {key: at.shape for key, at in describe(folder / name).items()}
        problems = [
            f"{key} is {stored.get(key, 'missing')} there and "
            f"{tuple(current[key].shape) if key in current else 'unknown'} here"
            for key in sorted(stored.keys() | current.keys())
            if key not in stored or key not in current or stored[key] != tuple(current[key].shape)
        ]
        if problems:
            shown = "; ".join(problems[:5]) + (" ..." if problems[5:] else "")
            raise CheckpointError(
                f"{folder}: belongs to another model: {shown}. Use the run's own run.yaml."
            )
        with reading(folder / name):
            read_into(folder / name, current)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Make an error of reading a checkpoint's file one that names it.

    Raises:
        CheckpointError: It cannot be read.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}). Use another checkpoint."
        ) from None


def network_tensors(model: Model) -> dict[str, Tensor]:
    """Give the network's parameters and buffers by name."""
    return dict(model.network.state_dict())


def table_tensors(model: Model) -> dict[str, Tensor]:
    """Give the tables by logical name, and the numeric statistics."""
    numeric = model.embedder.numeric.state_dict()
    return {**model.embedder.tables(), **{NUMERIC + name: value for name, value in numeric.items()}}


def optimizer_tensors(model: Model, dense: Optimizer, sparse: SparseOptimizer) -> dict[str, Tensor]:
    """Give both optimizers' states and the random state, by name."""
    tensors = {f"sparse/{name}": value for name, value in sparse_state_views(sparse).items()}
    for parameter, name in _parameter_names(model).items():
        for key, value in dense.state.get(parameter, {}).items():
            tensors[f"dense/{name}/{key}"] = value
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    return tensors


def sparse_state_views(sparse: SparseOptimizer) -> dict[str, Tensor]:
    """Give the sparse optimizer's state by table, as views that may be written."""
    return {
        f"{table}/{key}": group.rows_of(table, value)
        for group, state in zip(sparse.groups, sparse.states, strict=True)
        for key, value in state.items()
        for table in group.sizes
    }


def schema_digest(model: Model) -> str:
    """Give the sha256 that says which features, roles and tasks a model was built for."""
    text = json.dumps(model.schema.digest_values(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _digest_or_none(path: Path) -> str | None:
    try:
        return file_digest(path)
    except OSError:
        return None


def _parameter_names(model: Model) -> dict[Tensor, str]:
    return {parameter: name for name, parameter in model.network.named_parameters()}


def _load_dense_state(
    dense: Optimizer, names: Mapping[Tensor, str], tensors: Mapping[str, Tensor]
) -> None:
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("dense/"):
            name, _, part = key.removeprefix("dense/").rpartition("/")
            found.setdefault(name, {})[part] = value
    for parameter, name in names.items():
        if name in found:
            # A fused AdamW counts its steps beside the parameter.
            dense.state[parameter] = {k: v.to(parameter.device) for k, v in found[name].items()}
