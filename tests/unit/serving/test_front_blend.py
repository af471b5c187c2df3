"""The blended score and the order by it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankloom.errors import ConfigError
from rankloom.serving.front.blend import Blend, order_of

SCORES = {"click": np.array([0.5, 0.25]), "like": np.array([0.25, 1.0]), "a.b": np.array([2.0, 4])}


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("click", [0.5, 0.25]),
        ("click * 2 + like ** 0.5", [1.5, 1.5]),
        ("-(click - 1) / 2", [0.25, 0.375]),
        ("2 ** -click ** 2", [2**-0.25, 2**-0.0625]),
        ("+a.b - 1e1", [-8, -6]),
        ("min(click, like, 0.3)", [0.25, 0.25]),
        ("max(click, like)", [0.5, 1.0]),
        ("clip(a.b, 2.5, 3)", [2.5, 3.0]),
        ("log(exp(click)) + sqrt(like)", [1.0, 1.25]),
    ],
)
def test_a_formula_means_what_it_says(formula: str, expected: list[float]) -> None:
    np.testing.assert_allclose(Blend(formula, list(SCORES))(SCORES), expected, rtol=1e-15)


def test_without_a_formula_the_first_task_counts_and_is_copied() -> None:
    blended = Blend(None, ["click", "like"])(SCORES)
    np.testing.assert_array_equal(blended, [0.5, 0.25])
    assert not np.shares_memory(blended, SCORES["click"])


def test_what_is_undefined_is_infinite_or_nan_without_a_warning() -> None:
    scores = {"x": np.array([0.0, -1.0, 1.0])}
    np.testing.assert_array_equal(Blend("1 / x", ["x"])(scores), [np.inf, -1, 1])
    np.testing.assert_array_equal(Blend("x / 0 + x", ["x"])(scores), [np.nan, -np.inf, np.inf])
    np.testing.assert_array_equal(Blend("log(x)", ["x"])(scores), [-np.inf, np.nan, 0])
    np.testing.assert_array_equal(Blend("x ** 0.5", ["x"])(scores), [0, np.nan, 1])


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("clik * 2", "names 'clik', which is no task. Did you mean 'click'?"),
        ("a.c", "names 'a.c', which is no task. Did you mean 'a.b'?"),
        ("f().x + click", "names '....x', which is no task."),
        ("sqr(click)", "calls 'sqr', which is no function. Did you mean 'sqrt'?"),
        ("clip(click)", "gives clip 1 values. It takes 3."),
        ("min(click)", "gives min 1 values. It takes 2 or more."),
        ("min(*click, like)", r"holds '\*click', which no formula may."),
        ("log(x=click)", r"holds 'log\(x=click\)', which no formula may."),
        ("click if like else 1", "which no formula may."),
        ("__import__('os').system('true')", "names '....system'|holds|calls '__import__'"),
        ("[click][0]", "which no formula may."),
        ("click @ like", "which no formula may."),
        ("click // like", "which no formula may."),
        ("click < like", "which no formula may."),
        ("not click", "which no formula may."),
        ("True * click", "holds 'True'"),
        ("1j * click", "holds '1j'"),
        ("'a' * click", "which no formula may."),
        ("(x := click)", "which no formula may."),
        ("lambda: click", "which no formula may."),
        ("1 + 2", "names no task"),
        ("", "is no formula"),
        ("click +", "is no formula"),
        ("click; like", "is no formula"),
        ("click\0", "is no formula"),
        ("1e999 * click", "holds a number beyond"),
        ("9" * 400 + "* click", "holds a number beyond"),
        ("click" + " + 1" * 400, "is longer than 1000 characters"),
        ("click" + "+1" * 101, "is nested deeper than 100"),
        ("-" * 900 + "click", "is nested deeper than 100|is no formula"),
        ("(" * 400 + "click" + ")" * 400, "is no formula"),
        ("a" + ".b" * 490, "which is no task"),
    ],
)
def test_anything_else_is_refused_with_its_reason(formula: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Blend(formula, list(SCORES))


@given(st.text(alphabet="click+-*/().,0e1 @[]:'\\\n_", max_size=40))
def test_any_text_is_a_formula_or_a_config_error(formula: str) -> None:
    try:
        blended = Blend(formula, ["click", "like"])({"click": np.ones(3), "like": np.zeros(3)})
    except ConfigError:
        return
    assert blended.shape == (3,)


def test_the_best_come_first_ties_by_place_and_nan_last() -> None:
    blended = np.array([0.5, np.nan, np.inf, 0.5, -np.inf, 0.0, -0.0])
    assert order_of(blended).tolist() == [2, 0, 3, 5, 6, 4, 1]
    assert order_of(blended, 2).tolist() == [2, 0]
    assert order_of(blended, 99).tolist() == [2, 0, 3, 5, 6, 4, 1]
    assert order_of(blended).dtype == np.int64


@given(
    st.lists(st.sampled_from([0.0, 0.5, 1.0, np.nan, np.inf, -np.inf]), min_size=1, max_size=60),
    st.integers(1, 12),
)
def test_the_first_of_some_are_the_first_of_all(values: list[float], top_k: int) -> None:
    # Few distinct values, so that most limits are ties.
    def worse(place: int) -> tuple[bool, float, int]:
        value = values[place]
        return (np.isnan(value), 0.0 if np.isnan(value) else -value, place)

    expected = sorted(range(len(values)), key=worse)[:top_k]
    assert order_of(np.array(values), top_k).tolist() == expected


def test_of_many_ties_the_first_places_stay() -> None:
    values = np.random.default_rng(0).integers(0, 3, 2000).astype(float)
    assert order_of(values, 300).tolist() == np.flatnonzero(values == 2)[:300].tolist()
