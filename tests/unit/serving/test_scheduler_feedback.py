"""How margin and booking follow what happens."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from tests.unit.serving.schedules import ask, scheduler

from rankloom.serving.scheduling.booking import Booking
from rankloom.serving.scheduling.config import SchedulerConfig
from rankloom.serving.scheduling.margin import Margin
from rankloom.serving.scheduling.work import Timing


def busy_margin(**changes: float) -> Margin:
    margin = Margin(SchedulerConfig(margin=2.0, late_share=0.01, **changes))
    for second in range(1, 6):
        margin.worked(float(second), 1.0)
        margin.asked(float(second), 2.0)
    assert margin.is_busy
    return margin


def test_one_late_ask_outweighs_as_many_timely_ones_as_are_wanted() -> None:
    margin = busy_margin()
    margin.answered(is_late=True)
    assert margin.value == pytest.approx(2.25)
    for _ in range(99):
        margin.answered(is_late=False)
    assert margin.value == pytest.approx(2.0)


def test_while_the_thread_idles_timely_asks_say_nothing() -> None:
    margin = Margin(SchedulerConfig())
    margin.worked(1.0, 0.1)
    margin.worked(2.0, 0.1)
    assert margin.busy_share < 0.2
    margin.answered(is_late=False)
    assert margin.value == 2.0


def test_with_time_to_spare_little_of_the_margin_counts() -> None:
    margin = Margin(SchedulerConfig())
    for at in range(100):
        margin.asked(at / 10, 0.02)  # a fifth of the time
    assert margin.in_use == 0.5
    margin.answered(is_late=True)
    assert margin.value == 2.0
    for at in range(100, 200):
        margin.asked(at / 10, 0.12)
    assert margin.in_use == 2.0
    margin.answered(is_late=True)
    assert margin.in_use == margin.value == 2.25


def test_the_margin_keeps_its_bounds() -> None:
    margin = busy_margin(min_margin=1.9, max_margin=2.1)
    for _ in range(10):
        margin.answered(is_late=True)
    assert margin.value == 2.1
    for _ in range(100):
        margin.refused()
    assert margin.value == 1.9


def test_an_idle_thread_that_refuses_for_the_margin_alone_lowers_it() -> None:
    one = scheduler(margin=1.0, min_margin=0.95)
    assert one.submit(ask(1, 2.9), 0.0, has_state=True) is not None  # 2 ms are raised to 3.0
    assert one.load(0.0).margin == pytest.approx(0.98)
    assert one.submit(ask(1, 1.9), 0.0, has_state=True) is not None  # late by any margin
    assert one.load(0.0).margin == pytest.approx(0.98)


def test_late_and_dropped_asks_raise_the_margin_when_time_is_scarce() -> None:
    one = scheduler(margin=1.0)
    # 1,001 ms of work are asked for.
    for key, size in ((1, 100), (2, 100), (3, 99_600)):
        one.submit(ask(key, 10.0 * key, size), 0.0, has_state=True)
    work = one.next(0.0).work
    assert work is not None
    one.finished(work, 0.030, 0.030)  # 1 was due at 10 ms
    assert one.load(0.0).margin == pytest.approx(1.25)
    assert one.next(0.030).dropped == (2,)
    assert one.load(0.0).margin == pytest.approx(1.5)


@pytest.mark.parametrize(("num_spared", "margin"), [(99_000, 1.25), (0, 1.0)])
def test_time_is_scarce_even_if_what_wants_it_is_spared_the_trial(
    num_spared: int, margin: float
) -> None:
    one = scheduler(margin=1.0)
    one.submit(ask(1, 10.0), 0.0, has_state=True)
    one.was_spared(num_spared, 0.0)  # 10 us each
    work = one.next(0.0).work
    assert work is not None
    one.finished(work, 0.030, 0.030)
    assert one.load(0.0).margin == pytest.approx(margin)


def test_batches_are_as_long_as_the_most_urgent_of_recent_requests_could_wait() -> None:
    # Deadlines of 40 ms, of which work takes 11: half of the other 29 is room for 14.5 ms.
    one = scheduler(max_micro_batch_ms=5.0, max_slack_share=0.5)
    one.costs.note_slack(29e-3)
    assert one.costs.room_s == pytest.approx(13.5e-3)
    one.costs.note_slack(8e-3)  # an urgent one: 4 ms would be less than the least
    assert one.costs.room_s == pytest.approx(4e-3)
    one.costs.note_slack(-1.0)  # which cannot be in time, whatever others do
    assert one.costs.room_s == pytest.approx(4e-3)
    for _ in range(300):
        one.costs.note_slack(29e-3)
    assert one.costs.room_s == pytest.approx(13.5e-3, rel=0.01)


@pytest.mark.parametrize("has_state", [True, False])
def test_costs_once_too_high_are_found_out_by_one_probe(has_state: bool) -> None:
    one = scheduler()
    for _ in range(300):  # a slow time: a hundred times what follows
        one.costs.observe_user(0, 0.2)
        one.costs.observe_batch(100, 0, 1, 0.2)
    admitted_ms = []
    for at_ms in range(0, 5000, 100):
        now = at_ms / 1e3
        each = ask(at_ms, at_ms + 50.0, arrived_ms=at_ms)
        if one.submit(each, now, has_state=has_state) is None:
            admitted_ms.append(at_ms)
            decision = one.next(now)
            while decision.work is not None:
                now += 0.002
                one.finished(decision.work, now, 0.002)
                decision = one.next(now)
                assert decision.dropped == ()
    assert admitted_ms == list(range(1000, 5000, 100))  # after a second of refusals, all


def test_margins_out_of_order_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"must lie between min_margin and max_margin"):
        SchedulerConfig(margin=0.1)


def test_without_crowding_any_wait_is_allowed() -> None:
    booking = Booking()
    booking.refused()
    booking.idle()
    assert booking.excess_s(1e6, 1e6) <= 0


def test_crowding_shortens_the_wait_and_refusals_lengthen_it() -> None:
    booking = Booking()
    booking.crowded(0.2)
    assert booking.limit_s == pytest.approx(0.19)
    booking.refused()
    assert booking.limit_s == pytest.approx(0.1995)
    assert booking.excess_s(0.15, 0.0) <= 0 < booking.excess_s(0.25, 0.0)


def test_a_long_ask_may_wait_less() -> None:
    booking = Booking()
    booking.crowded(0.1)  # the wait may be 95 ms, less six times the work
    assert booking.excess_s(0.05, 0.007) <= 0 < booking.excess_s(0.05, 0.008)


def test_a_booked_thread_refuses_far_deadlines_but_not_the_nearest() -> None:
    one = scheduler(booking=True)
    assert one.submit(ask(1, 10.0, 800), 0.0, has_state=True) is None  # until 9
    crowded = one.submit(ask(2, 9.0), 0.0, has_state=True)
    assert crowded is not None
    assert crowded.reason == "crowding"
    # Up to 11 ms are booked, so a wait of 10.45 is allowed: 9 and six times 2 are more.
    far = one.submit(ask(3, 500.0), 0.0, has_state=True)
    assert far is not None
    assert far.reason == "full"
    assert far.retry_after_s == pytest.approx(0.009 + 0.012 - 0.01045)
    assert one.submit(ask(4, 2.0, 1), 0.0, has_state=True) is not None  # would make 1 late
    assert one.cancel(1)
    assert one.submit(ask(5, 500.0), 0.0, has_state=True) is None


def test_what_a_batch_costs_is_known_from_timings_of_several_sizes() -> None:
    # 4 ms and 20 us a candidate: from pieces of one size nobody could tell.
    one = scheduler(max_micro_batch_ms=8.0, guess_batch_ms=0.5)
    one.costs.begin_with(
        [Timing(0, size, 4e-3 + 20e-6 * size) for size in (8, 64, 512)] * 4 + [Timing(0, 0, 3e-3)]
    )
    assert one.costs.overhead_s == pytest.approx(4e-3, rel=0.1)
    assert one.costs.candidate_s(0) == pytest.approx(20e-6, rel=0.1)
    assert one.costs.predict_user(0).mean_s == pytest.approx(3e-3, rel=0.1)
