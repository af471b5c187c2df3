"""Verify an artifact: score its golden requests again, in every way that serving may take.

Shapes: R requests, B rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from rankloom.artifact.golden import decode_golden, read_golden, trace
from rankloom.artifact.ranker import Ranker, load
from rankloom.data.batch import Batch, join_batches
from rankloom.errors import ArtifactError

Between = dict[str, Tensor]


@dataclass(frozen=True)
class Verification:
    """What verifying found."""

    num_requests: int
    """Golden requests."""
    num_rows: int
    """Their candidates."""
    largest_error: dict[str, float]
    """Way of scoring -> largest |a - b| / max(1, |b|) of a score."""
    tolerance: float
    """What is allowed."""

    def __str__(self) -> str:
        ways = ", ".join(f"{way} {error:.1e}" for way, error in self.largest_error.items())
        return (
            f"{self.num_requests} golden requests, {self.num_rows} scores: largest error {ways} "
            f"(allowed {self.tolerance:.1e})"
        )


def verify(folder: str | Path, *, device: Literal["auto", "cpu", "cuda"] = "cpu") -> Verification:
    """Check an artifact's files and score its golden requests in every way.

    Args:
        folder: What `rankloom export` wrote.
        device: `cpu`, `cuda` or `auto`.

    Raises:
        ArtifactError: The artifact is damaged, or a score or a tensor between differs: the first
            that does is named.
    """
    folder = Path(folder)
    ranker = load(folder, device=device)
    golden = read_golden(folder)
    if not golden:
        raise ArtifactError(f"{folder}: has no golden request. Export the run again.")
    tolerance = ranker.manifest.tolerance
    batches = [decode_golden(ranker, request, number) for number, (request, _) in enumerate(golden)]
    for number, (batch, (_, expected)) in enumerate(zip(batches, golden, strict=True)):
        found = trace(ranker, ranker.inputs(batch))
        name = first_difference(found, expected, tolerance)
        if name is not None:
            raise ArtifactError(
                f"{folder}: golden request {number}: {name} differs from what was exported. "
                f"{_both(found.get(name), expected.get(name))} Its programs or weights are not "
                "what was exported, or this machine computes otherwise. Export the run again here."
            )
    expected_scores = {
        task: torch.cat([torch.tensor(request.scores[task]).double() for request, _ in golden])
        for task in ranker.manifest.outputs
    }
    errors = {}
    for way, score in _WAYS.items():
        scores = score(ranker, batches)
        errors[way] = error = max(
            float(_error(scores[task], expected_scores[task]).max()) for task in expected_scores
        )
        # Written so that NaN fails.
        if not error <= tolerance:
            raise ArtifactError(
                f"{folder}: scored {way}, golden requests are off by {error:.3g}, allowed are "
                f"{tolerance:.3g}. Export the run again."
            )
    return Verification(len(golden), sum(b.num_rows for b in batches), errors, tolerance)


def first_difference(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float
) -> str | None:
    """Name the first tensor that differs, in the order in which they are computed."""
    for name in dict.fromkeys([*found, *expected]):
        if name not in found or name not in expected:
            return name
        ours, theirs = found[name].cpu(), expected[name]
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            return name
        if ours.numel() and not bool((_error(ours.double(), theirs.double()) <= tolerance).all()):
            return name
    return None


def _error(found: Tensor, expected: Tensor) -> Tensor:
    error = (found - expected).abs() / expected.abs().clamp(min=1)
    # Two infinities of one sign are equal.
    return error.masked_fill(found == expected, 0.0)


def _both(found: Tensor | None, expected: Tensor | None) -> str:
    if found is None or expected is None:
        return "Got it only here." if expected is None else "Got it only in the artifact."
    if found.shape != expected.shape:
        return f"Got shape {tuple(found.shape)} instead of {tuple(expected.shape)}."
    error = float(_error(found.cpu().double(), expected.double()).max())
    return f"Got an error of {error:.3g}."


def _one_by_one(ranker: Ranker, batches: list[Batch]) -> dict[str, Tensor]:
    return _joined([ranker.predictions(ranker.logits(ranker.inputs(one))) for one in batches])


def _with_kept_state(ranker: Ranker, batches: list[Batch]) -> dict[str, Tensor]:
    """Compute each user's state first, as a cache would have it."""
    scores = []
    for batch in batches:
        inputs = ranker.inputs(batch)
        kept = {name: value.clone() for name, value in ranker.user_state(inputs).items()}
        scores.append(ranker.predictions(ranker.logits(inputs, kept)))
    return _joined(scores)


def _all_at_once(ranker: Ranker, batches: list[Batch]) -> dict[str, Tensor]:
    return ranker.predictions(ranker.logits(ranker.inputs(join_batches(batches))))


def _joined(scores: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {task: torch.cat([one[task] for one in scores]) for task in scores[0]}


_WAYS: dict[str, Callable[[Ranker, list[Batch]], dict[str, Tensor]]] = {
    "one by one": _one_by_one,
    "with kept user state": _with_kept_state,
    "all at once": _all_at_once,
}
