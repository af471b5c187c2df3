"""Exact AUC and GAUC of more rows than fit in memory."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from rankloom.errors import ConfigError, DataError
from rankloom.metrics.auc import auc
from rankloom.metrics.bootstrap import MAX_ROWS, NUM_RESAMPLES, auc_interval, shrink_interval
from rankloom.metrics.gauc import GroupedAUC, collect_groups, sum_groups
from rankloom.metrics.pairs import BLOCK_ROWS, count_one_group, count_pairs, split_rows
from rankloom.metrics.rows import Rows, check_rows, concatenate
from rankloom.metrics.runs import Run, StoredRun, merge_runs

Order = Literal["prediction", "group"]

_NO_ROWS = Rows(np.zeros(0, np.bool_), np.zeros(0))


class ScoreStore:
    """Collects predictions as they stream by, and computes their AUC and GAUC exactly.

    Rows are held as they come. Whenever more than `memory_rows` are held they are sorted and
    written to disk, once by prediction and, where rows have groups, once by (group, prediction).
    Results merge these runs block by block, without binning: they equal `auc` and `gauc` of all
    rows. Calling them does not end the collection.

    Predictions keep the dtype of the first append (float32 or float64). A network's float32
    outputs tie exactly where the network gave equal numbers; rounding float64 ones to float32
    would make ties that are none, widening float32 would only double the space.

    Memory: a row held takes 5 bytes for a float32 prediction and its label, 8 more for a group and
    8 for a weight. While sorting and merging, the peak is about 75 bytes for each of `memory_rows`
    (measured with groups): 1.5 GB at the default, however many rows are appended.

    Args:
        directory: Where runs are written. It and a folder of this store's own within it are made
            on the first spill; `close` removes that folder, and `directory` if then empty.
        memory_rows: Rows held in memory.

    Raises:
        ConfigError: `memory_rows` is below 1.

    Example:
        >>> with ScoreStore("run/scores") as store:
        ...     store.append([0, 1], [0.2, 0.7], groups=[5, 5])
        ...     store.append([1, 0], [0.7, 0.7], groups=[6, 6])
        ...     store.auc(), store.gauc().value
        (0.75, 0.75)
    """

    def __init__(self, directory: str | Path, *, memory_rows: int = 20_000_000) -> None:
        if memory_rows < 1:
            raise ConfigError(
                f"ScoreStore: memory_rows must be at least 1. Got {memory_rows}. "
                f"A million rows take about 75 MB."
            )
        self._directory = Path(directory)
        self._memory_rows = memory_rows
        self._folder: Path | None = None
        self._held: list[Rows] = []
        self._num_held = 0
        self._num_rows = 0
        self._form: tuple[str, ...] | None = None
        self._runs: dict[Order, list[StoredRun]] = {"prediction": [], "group": []}
        self._is_closed = False

    @property
    def num_rows(self) -> int:
        """Rows collected so far."""
        return self._num_rows

    @property
    def num_spills(self) -> int:
        """Times that rows were written to disk."""
        return len(self._runs["prediction"])

    def append(
        self,
        labels: npt.ArrayLike,
        predictions: npt.ArrayLike,
        groups: npt.ArrayLike | None = None,
        sample_weights: npt.ArrayLike | None = None,
    ) -> None:
        """Add rows; the arrays may be reused afterwards.

        Args:
            labels: (B,). 0 or 1.
            predictions: (B,). Probabilities or logits, of one dtype over all appends.
            groups: (B,), integers. The user or request of each row; always or never given.
            sample_weights: (B,). Finite, not negative; always or never given.

        Raises:
            DataError: As `auc`; columns or dtype differ from earlier rows; a spill cannot be
                written.
        """
        self._check_open()
        rows = check_rows(labels, predictions, sample_weights, groups, where="ScoreStore.append")
        self._check_form(rows)
        if len(rows) == 0:
            return
        # A copy: the caller may fill the same buffers with its next batch.
        self._held.append(rows.take(np.arange(len(rows))))
        self._num_held += len(rows)
        self._num_rows += len(rows)
        if self._num_held > self._memory_rows:
            self._spill()

    def auc(self) -> float:
        """Compute the AUC of all rows so far, groups aside; NaN where there is one class."""
        self._check_open()
        return count_one_group(self._merge("prediction"))

    def gauc(self) -> GroupedAUC:
        """Compute the GAUC of all rows so far, in memory that does not grow with the groups.

        Raises:
            DataError: Rows were appended without groups.
        """
        self._check_grouped("gauc")
        return sum_groups(count_pairs(self._merge("group")))

    def per_group_auc(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Compute each group's AUC and weight, as `rankloom.metrics.per_group_auc` does.

        The result takes 16 bytes a group. It is what `gauc_interval` needs.

        Raises:
            DataError: Rows were appended without groups.
        """
        self._check_grouped("per_group_auc")
        return collect_groups(count_pairs(self._merge("group")))

    def auc_interval(
        self,
        *,
        seed: int,
        num_resamples: int = NUM_RESAMPLES,
        level: float = 0.95,
        max_rows: int = MAX_ROWS,
    ) -> tuple[float, float]:
        """Compute a bootstrap interval of the AUC, from a sample where rows are many.

        Args:
            seed: Determines the sample and the resamples.
            num_resamples: Resamples of the sampled rows.
            level: Share of resamples inside the interval.
            max_rows: About how many rows to sample; see `rankloom.metrics.auc_interval`.
        """
        rows = self.sample(max_rows, seed=seed)
        interval = auc_interval(
            rows.labels,
            rows.predictions,
            rows.sample_weights,
            seed=seed,
            num_resamples=num_resamples,
            level=level,
            max_rows=max(1, len(rows)),
        )
        if len(rows) == self._num_rows:
            return interval
        sample_value = auc(rows.labels, rows.predictions, rows.sample_weights)
        return shrink_interval(interval, sample_value, self.auc(), share=len(rows) / self._num_rows)

    def sample(self, max_rows: int, *, seed: int) -> Rows:
        """Draw rows at random without replacement, for plots and intervals.

        Args:
            max_rows: Expected number of rows; all rows are given where there are no more.
            seed: With the same appends and the same seed the same rows are drawn.

        Returns:
            The rows, in no particular order, groups left out.
        """
        self._check_open()
        generator = np.random.default_rng(seed)
        share = max_rows / max(1, self._num_rows)
        held = concatenate(self._held).without_groups() if self._held else _NO_ROWS
        runs: list[Run] = [*self._runs["prediction"], held]
        parts = []
        for run in runs:
            for start in range(0, len(run), BLOCK_ROWS):
                block = run.read(start, BLOCK_ROWS)
                parts.append(block.take(generator.random(len(block)) < share))
        return concatenate(parts) if parts else _NO_ROWS

    def close(self) -> None:
        """Forget all rows and remove what was written."""
        self._is_closed = True
        self._held.clear()
        self._num_held = self._num_rows = 0
        self._runs = {"prediction": [], "group": []}
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
            # Other stores may share the directory, or the user may keep files in it: then it stays.
            with contextlib.suppress(OSError):
                self._directory.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _merge(self, order: Order) -> Iterator[Rows]:
        """Give all rows in one order, block by block; what is held counts as one more run."""
        runs: list[Run] = [*self._runs[order]]
        if self._held:
            runs.append(self._sort_held(order))
        for block in merge_runs(runs, max_rows=self._memory_rows, block_rows=BLOCK_ROWS):
            yield from split_rows(block)

    def _sort_held(self, order: Order) -> Rows:
        rows = concatenate(self._held)
        return rows.sort() if order == "group" else rows.without_groups().sort()

    def _spill(self) -> None:
        if self._folder is None:
            self._folder = self._make_folder()
        number = self.num_spills
        self._held = [concatenate(self._held)]
        orders: tuple[Order, ...] = ("prediction", "group") if self._has_groups else ("prediction",)
        runs = {
            order: StoredRun.write(self._folder / f"{order}-{number}", self._sort_held(order))
            for order in orders
        }
        for order, run in runs.items():
            self._runs[order].append(run)
        self._held.clear()
        self._num_held = 0

    def _make_folder(self) -> Path:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix="scores-", dir=self._directory))
        except OSError as error:
            raise DataError(
                f"{self._directory}: the scores for exact AUC cannot be spilled to disk. "
                f"Got: {error}. Name another folder or raise memory_rows."
            ) from error

    @property
    def _has_groups(self) -> bool:
        return self._form is not None and "groups" in self._form

    def _check_form(self, rows: Rows) -> None:
        form = [f"{rows.predictions.dtype} predictions"]
        form += ["sample_weights"] if rows.sample_weights is not None else []
        form += ["groups"] if rows.groups is not None else []
        if self._form is None:
            self._form = tuple(form)
        if self._form != tuple(form):
            raise DataError(
                f"ScoreStore.append: rows must carry the same columns as before. Got "
                f"{', '.join(form)} after {', '.join(self._form)}. Pass the same ones each time."
            )

    def _check_grouped(self, method: str) -> None:
        self._check_open()
        if self._form is not None and not self._has_groups:
            raise DataError(
                f"ScoreStore.{method}: rows have no groups. Got rows appended without them. "
                f"Pass groups to append."
            )

    def _check_open(self) -> None:
        if self._is_closed:
            raise ValueError("ScoreStore: it is closed. Got another call. Make a new store.")
