"""Golden requests: raw requests with the scores that they must be given, and what lies between.

The scores were computed by the plain network on the path that training takes; so they hold for
decoding, look-up, hoisting and the written programs together. The tensors between were computed by
the artifact itself when it was written: with them, verifying names the first that differs.

Shapes: R requests, B rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rankloom.artifact.manifest import GOLDEN_REQUESTS, GOLDEN_TENSORS, read_json
from rankloom.artifact.ranker import Ranker
from rankloom.data.batch import Batch
from rankloom.errors import ArtifactError, DataError
from rankloom.tensor_files import read_tensors, write_tensors


@dataclass(frozen=True)
class GoldenRequest:
    """One raw request, and its scores by the plain network."""

    user: Mapping[str, Any]
    candidates: Mapping[str, Sequence[Any]]
    context: Mapping[str, Any]
    scores: Mapping[str, Sequence[float]]
    """Task -> (N,)."""

    def batch(self, ranker: Ranker) -> Batch:
        """Decode it."""
        return ranker.decoder.decode(self.user, self.candidates, self.context)


def trace(ranker: Ranker, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Compute all that lies between inputs and logits, in order.

    Returns:
        `inputs/...`, `user/...`, `request/...`, `logits/...` -> tensor.
    """
    with torch.inference_mode():
        user = ranker.programs.user_state(inputs)
        request = ranker.programs.request_state(inputs, user)
        results = ranker.programs.results(inputs, {**user, **request})
    steps = {
        "inputs": inputs,
        "user": user,
        "request": request,
        "logits": dict(zip(ranker.manifest.outputs, results, strict=True)),
    }
    return {
        f"{step}/{name}": value for step, values in steps.items() for name, value in values.items()
    }


def write_golden(folder: Path, ranker: Ranker, requests: Iterable[GoldenRequest]) -> None:
    """Write requests, scores and what lies between.

    Raises:
        OSError: The files cannot be written.
    """
    requests = list(requests)
    values = [
        {
            "user": dict(one.user),
            "context": dict(one.context),
            "candidates": {name: list(column) for name, column in one.candidates.items()},
            "scores": {task: list(column) for task, column in one.scores.items()},
        }
        for one in requests
    ]
    text = json.dumps({"requests": values}, indent=1, allow_nan=False)
    (folder / GOLDEN_REQUESTS).write_text(text, encoding="utf-8")
    tensors = {
        f"{number}/{name}": value.clone()
        for number, one in enumerate(requests)
        for name, value in trace(ranker, ranker.inputs(one.batch(ranker))).items()
    }
    write_tensors(folder / GOLDEN_TENSORS, tensors)


def read_golden(folder: Path) -> list[tuple[GoldenRequest, dict[str, Tensor]]]:
    """Read each request, and what lies between.

    Raises:
        ArtifactError: The files are damaged.
    """
    content = read_json(folder / GOLDEN_REQUESTS)
    path = folder / GOLDEN_TENSORS
    try:
        tensors = read_tensors(path)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error}). Export the run again.") from None
    found: list[tuple[GoldenRequest, dict[str, Tensor]]] = []
    try:
        for number, one in enumerate(content["requests"]):
            request = GoldenRequest(one["user"], one["candidates"], one["context"], one["scores"])
            prefix = f"{number}/"
            between = {
                n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)
            }
            found.append((request, between))
    except (KeyError, TypeError):
        raise ArtifactError(
            f"{folder / GOLDEN_REQUESTS}: holds no golden requests. Export the run again."
        ) from None
    return found


def decode_golden(ranker: Ranker, request: GoldenRequest, number: int) -> Batch:
    """Decode a golden request of an artifact.

    Raises:
        ArtifactError: The artifact's own schema refuses it.
    """
    try:
        return request.batch(ranker)
    except DataError as error:
        raise ArtifactError(f"golden request {number} cannot be decoded: {error}") from None
