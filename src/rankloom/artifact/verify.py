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

from rankloom.artifact.fit import refusing
from rankloom.artifact.golden import decode_golden, expected_scores, read_golden, steps
from rankloom.artifact.manifest import GOLDEN_REQUESTS
from rankloom.artifact.ranker import Ranker, load
from rankloom.artifact.tuning import Choice
from rankloom.data.batch import Batch, join_batches
from rankloom.errors import ArtifactError


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
    choices: tuple[Choice, ...] = ()
    """How the programs run on this machine, where there was a choice."""

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
    runs_in_bf16 = any(one.chosen == "bf16" for one in ranker.choices)
    batches: list[Batch] = []
    parts: list[dict[str, Tensor]] = []
    for number, (request, expected) in enumerate(golden):
        where = f"{folder / GOLDEN_REQUESTS}: request {number}"
        batches.append(decode_golden(ranker, request, where=where))
        parts.append(expected_scores(request, ranker.manifest.outputs, where=where))
        with refusing(str(folder), f"inputs of golden request {number} cannot be made"):
            inputs = ranker.inputs(batches[-1])
        for step, found in steps(ranker, inputs, where=str(folder)):
            if step == "logits" and runs_in_bf16:
                continue  # they may be off by more than scores, which are compared below
            wanted = {n: t for n, t in expected.items() if n.startswith(f"{step}/")}
            name = first_difference(found, wanted, tolerance)
            if name is not None:
                raise ArtifactError(
                    f"{folder}: golden request {number}: {name} differs from what was exported. "
                    f"{_both(found.get(name), wanted.get(name))} Its programs or weights are not "
                    "what was exported, or this machine computes otherwise. Export the run again "
                    "here."
                )
    # The candidate program runs on several requests only.
    with refusing(str(folder), "inputs of all golden requests cannot be made"):
        inputs = ranker.inputs(join_batches(batches))
    for _ in steps(ranker, inputs, where=str(folder)):
        pass
    scores = _joined(parts)
    errors = {}
    for way, score in _WAYS.items():
        with refusing(str(folder), f"golden requests cannot be scored {way}"):
            found = score(ranker, batches)
            # Python's max would pass over NaN.
            each = [_error(found[task], expected).max() for task, expected in scores.items()]
            errors[way] = error = float(torch.stack(each).max())
        # Written so that NaN fails.
        if not error <= tolerance:
            raise ArtifactError(
                f"{folder}: scored {way}, golden requests are off by {error:.3g}, allowed are "
                f"{tolerance:.3g}. Export the run again."
            )
    return Verification(
        num_requests=len(golden),
        num_rows=sum(batch.num_rows for batch in batches),
        largest_error=errors,
        tolerance=tolerance,
        choices=ranker.choices,
    )


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
    if found.shape != expected.shape:
        raise ValueError(f"{tuple(found.shape)} values instead of {tuple(expected.shape)}.")
    error = (found - expected).abs() / expected.abs().clamp(min=1)
    # Two infinities of one sign are equal.
    return error.masked_fill(found == expected, 0.0)


def _both(found: Tensor | None, expected: Tensor | None) -> str:
    if found is None or expected is None:
        return "Got it only here." if expected is None else "Got it only in the artifact."
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        return (
            f"Got {tuple(found.shape)} of {found.dtype} instead of {tuple(expected.shape)} of "
            f"{expected.dtype}."
        )
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
