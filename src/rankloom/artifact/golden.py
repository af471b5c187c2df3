"""Golden requests: raw requests with the scores that they must be given, and what lies between.

The scores were computed by the plain network on the path that training takes; so they hold for
decoding, look-up, hoisting and the written programs together. The tensors between were computed by
the artifact itself when it was written: with them, verifying names the first that differs.

Shapes: R requests, B rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rankloom.artifact.fit import refusing
from rankloom.artifact.manifest import GOLDEN_REQUESTS, GOLDEN_TENSORS, PROGRAMS, read_json
from rankloom.artifact.ranker import Ranker
from rankloom.data.batch import Batch
from rankloom.errors import ArtifactError
from rankloom.hoist.program import count_requests
from rankloom.tensor_files import read_tensors, write_tensors


@dataclass(frozen=True)
class GoldenRequest:
    """One raw request, and its scores by the plain network."""

    user: Mapping[str, Any]
    candidates: Mapping[str, Sequence[Any]]
    context: Mapping[str, Any]
    scores: Mapping[str, Sequence[float]]
    """Task -> (N,)."""

    @property
    def num_candidates(self) -> int:
        """N."""
        return len(next(iter(self.candidates.values())))

    def of_size(self, size: int) -> GoldenRequest:
        """Give a request of so many candidates, these over and over; its scores are not known."""
        places = [place % self.num_candidates for place in range(size)]
        candidates = {
            name: [column[place] for place in places] for name, column in self.candidates.items()
        }
        return GoldenRequest(self.user, candidates, self.context, {})

    def given(self) -> dict[str, dict[str, Any]]:
        """Give user, context and candidates as plain values, as a client sends them."""
        return {
            "user": dict(self.user),
            "context": dict(self.context),
            "candidates": {name: list(column) for name, column in self.candidates.items()},
        }

    def batch(self, ranker: Ranker) -> Batch:
        """Decode it."""
        return ranker.decoder.decode(self.user, self.candidates, self.context)


def steps(
    ranker: Ranker, inputs: Mapping[str, Tensor], *, where: str = "artifact"
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Compute all that lies between inputs and logits, one step after the other.

    Args:
        ranker: An artifact.
        inputs: Of one or several requests.
        where: What errors call the artifact.

    Returns:
        `inputs`, `user`, `request` and `logits`, each with its tensors: `user/name` -> tensor.

    Raises:
        ArtifactError: A program cannot run, or gives something else than tensors.
    """
    programs, outputs = ranker.programs, ranker.manifest.outputs
    yield "inputs", _tensors("inputs", inputs)
    with refusing(f"{where}/{PROGRAMS}/user.json"), torch.inference_mode():
        user = programs.user_state(inputs)
        found = _tensors("user", user)
    yield "user", found
    with refusing(f"{where}/{PROGRAMS}/request.json"), torch.inference_mode():
        request = programs.request_state(inputs, user)
        found = _tensors("request", request)
    yield "request", found
    name = "one_request" if count_requests(inputs["request_index"]) == 1 else "candidate"
    with refusing(f"{where}/{PROGRAMS}/{name}.json"), torch.inference_mode():
        results = programs.results(inputs, {**user, **request})
        found = _tensors("logits", dict(zip(outputs, results, strict=True)))
    yield "logits", found


def _tensors(step: str, values: Mapping[str, Any]) -> dict[str, Tensor]:
    odd = [name for name, value in values.items() if not isinstance(value, Tensor)]
    if odd:
        raise TypeError(f"{', '.join(odd)} is no tensor.")
    return {f"{step}/{name}": value for name, value in values.items()}


def write_golden(folder: Path, ranker: Ranker, requests: Iterable[GoldenRequest]) -> None:
    """Write requests, scores and what lies between.

    Raises:
        OSError: The files cannot be written.
    """
    requests = list(requests)
    values = [
        {**one.given(), "scores": {task: list(column) for task, column in one.scores.items()}}
        for one in requests
    ]
    text = json.dumps({"requests": values}, indent=1, allow_nan=False)
    (folder / GOLDEN_REQUESTS).write_text(text, encoding="utf-8")
    tensors = {
        f"{number}/{name}": value.clone()
        for number, one in enumerate(requests)
        for _, values in steps(ranker, ranker.inputs(one.batch(ranker)))
        for name, value in values.items()
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
    with refusing(str(folder / GOLDEN_REQUESTS), "holds no golden requests"):
        for number, one in enumerate(content["requests"]):
            request = GoldenRequest(one["user"], one["candidates"], one["context"], one["scores"])
            prefix = f"{number}/"
            between = {
                n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)
            }
            found.append((request, between))
    return found


def decode_golden(ranker: Ranker, request: GoldenRequest, *, where: str) -> Batch:
    """Decode a golden request of an artifact.

    Args:
        ranker: The artifact.
        request: One of its requests.
        where: What errors call the request.

    Raises:
        ArtifactError: The artifact's own schema refuses it.
    """
    with refusing(where, "cannot be decoded"):
        return request.batch(ranker)


def expected_scores(
    request: GoldenRequest, tasks: Sequence[str], *, where: str
) -> dict[str, Tensor]:
    """Give the scores of a golden request, task -> (N,) float64.

    Args:
        request: Of an artifact.
        tasks: Those that it must be scored for.
        where: What errors call the request.

    Raises:
        ArtifactError: They are no numbers.
    """
    with refusing(where, "holds no scores"):
        scores = {task: torch.tensor(request.scores[task], dtype=torch.float64) for task in tasks}
        if any(one.dim() != 1 for one in scores.values()):
            raise TypeError("Scores are no list.")
    return scores
