from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from rankloom.errors import ConfigError, DataError
from rankloom.metrics import ScoreStore, auc, auc_interval, gauc, per_group_auc
from rankloom.metrics.rows import Rows
from rankloom.metrics.runs import merge_runs


def make_columns(
    seed: int, num_rows: int, num_groups: int, num_levels: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.random(num_rows) < 0.4
    predictions = (generator.integers(0, num_levels, num_rows) / num_levels).astype(np.float32)
    groups = generator.integers(0, num_groups, num_rows)
    return labels, predictions, groups, generator.random(num_rows)


# With few levels ties span runs and blocks, with few groups so do groups; with memory_rows 1 a
# block is one row of each run.
@pytest.mark.parametrize("memory_rows", [1, 40, 1000])
@pytest.mark.parametrize(("num_groups", "num_levels"), [(1, 2), (3, 5), (60, 400)])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_spilled_results_equal_those_in_memory(
    tmp_path: Path, memory_rows: int, num_groups: int, num_levels: int, is_weighted: bool
) -> None:
    labels, predictions, groups, weights = make_columns(memory_rows, 200, num_groups, num_levels)
    all_weights = weights if is_weighted else None
    with ScoreStore(tmp_path / "scores", memory_rows=memory_rows) as store:
        for start in range(0, 200, 13):
            part = slice(start, start + 13)
            part_weights = weights[part] if is_weighted else None
            store.append(labels[part], predictions[part], groups[part], part_weights)
        assert (store.num_spills > 0) == (memory_rows < 200)
        expected = auc(labels, predictions, all_weights)
        assert store.auc() == pytest.approx(expected, rel=1e-12)
        ours, theirs = store.gauc(), gauc(groups, labels, predictions, all_weights)
        assert ours.value == pytest.approx(theirs.value, rel=1e-12, nan_ok=True)
        assert ours.num_groups == theirs.num_groups
        assert ours.num_scored_groups == theirs.num_scored_groups
        assert ours.one_class_row_share == pytest.approx(theirs.one_class_row_share, abs=1e-12)
        group_auc, group_weights = store.per_group_auc()
        expected_auc, expected_weights = per_group_auc(groups, labels, predictions, all_weights)
        np.testing.assert_allclose(group_auc, expected_auc, rtol=1e-11)
        np.testing.assert_allclose(group_weights, expected_weights, rtol=1e-12)


@pytest.mark.parametrize("block_rows", [1, 2, 5, 100])
def test_merged_blocks_are_the_sorted_rows(block_rows: int) -> None:
    labels, predictions, groups, _ = make_columns(5, 120, 4, 6)
    runs = [
        Rows(labels[part], predictions[part], groups=groups[part]).sort()
        for part in (slice(0, 50), slice(50, 53), slice(53, 53), slice(53, 120))
    ]
    blocks = list(merge_runs(runs, max_rows=1000, block_rows=block_rows))
    order = np.lexsort((predictions, groups))
    merged_groups = [block.groups for block in blocks if block.groups is not None]
    np.testing.assert_array_equal(np.concatenate(merged_groups), groups[order])
    merged = np.concatenate([block.predictions for block in blocks])
    np.testing.assert_array_equal(merged, predictions[order])
    assert max(len(block) for block in blocks) <= 3 * block_rows


def test_runs_whose_ranges_do_not_overlap_merge_too() -> None:
    runs = [Rows(np.ones(9, np.bool_), np.arange(9.0) + shift) for shift in (20, 0, 10)]
    blocks = list(merge_runs(runs, max_rows=6, block_rows=100))
    merged = np.concatenate([block.predictions for block in blocks])
    np.testing.assert_array_equal(merged, np.r_[0:9, 10:19, 20:29])


def test_collecting_goes_on_after_a_result(tmp_path: Path) -> None:
    with ScoreStore(tmp_path, memory_rows=2) as store:
        store.append([0, 1, 0], [0.1, 0.2, 0.3])
        assert store.auc() == 0.5
        store.append([1], [0.4])
        assert store.auc() == 0.75
        assert store.num_rows == 4


def test_appended_buffers_may_be_reused(tmp_path: Path) -> None:
    labels, predictions = np.array([False, True]), np.array([0.1, 0.9])
    with ScoreStore(tmp_path) as store:
        store.append(labels, predictions)
        labels[:], predictions[:] = True, 0.0
        assert store.auc() == 1.0


def test_nothing_is_written_while_rows_fit(tmp_path: Path) -> None:
    with ScoreStore(tmp_path / "scores", memory_rows=3) as store:
        store.append([0, 1, 1], [0.1, 0.2, 0.3])
        assert not (tmp_path / "scores").exists()
        store.append([0], [0.1])
        assert (tmp_path / "scores").exists()
    assert not (tmp_path / "scores").exists()


def test_close_leaves_files_of_others_alone(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text("{}")
    with ScoreStore(tmp_path, memory_rows=1) as store:
        store.append([0, 1], [0.1, 0.2])
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]


def test_an_exception_removes_the_files_too(tmp_path: Path) -> None:
    def interrupt() -> None:
        with ScoreStore(tmp_path / "scores", memory_rows=1) as store:
            store.append([0, 1], [0.1, 0.2])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert not (tmp_path / "scores").exists()


def test_an_empty_store_has_no_auc(tmp_path: Path) -> None:
    with ScoreStore(tmp_path) as store:
        assert math.isnan(store.auc())
        assert store.gauc().num_groups == 0
        assert all(math.isnan(end) for end in store.auc_interval(seed=0))


def test_gauc_without_groups_is_refused(tmp_path: Path) -> None:
    with ScoreStore(tmp_path) as store:
        store.append([0, 1], [0.1, 0.2])
        with pytest.raises(DataError, match="rows have no groups"):
            store.gauc()


def test_rows_must_keep_their_columns_and_dtype(tmp_path: Path) -> None:
    with ScoreStore(tmp_path) as store:
        store.append([0, 1], np.array([0.1, 0.2], dtype=np.float32))
        with pytest.raises(DataError, match="Got float64 predictions after float32 predictions"):
            store.append([0, 1], [0.1, 0.2])
        with pytest.raises(DataError, match="Got float32 predictions, groups after"):
            store.append([0, 1], np.array([0.1, 0.2], dtype=np.float32), [1, 1])


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with ScoreStore(tmp_path / "file" / "scores", memory_rows=1) as store:
        with pytest.raises(DataError, match="cannot be spilled to disk"):
            store.append([0, 1], [0.1, 0.2])
        # The rows are not lost.
        assert store.auc() == 1.0


def test_a_failed_spill_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScoreStore(tmp_path, memory_rows=4) as store:
        store.append([0, 1, 0, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.5], [1, 1, 1, 2, 2])
        (folder,) = tmp_path.iterdir()
        # The first order of the next spill is written, the second one fails.
        obstacle = folder / "group-1"
        obstacle.write_text("")
        more = [0, 0, 0, 0, 0], [0.15, 0.6, 0.7, 0.8, 0.9], [2, 2, 2, 2, 2]
        with pytest.raises(DataError, match="cannot be spilled"):
            store.append(*more)
        # Positives .2 .4 .5 against negatives .1 .15 .3 and four above.
        assert store.auc() == pytest.approx((2 + 3 + 3) / 21, rel=1e-12)
        obstacle.unlink()
        store.append([1], [1.0], [3])
        assert store.num_spills == 2
        assert store.auc() == pytest.approx((2 + 3 + 3 + 7) / 28, rel=1e-12)


def test_a_file_cut_short_is_noticed(tmp_path: Path) -> None:
    with ScoreStore(tmp_path, memory_rows=1) as store:
        store.append([0, 1, 1], [0.1, 0.2, 0.3])
        (path,) = tmp_path.rglob("prediction-0/predictions")
        path.write_bytes(path.read_bytes()[:-8])
        with pytest.raises(DataError, match=r"cut short\. Got 0 of 1 rows from row 2"):
            store.auc()


def test_a_sample_has_about_the_rows_asked_for_and_is_repeatable(tmp_path: Path) -> None:
    labels, predictions, groups, weights = make_columns(1, 4000, 9, 50)
    with ScoreStore(tmp_path, memory_rows=1500) as store:
        for start in range(0, 4000, 800):
            part = slice(start, start + 800)
            store.append(labels[part], predictions[part], groups[part], weights[part])
        first, second = store.sample(1000, seed=4), store.sample(1000, seed=4)
        # Binomial(4000, 1/4) has a standard deviation of 27.
        assert abs(len(first) - 1000) < 140
        np.testing.assert_array_equal(first.predictions, second.predictions)
        everything = store.sample(4000, seed=4)
        np.testing.assert_array_equal(np.sort(everything.predictions), np.sort(predictions))


def test_the_interval_of_a_store_is_that_of_its_rows(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels = generator.random(20_000) < 0.5
    predictions = generator.normal(size=20_000) + labels
    with ScoreStore(tmp_path, memory_rows=7_000) as store:
        store.append(labels[:9_000], predictions[:9_000])
        store.append(labels[9_000:], predictions[9_000:])
        low, high = store.auc_interval(seed=1, max_rows=5_000)
    expected_low, expected_high = auc_interval(labels, predictions, seed=1)
    assert low < auc(labels, predictions) < high
    # Widths of 200 resamples spread by about a tenth.
    assert high - low == pytest.approx(expected_high - expected_low, rel=0.35)


def test_a_closed_store_takes_nothing(tmp_path: Path) -> None:
    store = ScoreStore(tmp_path)
    store.close()
    with pytest.raises(ValueError, match="it is closed"):
        store.append([0], [0.1])


def test_memory_rows_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="memory_rows must be at least 1"):
        ScoreStore(tmp_path, memory_rows=0)
