from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmarks import criteo_like
from benchmarks.criteo_like import draw_chunk, hashed_normal, splitmix64, write_log
from benchmarks.peers.protocol import auc, log_loss


def test_splitmix64_equals_the_published_sequence() -> None:
    # The first three outputs of SplitMix64 seeded with 1234567 (its state grows by gamma).
    gamma = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + i * gamma) % 2**64 for i in range(3)], dtype=np.uint64)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert splitmix64(states).tolist() == expected


def test_hashed_values_are_normal_fixed_per_id_and_independent_between_streams() -> None:
    ids = np.arange(20_000)
    values = hashed_normal(ids, seed=1, stream=3)
    assert values.mean() == pytest.approx(0.0, abs=0.03)  # four standard errors
    assert values.std() == pytest.approx(1.0, abs=0.03)
    assert (hashed_normal(ids[::-1], seed=1, stream=3)[::-1] == values).all()
    for other in (hashed_normal(ids, seed=1, stream=4), hashed_normal(ids, seed=2, stream=3)):
        assert abs(np.corrcoef(values, other)[0, 1]) < 0.03


def test_the_columns_types_and_ranges_are_criteos() -> None:
    batch = draw_chunk(5000, seed=1, part=0, chunk=0)
    names = [f"c{i}" for i in range(1, 27)] + [f"i{i}" for i in range(1, 14)] + ["label"]
    assert batch.schema.names == names
    assert {batch.schema.field(name).type for name in names[:26]} == {pa.int64()}
    assert {batch.schema.field(name).type for name in names[26:39]} == {pa.float64()}
    assert 0.2 < batch["label"].to_numpy().mean() < 0.3
    for name, cardinality in zip(names, criteo_like.CARDINALITIES, strict=False):
        ids = batch[name].to_numpy()
        assert 0 <= ids.min() <= ids.max() < cardinality
    for name in names[26:39]:
        values = batch[name].drop_null().to_numpy()
        assert values.min() >= 0.0
        assert values.mean() > 1.05 * np.median(values)  # a heavy tail
        assert 0.07 < batch[name].null_count / 5000 < 0.13


def test_cardinalities_go_from_ten_to_a_million() -> None:
    assert criteo_like.CARDINALITIES[0] == 10
    assert criteo_like.CARDINALITIES[-1] == 1_000_000
    assert len(criteo_like.CARDINALITIES) == 26


def test_ids_are_zipf_distributed_and_frequent_ids_are_not_small() -> None:
    ids = draw_chunk(20_000, seed=1, part=0, chunk=0)["c20"].to_numpy()
    values, counts = np.unique(ids, return_counts=True)
    frequent = values[np.argsort(-counts)][:10]
    assert counts.max() > 1000  # near 1 / sum(rank ** -1.1) of the rows
    assert frequent.max() > criteo_like.CARDINALITIES[19] // 2


@pytest.mark.parametrize("column", range(26))
def test_ranks_become_ids_one_to_one(column: int) -> None:
    cardinality = min(criteo_like.CARDINALITIES[column], 2000)
    ids = criteo_like._shuffle_ids(np.arange(cardinality), cardinality, seed=1, column=column)
    assert sorted(ids.tolist()) == list(range(cardinality))


def test_a_log_is_written_once_and_again_only_for_other_settings(tmp_path: Path) -> None:
    first = write_log(tmp_path, num_rows=500, seed=1, valid_rows=100)
    written_at = first.train.stat().st_mtime_ns
    assert write_log(tmp_path, num_rows=500, seed=1, valid_rows=100) == first
    assert first.train.stat().st_mtime_ns == written_at
    other = write_log(tmp_path, num_rows=500, seed=2, valid_rows=100)
    assert other.digest != first.digest
    back = write_log(tmp_path, num_rows=500, seed=1, valid_rows=100)
    assert back.digest == first.digest


def test_row_groups_repeat_in_a_longer_log_and_differ_in_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(criteo_like, "ROWS_PER_GROUP", 200)
    short = write_log(tmp_path / "short", num_rows=400, seed=1, valid_rows=200)
    long = write_log(tmp_path / "long", num_rows=500, seed=1, valid_rows=200)
    assert pq.ParquetFile(long.train).num_row_groups == 3
    assert pq.read_table(long.train).slice(0, 400) == pq.read_table(short.train)
    assert pq.read_table(short.valid) != pq.read_table(short.train).slice(0, 200)
    assert pq.ParquetFile(short.train).metadata.row_group(0).column(0).compression == "ZSTD"


def test_auc_counts_pairs_and_ties_as_one_half() -> None:
    labels = np.array([0, 1, 0, 1])
    # Pairs: (0.2, 0.2) tied, (0.2, 0.9) right, (0.5, 0.2) wrong, (0.5, 0.9) right.
    assert auc(labels, np.array([0.2, 0.2, 0.5, 0.9])) == pytest.approx(2.5 / 4)


def test_log_loss_of_two_rows() -> None:
    labels, probabilities = np.array([1, 0]), np.array([0.5, 0.75])
    assert log_loss(labels, probabilities) == pytest.approx((np.log(2) + np.log(4)) / 2)
