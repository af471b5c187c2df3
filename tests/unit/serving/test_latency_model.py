from __future__ import annotations

import math
import random

import pytest

from rankloom.serving.scheduling.latency_model import LatencyModel


def features(candidates: float) -> tuple[float, float]:
    return (candidates / 1000, 1.0)


def learn(model: LatencyModel, count: int, *, factor: float = 1.0, seed: int = 0) -> None:
    """Show work of 1 ms and 10 us a candidate, 10 to 1,000 of them, within a tenth."""
    rng = random.Random(seed)
    for _ in range(count):
        candidates = math.exp(rng.uniform(math.log(10), math.log(1000)))
        seconds = factor * (1e-3 + 10e-6 * candidates) * math.exp(rng.gauss(0, 0.1))
        model.observe(features(candidates), seconds)


def test_a_guess_holds_before_anything_is_seen() -> None:
    model = LatencyModel([0.01, 0.001], forgetting=0.995, floor_s=0.0, deviation=0.5)
    assert model.predict(features(500)) == pytest.approx((0.006, 0.003))


@pytest.mark.parametrize("guess", [[0.01, 0.001], [1.0, 0.1], [1e-5, 0.0]])
def test_costs_are_learned_whatever_the_guess(guess: list[float]) -> None:
    model = LatencyModel(guess, forgetting=0.995)
    learn(model, 300)
    for candidates in (0, 100, 1000, 3000):
        truth = 1e-3 + 10e-6 * candidates
        assert model.predict(features(candidates)).mean_s == pytest.approx(truth, rel=0.1)
    assert model.deviation == pytest.approx(0.1, rel=0.4)


def test_the_first_observation_says_how_far_too_low_the_guess_was() -> None:
    model = LatencyModel([1e-5, 1e-6], forgetting=0.995)  # a thousandth of the truth
    model.observe(features(500), 0.006)
    assert model.predict(features(500)).mean_s == pytest.approx(0.006, rel=0.01)
    assert model.predict(features(1000)).mean_s == pytest.approx(0.011, rel=0.01)


def test_what_cannot_be_told_apart_is_put_down_to_the_work() -> None:
    model = LatencyModel([0.012, 0.001], forgetting=0.995)
    for _ in range(1000):
        model.observe(features(500), 0.006)
    assert model.coefficients == pytest.approx([0.010, 0.001], rel=1e-6)


def test_a_hiccup_hardly_counts() -> None:
    model = LatencyModel([0.01, 0.001], forgetting=0.995)
    learn(model, 500)
    before = model.predict(features(500))
    model.observe(features(500), 0.06)  # ten times what it takes
    after = model.predict(features(500))
    assert after.mean_s == pytest.approx(before.mean_s, rel=0.02)
    assert after.deviation_s < 1.3 * before.deviation_s


def test_all_costs_can_be_rescaled_by_one_observation() -> None:
    model = LatencyModel([0.01, 0.001], forgetting=0.995)
    learn(model, 1000)
    model.rescale(features(500), 0.0012)  # a fifth
    learn(model, 3, factor=0.2, seed=1)
    assert model.predict(features(500)).mean_s == pytest.approx(0.0012, rel=0.1)
    assert model.predict(features(1000)).mean_s == pytest.approx(0.0022, rel=0.1)


@pytest.mark.parametrize("factor", [3.0, 1 / 3])
def test_a_lasting_change_is_followed(factor: float) -> None:
    model = LatencyModel([0.01, 0.001], forgetting=0.995)
    learn(model, 1000)
    learn(model, 150, factor=factor, seed=1)
    assert model.predict(features(500)).mean_s == pytest.approx(0.006 * factor, rel=0.2)


def test_coefficients_are_never_negative() -> None:
    model = LatencyModel([0.01, 0.001], forgetting=0.9)
    for candidates in (10, 100, 1000) * 30:
        model.observe(features(candidates), 1.0 / candidates)  # more work, less time
    assert min(model.coefficients) >= 0
    assert model.predict((0.0, 0.0)).mean_s >= 0


def test_what_is_not_seen_any_more_is_kept_however_long() -> None:
    model = LatencyModel([0.01, 0.002, 0.001], forgetting=0.9)
    for step in range(300):  # requests beside the first: 2 ms each
        model.observe((0.5, float(step % 3), 1.0), 0.006 + 0.002 * (step % 3))
    for _ in range(20_000):  # 0.9 ** 20,000 underflows
        model.observe((0.5, 0.0, 1.0), 0.006)
    assert model.coefficients[1] == pytest.approx(0.002, rel=1e-3)
    assert model.predict((0.5, 2.0, 1.0)).mean_s == pytest.approx(0.010, rel=1e-3)


@pytest.mark.slow
def test_a_million_updates_leave_it_as_good() -> None:
    model = LatencyModel([0.01, 0.001], forgetting=0.99)
    learn(model, 1_000_000)
    assert model.predict(features(500)).mean_s == pytest.approx(0.006, rel=0.1)
    assert model.deviation == pytest.approx(0.1, rel=0.5)
