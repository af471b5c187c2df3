from __future__ import annotations

import numpy as np
import pytest

from rankloom.data.hashing import hash_keys
from rankloom.data.inspection.coded import NULL_HASH
from rankloom.data.inspection.kinds import Guess
from rankloom.data.inspection.leaks import Label, column_auc, leak_findings, single_auc
from rankloom.data.inspection.samples import Rows

NUM_ROWS = 4_000


def hashed(values: np.ndarray) -> np.ndarray:
    return hash_keys(np.nan_to_num(values, nan=-1).astype(np.int64), seed=0)


def test_the_auc_of_one_column_by_hand():
    # Positives 2 and 3, negatives 1 and 2: of four pairs three are won and one is a tie.
    truth = np.array([False, False, True, True])
    assert single_auc(np.array([1.0, 2, 2, 3]), truth) == (3 + 0.5) / 4
    assert single_auc(np.array([3.0, 3, 2, 1]), truth) == 1.0  # the opposite is as good
    assert single_auc(np.array([1.0, 2]), np.array([True, True])) == 0.5


def test_a_bump_in_the_middle_is_seen():
    values = np.random.default_rng(0).normal(size=NUM_ROWS)
    truth = np.abs(values) < 0.5
    assert single_auc(values, truth) < 0.55
    assert column_auc(hashed(values * 1e6), values, truth) > 0.95


def test_an_id_of_every_row_says_nothing():
    generator = np.random.default_rng(1)
    truth = generator.random(NUM_ROWS) < 0.2
    ids = hash_keys(np.arange(NUM_ROWS), seed=0)
    assert column_auc(ids, np.full(NUM_ROWS, np.nan), truth) < 0.55


def findings(values: np.ndarray, truth: np.ndarray, kind: str = "dense", **options):
    rows = Rows(np.where(np.isnan(values), NULL_HASH, hashed(values))[:, None], values[:, None])
    label = Label("click", "click", truth.astype(float))
    return list(leak_findings(rows, ["x"], {"x": Guess(kind, "")}, [label], **options))


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(2).random(NUM_ROWS) < 0.3


def test_a_function_of_the_label_is_an_error(truth):
    (found,) = findings(np.where(truth, 7.0, 3.0), truth)
    assert (found.severity, found.where) == ("error", "x")
    assert "AUC of 1.0000" in found.got


def test_a_doubtful_column_is_a_warning(truth):
    noise = np.random.default_rng(3).normal(0, 0.4, NUM_ROWS)
    (found,) = findings(truth + noise, truth)
    assert found.severity == "warning"


def test_an_honest_column_is_no_finding(truth):
    noise = np.random.default_rng(4).normal(0, 1.0, NUM_ROWS)
    assert findings(truth + noise, truth) == []


def test_null_where_the_label_is_zero_is_an_error(truth):
    values = np.where(truth, np.random.default_rng(5).normal(size=NUM_ROWS), np.nan)
    (found,) = findings(values, truth)
    assert found.severity == "error"
    assert found.problem == "is null just where the label of 'click' is 0"


def test_nulls_without_any_positive_are_a_warning(truth):
    generator = np.random.default_rng(6)
    values = generator.normal(size=NUM_ROWS)
    values[~truth & (generator.random(NUM_ROWS) < 0.2)] = np.nan
    (found,) = findings(values, truth)
    assert (found.severity, "never null" in found.problem) == ("warning", True)


def test_an_outcome_is_a_warning_and_as_a_feature_an_error(truth):
    values = truth * 5.0
    (found,) = findings(values, truth, "outcome")
    assert (found.check, found.severity) == ("outcome_name", "warning")
    (found,) = findings(values, truth, "outcome", features=frozenset({"x"}))
    assert found.severity == "error"


def test_few_positives_are_not_judged(truth):
    few = np.zeros(NUM_ROWS, bool)
    few[:10] = True
    assert findings(few * 1.0, few) == []


def test_labels_and_ids_are_left_alone(truth):
    for kind in ("label", "user id", "item id", "oracle"):
        assert findings(truth * 1.0, truth, kind) == []
