"""What a simulated log turned out to be: rates, cardinalities, and how well the truth itself ranks.

Nothing is kept of a row: AUCs come from counts of positives and negatives by the logit in 2 ** 16
bins, whose width of 0.0005 leaves an error below 1e-5; GAUC is exact, since a user's rows are
together in one block.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rankloom.data.simulate.block import Impressions
from rankloom.data.simulate.config import SimulationConfig
from rankloom.data.simulate.people import Int64, People
from rankloom.data.simulate.signal import PARTS, RELEVANCE_PARTS, logit_of
from rankloom.data.simulate.world import Float32

TASKS = ("click", "like", "buy")
"""Tasks of 0 and 1."""
_BINS, _LARGEST = 1 << 16, 16.0

Bool = npt.NDArray[np.bool_]


class BinnedAuc:
    """AUC of logits in the order of their bins, a tie counting one half."""

    def __init__(self) -> None:
        self.counts = np.zeros((2, _BINS), np.int64)
        """Rows of each label and bin."""

    def add(self, logit: Float32, label: Bool) -> None:
        """Count some rows, (V,) each."""
        bins = ((logit + _LARGEST) * (_BINS / (2 * _LARGEST))).astype(np.int64)
        bins = np.clip(bins, 0, _BINS - 1)
        self.counts[0] += np.bincount(bins[~label], minlength=_BINS)
        self.counts[1] += np.bincount(bins[label], minlength=_BINS)

    def value(self) -> float | None:
        """Give the AUC, or None where a label is absent."""
        negatives, positives = self.counts
        below = np.cumsum(negatives) - negatives / 2
        pairs = int(negatives.sum()) * int(positives.sum())
        return float(positives @ below) / pairs if pairs else None


@dataclass
class GroupedAuc:
    """The users' AUCs, each weighing as much as its rows; users with one label only count none."""

    weighted: float = 0.0
    """Sum of rows times AUC."""
    rows: int = 0
    """Rows of the users that count."""

    def add(self, user: Int64, logit: Float32, label: Bool) -> None:
        """Count some rows, (V,) each; a user's rows come in one call."""
        order = np.lexsort((logit, user))
        user, label = user[order], label[order]
        starts = np.flatnonzero(np.diff(user, prepend=-1))
        count = np.diff(starts, append=len(user))
        rank = np.arange(1, len(user) + 1) - np.repeat(starts, count)
        positives = np.add.reduceat(label, starts, dtype=np.int64)
        ranks = np.add.reduceat(rank * label, starts)
        pairs = positives * (count - positives)
        counts = pairs > 0
        auc = (ranks - positives * (positives + 1) / 2)[counts] / pairs[counts]
        self.weighted += float(auc @ count[counts])
        self.rows += int(count[counts].sum())

    def value(self) -> float | None:
        """Give the GAUC, or None where no user counts."""
        return self.weighted / self.rows if self.rows else None


class SplitSummary:
    """Counts of one split."""

    def __init__(self) -> None:
        self.requests = self.rows = 0
        self.positives = dict.fromkeys(TASKS, 0)
        self.watch_s = 0.0
        self.auc: defaultdict[str, BinnedAuc] = defaultdict(BinnedAuc)
        self.gauc: defaultdict[str, GroupedAuc] = defaultdict(GroupedAuc)

    def add(self, block: Impressions, is_row: Bool, user: Int64) -> None:
        """Count the rows of a block that are of this split, with their users, (V,) each."""
        user = user[is_row]
        rows = {name: values[is_row] for name, values in block.rows.items()}
        truth = {name: values[is_row] for name, values in block.truth.items()}
        self.rows += len(user)
        if not len(user):
            return
        self.watch_s += float(rows["watch_s"].sum(dtype=np.float64))
        for task in TASKS:
            label = rows[task].astype(bool)
            self.positives[task] += int(label.sum())
            self._rank(task, logit_of(truth[task]), label, user)
        click, logit = rows["click"].astype(bool), logit_of(truth["click_unbiased"])
        self._rank("click_unbiased", logit, click, user)
        for name in RELEVANCE_PARTS:
            self.auc[f"click_unbiased without {name}"].add(logit - block.parts[name][is_row], click)

    def _rank(self, name: str, logit: Float32, label: Bool, user: Int64) -> None:
        self.auc[name].add(logit, label)
        self.gauc[name].add(user, logit, label)

    def to_dict(self) -> dict[str, Any]:
        """Give plain values."""
        return {
            "requests": self.requests,
            "rows": self.rows,
            "rate": {task: count / max(1, self.rows) for task, count in self.positives.items()},
            "mean_watch_s": self.watch_s / max(1, self.rows),
            "oracle_auc": {name: one.value() for name, one in self.auc.items()},
            "oracle_gauc": {name: one.value() for name, one in self.gauc.items()},
        }


class Summary:
    """Counts of a whole log.

    Args:
        config: Of the log.
        splits: Their names, in order of time.
    """

    def __init__(self, config: SimulationConfig, splits: Sequence[str]) -> None:
        self.config = config
        self.splits = {name: SplitSummary() for name in splits}
        self.num_rows = self.num_events = 0
        self.sums = np.zeros((2, len(PARTS)))
        """Sum and sum of squares of each part of the logit."""
        self.is_seen = {
            "user_id": np.zeros(config.users.count, bool),
            "item_id": np.zeros(config.items.count, bool),
        }

    def add(self, block: Impressions, split: Int64, people: People) -> None:
        """Count a block.

        Args:
            block: Its impressions.
            split: (R,) place of each request's split.
            people: Its users.
        """
        user = people.first_id + block.requests["user"].astype(np.int64)
        num_shown = block.requests["num_shown"].astype(np.int64)
        split_of_row, user_of_row = np.repeat(split, num_shown), np.repeat(user, num_shown)
        for place, one in enumerate(self.splits.values()):
            one.requests += int((split == place).sum())
            one.add(block, split_of_row == place, user_of_row)
        self.num_rows += len(user_of_row)
        self.num_events += int(block.requests["num_events"].sum())
        parts = np.stack([block.parts[name] for name in PARTS]).astype(np.float64)
        self.sums += np.stack((parts.sum(axis=1), (parts**2).sum(axis=1)))
        self.is_seen["user_id"][user] = True
        self.is_seen["item_id"][block.rows["item"]] = True

    def to_dict(self) -> dict[str, Any]:
        """Give plain values."""
        mean, square = self.sums / max(1, self.num_rows)
        variance = square - mean**2
        share = variance / (variance.sum() or 1.0)
        num_requests = sum(one.requests for one in self.splits.values())
        return {
            "config": self.config.to_dict(),
            "splits": {name: one.to_dict() for name, one in self.splits.items()},
            "share_of_logit_variance": dict(zip(PARTS, share.tolist(), strict=True)),
            "distinct": {name: int(seen.sum()) for name, seen in self.is_seen.items()},
            "mean_history_events": self.num_events / max(1, num_requests),
        }
