"""The plain-PyTorch floor of the DCN-V2 comparison: what a careful person writes by hand.

    python -m benchmarks.floor_dcnv2 TRAIN.parquet VALID.parquet

It knows this one log and this one model, checks nothing and cannot resume; a library's training
speed is read against it. All ids live in one weight with offsets; the looked-up vectors are a leaf,
so autograd never spans the table; repeated ids are merged and only used rows change.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.criteo_like import CARDINALITIES, DENSE_COLUMNS, SPARSE_COLUMNS
from benchmarks.machine import has_bf16_units
from benchmarks.peers.protocol import (
    Report,
    Stopwatch,
    Task,
    make_report,
    parse_arguments,
    print_report,
)

NUM_EMBEDDINGS = sum(CARDINALITIES)
OFFSETS = np.cumsum((0, *CARDINALITIES[:-1]))
WIDTH_MULTIPLE = 16
"""Columns of zeros round the input's width up to this: matmuls of odd widths are 1.4x slower."""


@dataclass(frozen=True)
class Rows:
    """A whole file as tensors."""

    ids: Tensor
    """(B, F) int32. Rows of the one table."""
    dense: Tensor
    """(B, F) float32. log1p of the values, 0 where missing."""
    labels: Tensor
    """(B,) float32."""


@dataclass(frozen=True)
class FloorSettings:
    """What the floor may choose freely, beside the shared `Task`."""

    sparse_learning_rate: float = 0.03
    embedding_std: float = 0.01
    weight_decay: float = 0.0
    dropout: float = 0.0
    use_bf16: bool = False


class DcnV2(nn.Module):
    """DCN-V2 (arXiv:2008.13535), cross network and MLP side by side, as in the peers.

    The MLP has batch normalization, as torch-rechub's has: without it the AUC is 0.003 lower.
    """

    def __init__(self, input_dim: int, task: Task, *, dropout: float) -> None:
        super().__init__()
        self.crosses = nn.ModuleList(
            nn.Linear(input_dim, input_dim) for _ in range(task.num_cross_layers)
        )
        widths = (input_dim, *task.hidden_dims)
        self.hidden = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in task.hidden_dims)
        self.out = nn.Linear(input_dim + widths[-1], 1)
        self.dropout = dropout

    def forward(self, x0_BD: Tensor) -> Tensor:
        """Give the logits (B,) of concatenated embeddings and dense values (B, D)."""
        x_BD = x0_BD
        for cross in self.crosses:
            x_BD = torch.addcmul(x_BD, x0_BD, cross(x_BD))
        h_BD = x0_BD
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            h_BD = F.relu(norm(layer(h_BD)))
            if self.training and self.dropout:
                h_BD = cheap_dropout(h_BD, self.dropout)
        return self.out(torch.cat((x_BD, h_BD), dim=1)).squeeze(1).float()


def cheap_dropout(x: Tensor, rate: float) -> Tensor:
    """Drop each element with a probability of `rate` rounded to 1/256.

    One 64-bit draw decides eight elements: an eighth of the draws of `F.dropout`, which cost a
    quarter of this model's step.
    """
    threshold = round(rate * 256)
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    keep = words.view(torch.uint8)[: x.numel()].view(x.shape) >= threshold
    return x * keep * (256 / (256 - threshold))


class RowwiseAdagrad:
    """Adagrad with one accumulator a row, applied to the rows of one batch."""

    def __init__(self, weight_VD: Tensor, *, learning_rate: float, eps: float = 1e-8) -> None:
        self.weight_VD = weight_VD
        self.sum_V = torch.zeros(weight_VD.shape[0])
        self.learning_rate = learning_rate
        self.eps = eps

    def step(self, ids_N: Tensor, gradient_ND: Tensor) -> None:
        """Change the rows `ids_N`, whose gradients are added up where an id comes twice.

        Args:
            ids_N: (N,) int32 or int64.
            gradient_ND: (N, D).
        """
        rows_U, inverse_N = torch.unique(ids_N, return_inverse=True)
        merged_UD = gradient_ND.new_zeros(rows_U.shape[0], gradient_ND.shape[1])
        merged_UD.index_add_(0, inverse_N, gradient_ND)
        sum_U = self.sum_V[rows_U] + merged_UD.square().mean(dim=1)
        self.sum_V[rows_U] = sum_U
        scale_U = -self.learning_rate / (sum_U.sqrt() + self.eps)
        self.weight_VD.index_add_(0, rows_U, merged_UD.mul_(scale_U[:, None]))


