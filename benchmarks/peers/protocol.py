"""What each contender of the DCN-V2 comparison is given, and what it must report.

Imported in both environments, so it needs NumPy, PyArrow and the standard library only.

The clock: `total_s` runs from the unopened Parquet files to the end of the epoch and is
`preprocessing_s` (read, encode, scale) + `train_s` (the epoch, with building the loaders and the
model). Importing libraries and scoring the validation rows are not in it.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Task:
    """The model and training settings that all contenders share."""

    embedding_dim: int = 16
    num_cross_layers: int = 3
    hidden_dims: Sequence[int] = (400, 400, 400)
    batch_size: int = 4096
    learning_rate: float = 1e-3
    """Adam's, for the dense parameters and, in the peers, for the embeddings too."""
    num_threads: int = 2
    seed: int = 1


@dataclass
class Stopwatch:
    """Times the stages of one run, in order."""

    started: float = field(default_factory=time.perf_counter)
    laps: dict[str, float] = field(default_factory=dict)

    def lap(self, stage: str) -> None:
        """End `stage`, which began at the end of the stage before it."""
        now = time.perf_counter()
        self.laps[stage] = now - self.started - sum(self.laps.values())


@dataclass(frozen=True)
class Report:
    """What one contender measured."""

    preprocessing_s: float
    train_s: float
    total_s: float
    samples_per_s: float
    """Training rows over `train_s`."""
    auc: float
    log_loss: float
    peak_memory_gib: float
    num_rows: int
    notes: Sequence[str]
    """Where it departs from the library's defaults or documentation, and why."""


def make_report(
    watch: Stopwatch,
    *,
    num_rows: int,
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    notes: Sequence[str],
) -> Report:
    """Score the validation rows and put one run's numbers together.

    Args:
        watch: Has the laps `preprocessing` and `train`.
        num_rows: Training rows of the epoch.
        labels: (N,) 0 or 1. Validation labels.
        scores: (N,) Probabilities for them.
        notes: Departures from the library's defaults.
    """
    truth, probabilities = np.ravel(labels), np.ravel(scores).astype(np.float64)
    preprocessing, train = watch.laps["preprocessing"], watch.laps["train"]
    return Report(
        preprocessing_s=round(preprocessing, 3),
        train_s=round(train, 3),
        total_s=round(preprocessing + train, 3),
        samples_per_s=round(num_rows / train, 1),
        auc=round(auc(truth, probabilities), 6),
        log_loss=round(log_loss(truth, probabilities), 6),
        peak_memory_gib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        num_rows=num_rows,
        notes=notes,
    )


def auc(labels: npt.NDArray[Any], scores: npt.NDArray[np.float64]) -> float:
    """Give the share of (positive, negative) pairs in the right order, a tie counting one half.

    Args:
        labels: (N,) 0 or 1, at least one of each.
        scores: (N,) Anything that grows with the probability.
    """
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2
    positive = labels > 0
    num_positive = int(positive.sum())
    num_negative = len(labels) - num_positive
    rank_sum = float(mean_ranks[group[positive]].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)


def log_loss(labels: npt.NDArray[Any], probabilities: npt.NDArray[np.float64]) -> float:
    """Give the mean negative log likelihood; probabilities are kept 1e-7 from 0 and 1."""
    p = np.clip(probabilities, 1e-7, 1 - 1e-7)
    return float(-np.where(labels > 0, np.log(p), np.log1p(-p)).mean())


def parse_arguments(description: str) -> tuple[Path, Path, Task]:
    """Read a contender's command line: TRAIN VALID [--task JSON]."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("train", type=Path)
    parser.add_argument("valid", type=Path)
    parser.add_argument("--task", type=json.loads, default={}, help="fields of Task as JSON")
    arguments = parser.parse_args()
    return arguments.train, arguments.valid, Task(**arguments.task)


def print_report(report: Report) -> None:
    """Print the report as the last line, in JSON."""
    print(json.dumps(asdict(report)), flush=True)
