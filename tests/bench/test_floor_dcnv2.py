from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from benchmarks.criteo_like import write_log
from benchmarks.floor_dcnv2 import RowwiseAdagrad, cheap_dropout, read_rows


def test_rowwise_adagrad_adds_repeated_ids_and_leaves_other_rows() -> None:
    weight = torch.zeros(4, 2)
    optimizer = RowwiseAdagrad(weight, learning_rate=0.5, eps=0.0)
    ids = torch.tensor([3, 1, 3])
    optimizer.step(ids, torch.tensor([[1.0, 2.0], [1.0, 1.0], [2.0, 2.0]]))
    # Row 3 has the gradient (3, 4), mean square 12.5; row 1 has (1, 1), mean square 1.
    root = 12.5**0.5
    expected = torch.tensor([[0, 0], [-0.5, -0.5], [0, 0], [-1.5 / root, -2.0 / root]])
    torch.testing.assert_close(weight, expected)
    optimizer.step(torch.tensor([1]), torch.tensor([[0.0, 2.0]]))
    # The accumulator of row 1 is now 1 + 2 = 3.
    torch.testing.assert_close(weight[1], torch.tensor([-0.5, -0.5 - 1.0 / 3**0.5]))


def test_cheap_dropout_keeps_the_mean_and_drops_the_stated_share() -> None:
    torch.manual_seed(1)
    dropped = cheap_dropout(torch.ones(400, 501), 0.25)
    assert abs((dropped == 0).double().mean().item() - 0.25) < 0.004  # four standard errors
    torch.testing.assert_close(dropped.max(), torch.tensor(4 / 3))


def test_rows_are_read_in_order_with_offsets_and_logarithms(tmp_path: Path) -> None:
    log = write_log(tmp_path, num_rows=300, seed=1, valid_rows=10)
    table = pq.read_table(log.train)
    rows = read_rows(log.train)
    assert rows.ids.shape == (300, 26)
    assert (rows.ids[:, 0].numpy() == table["c1"].to_numpy()).all()
    assert (rows.ids[:, 2].numpy() - table["c3"].to_numpy() == 10 + 16).all()  # after c1 and c2
    values = table["i4"].to_numpy()
    expected = np.nan_to_num(np.log1p(values), nan=0.0).astype(np.float32)
    np.testing.assert_allclose(rows.dense[:, 3].numpy(), expected, rtol=1e-6)
    assert (rows.labels.numpy() == table["label"].to_numpy()).all()
