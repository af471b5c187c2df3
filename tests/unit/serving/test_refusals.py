"""What front ends remember of refusals."""

from __future__ import annotations

import pytest

from rankloom.serving.refusals import Hold, RecentRefusals

HOLD = Hold(num_candidates=300, budget_s=0.05, until_s=7.0)


@pytest.mark.parametrize(
    ("num_candidates", "budget_s", "now", "is_covered"),
    [
        (300, 0.05, 6.9, True),
        (500, 0.02, 6.9, True),
        (299, 0.05, 6.9, False),
        (300, 0.06, 6.9, False),
        # A budget is what reading left of it.
        (300, 0.0505, 6.9, True),
        (300, 0.05, 7.0, False),
    ],
)
def test_a_refusal_speaks_of_what_asks_for_no_less_for_a_while(
    num_candidates: int, budget_s: float, now: float, is_covered: bool
) -> None:
    refusals = RecentRefusals()
    assert not refusals.cover(num_candidates, budget_s, now)
    refusals.note(HOLD)
    assert refusals.cover(num_candidates, budget_s, now) == is_covered


def test_a_narrower_refusal_does_not_shorten_a_wider_one() -> None:
    refusals = RecentRefusals()
    refusals.note(HOLD)
    refusals.note(Hold(num_candidates=400, budget_s=0.02, until_s=6.0))
    assert refusals.cover(300, 0.05, 6.5)
    # One that asks for less holds for all that the first one did, and longer.
    refusals.note(Hold(num_candidates=100, budget_s=0.2, until_s=8.0))
    assert len(refusals._holds) == 1
    assert refusals.cover(300, 0.05, 7.5)


def test_candidates_that_were_spared_are_given_once() -> None:
    refusals = RecentRefusals()
    refusals.note(HOLD)
    for count in (300, 500, 299):
        refusals.cover(count, 0.05, 6.9)
    assert [refusals.take_spared(), refusals.take_spared()] == [800, 0]


def test_nothing_is_held_once_all_is_forgotten() -> None:
    refusals = RecentRefusals()
    refusals.note(HOLD)
    refusals.clear()
    assert not refusals.cover(300, 0.05, 6.9)
