"""Small schedules worked out by hand; costs are those of `schedules`."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.unit.serving.schedules import Thread, ask, keys, scheduler

from rankloom.serving.scheduling.scheduler import LONGEST_HOLD_S
from rankloom.serving.scheduling.work import UserWork


def test_the_least_deadline_goes_first() -> None:
    thread = Thread(scheduler()).run([(ask(1, 90), True), (ask(2, 30), True), (ask(3, 60), True)])
    assert thread.log == [[(2, 0, 100)], [(3, 0, 100)], [(1, 0, 100)]]
    assert thread.done == {2: 2.0, 3: 4.0, 1: 6.0}


def test_equal_deadlines_go_by_less_work_then_by_arrival() -> None:
    asks = [(ask(1, 50), True), (ask(2, 50), True), (ask(3, 50, 10), True)]
    assert list(Thread(scheduler()).run(asks).done) == [3, 1, 2]


def test_first_come_first_served_ignores_deadlines() -> None:
    thread = Thread(scheduler(order="fifo")).run([(ask(1, 90), True), (ask(2, 30), True)])
    assert list(thread.done) == [1, 2]


def test_a_state_is_computed_before_its_candidates() -> None:
    thread = Thread(scheduler()).run([(ask(1, 50, user_key="ann"), False)])
    assert thread.log == ["ann", [(1, 0, 100)]]
    assert thread.done == {1: 4.0}


def test_misses_of_one_user_share_the_work_even_while_it_runs() -> None:
    asks = [
        (ask(1, 50, user_key="ann"), False),
        (ask(2, 60, user_key="ann"), False),
        (ask(3, 70, user_key="ann", arrived_ms=1.0), False),
    ]
    thread = Thread(scheduler()).run(asks)
    assert thread.log == ["ann", [(1, 0, 100)], [(2, 0, 100)], [(3, 0, 100)]]


def test_shared_work_names_its_asks_the_most_urgent_first_and_is_counted_once() -> None:
    one = scheduler()
    assert one.submit(ask(1, 90, user_key="ann"), 0.0, has_state=False) is None
    # 2 ms for the state and two batches of 2 ms make 6.
    assert one.submit(ask(2, 6.0, user_key="ann"), 0.0, has_state=False) is None
    assert one.load(0.0).ahead_s == pytest.approx(0.006)
    assert one.next(0.0).work == UserWork("ann", (2, 1))


def test_who_would_be_late_is_refused_at_once() -> None:
    one = scheduler()
    assert one.submit(ask(1, 4.0), 0.0, has_state=True) is None  # done at 2
    refusal = one.submit(ask(2, 5.9, 300), 0.0, has_state=True)  # would be done at 6
    assert refusal is not None
    assert refusal.reason == "late"
    assert refusal.predicted_finish_s == pytest.approx(0.006)
    assert refusal.retry_after_s == pytest.approx(0.0001)
    assert one.submit(ask(3, 6.1, 300), 0.0, has_state=True) is None


@pytest.mark.parametrize(
    ("has_state", "refusal_hold", "as_candidates", "hold_ms"),
    # The first takes 19 ms of 20, the second 4, or 6 with user work: as long as 200 candidates.
    [
        (True, 0.5, 300, 11.5),
        (False, 0.5, 500, 12.5),
        (True, 0.25, 300, 5.75),
        (True, 0.0, 300, 0.0),
    ],
)
def test_a_refusal_holds_for_a_part_of_the_time_until_there_is_room(
    has_state: bool, refusal_hold: float, as_candidates: float, hold_ms: float
) -> None:
    one = scheduler(refusal_hold=refusal_hold)
    assert one.submit(ask(1, 20.0, 1800), 0.0, has_state=True) is None
    refusal = one.submit(ask(2, 17.0, 300), 0.0, has_state=has_state)
    assert refusal is not None
    assert refusal.as_candidates == pytest.approx(as_candidates)
    assert 1e3 * refusal.holds_s == pytest.approx(hold_ms)


def test_no_refusal_holds_for_long() -> None:
    one = scheduler(max_waiting_candidates=1_000_000)
    assert one.submit(ask(1, 5000.0, 400_000), 0.0, has_state=True) is None
    refusal = one.submit(ask(2, 2000.0, 100_000), 0.0, has_state=True)
    assert refusal is not None
    assert refusal.holds_s == LONGEST_HOLD_S


def test_who_needs_more_than_its_time_is_not_told_to_retry() -> None:
    refusal = scheduler().submit(ask(1, 5.0, 500), 0.0, has_state=True)
    assert refusal is not None
    assert (refusal.reason, refusal.retry_after_s) == ("late", None)


def test_who_would_make_an_admitted_one_late_is_refused() -> None:
    one = scheduler()
    assert one.submit(ask(1, 5.0, 300), 0.0, has_state=True) is None  # done at 4
    refusal = one.submit(ask(2, 4.0), 0.0, has_state=True)  # would delay it to 6
    assert refusal is not None
    assert refusal.reason == "crowding"
    assert refusal.predicted_finish_s == pytest.approx(0.002)
    assert one.submit(ask(3, 7.0), 0.0, has_state=True) is None


def test_who_is_late_anyway_is_no_reason_to_refuse() -> None:
    one = scheduler()
    assert one.submit(ask(1, 10.0, 800), 0.0, has_state=True) is None  # takes 9
    assert one.submit(ask(2, 9.0), 0.0, has_state=True) is not None
    # At 5 ms nothing has been done: 1 cannot be in time any more.
    assert one.submit(ask(2, 9.0), 0.005, has_state=True) is None


def test_what_is_computed_now_counts_until_its_end() -> None:
    one = scheduler()
    one.submit(ask(1, 50.0, 900), 0.0, has_state=True)
    one.next(0.0)  # until 10
    assert one.submit(ask(2, 11.9, arrived_ms=4.0), 0.004, has_state=True) is not None
    assert one.submit(ask(2, 12.1, arrived_ms=4.0), 0.004, has_state=True) is None


def test_what_is_overdue_is_expected_to_need_as_long_again() -> None:
    one = scheduler()
    one.submit(ask(1, 50.0, 900), 0.0, has_state=True)
    one.next(0.0)  # was to end at 10
    assert one.load(0.013).ahead_s == pytest.approx(0.003)


def test_the_answers_way_back_is_kept_free() -> None:
    one = scheduler(answer_ms=0.5)
    assert one.submit(ask(1, 2.4), 0.0, has_state=True) is not None
    assert one.submit(ask(1, 2.6), 0.0, has_state=True) is None


def test_predictions_are_raised_by_the_margin() -> None:
    plain = ask(1, 2.9)  # takes 2
    assert scheduler(margin=0.5).submit(plain, 0.0, has_state=True) is None
    # The deviation of the guess is a half: with a margin of 1, 2 ms become 3.05.
    raised = scheduler(margin=1.0, min_margin=1.0)
    assert raised.submit(plain, 0.0, has_state=True) is not None


def test_there_is_room_for_so_many() -> None:
    one = scheduler(max_waiting=2)
    assert [one.submit(ask(k, 90), 0.0, has_state=True) is None for k in (1, 2)] == [True, True]
    refusal = one.submit(ask(3, 90), 0.0, has_state=True)
    assert refusal is not None
    assert (refusal.reason, refusal.predicted_finish_s) == ("full", pytest.approx(0.006))
    other = scheduler(max_waiting_candidates=150, admission="none")
    assert other.submit(ask(1, 90), 0.0, has_state=True) is None
    assert other.submit(ask(2, 90), 0.0, has_state=True) is not None
    assert other.submit(ask(3, 90, 50), 0.0, has_state=True) is None


def test_without_admission_nothing_is_refused_for_its_time() -> None:
    one = scheduler(admission="none")
    assert one.submit(ask(1, 1.0, 900), 0.0, has_state=True) is None


@pytest.mark.parametrize(
    ("drop", "dropped"), [("never", ()), ("expired", (1,)), ("hopeless", (1, 2))]
)
def test_what_is_too_late_is_given_up(drop: str, dropped: tuple[int, ...]) -> None:
    one = scheduler(admission="none", drop=drop)
    for each in (ask(1, 3.0), ask(2, 6.0), ask(3, 9.0)):
        one.submit(each, 0.0, has_state=True)
    decision = one.next(0.005)  # 2 needs until 7, 3 until 7
    assert decision.dropped == dropped
    assert keys(decision.work) == [1 + len(dropped)]


@pytest.mark.parametrize("at_ms", [0, 1, 2, 4, 5])
def test_rounding_is_not_lateness(at_ms: int) -> None:
    # The time is exactly what it takes, 2 + 1 + 7 ms; sums of it differ in the last digits.
    one = (ask(1, at_ms + 10.0, 700, arrived_ms=at_ms), False)
    assert list(Thread(scheduler()).run([one]).done) == [1]


def test_long_requests_are_cut_into_equal_pieces() -> None:
    # 5 ms take 400 candidates: 1,000 are cut into three.
    thread = Thread(scheduler(max_micro_batch_ms=5.0)).run([(ask(1, 90, 1000), True)])
    assert thread.log == [[(1, 0, 334)], [(1, 334, 667)], [(1, 667, 1000)]]


def test_an_urgent_request_waits_for_one_piece_at_most() -> None:
    asks = [(ask(1, 90, 1000), True), (ask(2, 8.0, 100, arrived_ms=1.0), True)]
    thread = Thread(scheduler(max_micro_batch_ms=5.0)).run(asks)
    assert thread.log[:2] == [[(1, 0, 334)], [(2, 0, 100)]]
    assert thread.done[2] == pytest.approx(1 + 3.34 + 2)
    assert 2 in Thread(scheduler()).run(asks).refused


def test_set_wise_requests_are_never_cut() -> None:
    thread = Thread(scheduler(max_micro_batch_ms=5.0, batching=True))
    thread.run([(ask(1, 90, 1000, is_divisible=False), True)])
    assert thread.log == [[(1, 0, 1000)]]


@pytest.mark.parametrize(("max_cost", "sizes"), [(1.0, [100, 100, 100]), (0.5, [150, 150])])
def test_cutting_costs_a_share_at_most(max_cost: float, sizes: list[int]) -> None:
    # Of 1.5 ms, 1 ms is overhead: a piece may take another 1 ms, or 2 ms.
    one = scheduler(max_micro_batch_ms=1.5, max_cutting_cost=max_cost)
    thread = Thread(one).run([(ask(1, 90, 300), True)])
    assert [stop - start for ((_, start, stop),) in thread.log] == sizes


def test_work_is_not_begun_twice_at_once_and_only_what_was_given_ends() -> None:
    one = scheduler()
    one.submit(ask(1, 90), 0.0, has_state=True)
    work = one.next(0.0).work
    with pytest.raises(RuntimeError, match="neither finished nor failed"):
        one.next(0.001)
    with pytest.raises(RuntimeError, match="not being computed"):
        one.finished(UserWork("ann", ()), 0.001, 0.001)
    assert work is not None
    assert one.finished(work, 0.002, 0.002) == (1,)
    assert one.next(0.002) == (None, ())


def test_keys_are_unique_and_there_is_a_candidate() -> None:
    one = scheduler()
    one.submit(ask(1, 90), 0.0, has_state=True)
    for wrong in (ask(1, 90), ask(2, 90, 0)):
        with pytest.raises(ValueError, match=r"its key is in use, or it has no candidates"):
            one.submit(wrong, 0.0, has_state=True)


def test_scheduling_needs_no_torch() -> None:
    code = "import sys, rankloom.serving.scheduling.scheduler; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