class Floor:
    """The table, the network and their optimizers."""

    def __init__(self, task: Task, settings: FloorSettings) -> None:
        torch.manual_seed(task.seed)
        self.settings = settings
        self.batch_size = task.batch_size
        self.table_VD = torch.empty(NUM_EMBEDDINGS, task.embedding_dim)
        self.table_VD.normal_(0, settings.embedding_std)
        used_dim = len(SPARSE_COLUMNS) * task.embedding_dim + len(DENSE_COLUMNS)
        self.num_zeros = -used_dim % WIDTH_MULTIPLE
        self.network = DcnV2(used_dim + self.num_zeros, task, dropout=settings.dropout)
        self.sparse = RowwiseAdagrad(self.table_VD, learning_rate=settings.sparse_learning_rate)
        self.dense = torch.optim.AdamW(
            self.network.parameters(),
            lr=task.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def step(self, ids_BF: Tensor, dense_BF: Tensor, labels_B: Tensor) -> None:
        """Train on one batch."""
        vectors_BFD = F.embedding(ids_BF, self.table_VD).requires_grad_()
        logits_B = self._logits(vectors_BFD, dense_BF)
        loss = F.binary_cross_entropy_with_logits(logits_B, labels_B)
        self.dense.zero_grad(set_to_none=True)
        loss.backward()
        self.dense.step()
        # Adagrad does not see the loss's scale, so the mean over the batch does no harm.
        self.sparse.step(ids_BF.flatten(), vectors_BFD.grad.flatten(0, 1))

    def train_epoch(self, rows: Rows, *, seed: int) -> None:
        """Train once on all rows, in an order drawn from `seed`."""
        self.network.train()
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(rows.labels.shape[0], generator=generator)
        for batch in order.split(self.batch_size):
            self.step(rows.ids[batch], rows.dense[batch], rows.labels[batch])

    @torch.no_grad()
    def score(self, rows: Rows) -> Tensor:
        """Give the probabilities (B,) of all rows."""
        self.network.eval()
        parts = []
        for ids_BF, dense_BF in zip(
            rows.ids.split(self.batch_size), rows.dense.split(self.batch_size), strict=True
        ):
            vectors_BFD = F.embedding(ids_BF, self.table_VD)
            parts.append(self._logits(vectors_BFD, dense_BF))
        return torch.cat(parts).sigmoid()

    def _logits(self, vectors_BFD: Tensor, dense_BF: Tensor) -> Tensor:
        zeros = dense_BF.new_zeros(dense_BF.shape[0], self.num_zeros)
        precision = (
            torch.autocast("cpu", torch.bfloat16)
            if self.settings.use_bf16
            else contextlib.nullcontext()
        )
        with precision:
            return self.network(torch.cat((vectors_BFD.flatten(1), dense_BF, zeros), dim=1))


def read_rows(path: Path) -> Rows:
    """Read a file of `criteo_like.write_log` row group by row group into tensors made up front."""
    file = pq.ParquetFile(path)
    total = file.metadata.num_rows
    ids = np.empty((total, len(SPARSE_COLUMNS)), dtype=np.int32)
    dense = np.empty((total, len(DENSE_COLUMNS)), dtype=np.float32)
    labels = np.empty(total, dtype=np.float32)
    start = 0
    for group in range(file.num_row_groups):
        table = file.read_row_group(group)
        rows = slice(start, start + table.num_rows)
        for i, name in enumerate(SPARSE_COLUMNS):
            ids[rows, i] = table[name].to_numpy() + OFFSETS[i]
        for i, name in enumerate(DENSE_COLUMNS):
            dense[rows, i] = table[name].to_numpy()
        labels[rows] = table["label"].to_numpy()
        np.log1p(dense[rows], out=dense[rows])
        np.nan_to_num(dense[rows], copy=False, nan=0.0)
        start = rows.stop
    return Rows(torch.from_numpy(ids), torch.from_numpy(dense), torch.from_numpy(labels))


def run_floor(train: Path, valid: Path, task: Task, settings: FloorSettings) -> Report:
    """Train one epoch from Parquet, with the clock of `peers.protocol`.

    Args:
        train: Log to train on.
        valid: Log to score after the epoch.
        task: Shared settings; `num_threads` is set by the caller.
        settings: The floor's own.
    """
    watch = Stopwatch()
    rows = read_rows(train)
    watch.lap("preprocessing")
    floor = Floor(task, settings)
    floor.train_epoch(rows, seed=task.seed)
    watch.lap("train")
    held_out = read_rows(valid)
    return make_report(
        watch,
        num_rows=rows.labels.shape[0],
        labels=held_out.labels.numpy(),
        scores=floor.score(held_out).numpy(),
        notes=[f"{settings}"],
    )


def main() -> None:
    """Run the floor alone and print its report."""
    train, valid, task = parse_arguments(__doc__ or "")
    torch.set_num_threads(task.num_threads)
    print_report(run_floor(train, valid, task, FloorSettings(use_bf16=has_bf16_units())))


if __name__ == "__main__":
    main()
