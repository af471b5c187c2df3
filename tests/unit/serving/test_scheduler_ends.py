"""Asks that end otherwise than by an answer; costs are those of `schedules`."""

from __future__ import annotations

from tests.unit.serving.schedules import Thread, ask, keys, scheduler

from rankloom.serving.scheduling.work import UserWork


def test_a_cancelled_ask_is_not_computed_and_makes_room() -> None:
    one = scheduler(max_waiting=1)
    one.submit(ask(1, 90), 0.0, has_state=True)
    assert one.cancel(1)
    assert not one.cancel(1)
    assert one.load(0.0)[:3] == (0, 0, 0.0)
    assert one.submit(ask(2, 90), 0.0, has_state=True) is None
    assert keys(one.next(0.0).work) == [2]


def test_a_cancelled_ask_in_a_batch_is_not_reported() -> None:
    one = scheduler(batching=True)
    for key in (1, 2):
        one.submit(ask(key, 90), 0.0, has_state=True)
    work = one.next(0.0).work
    assert keys(work) == [1, 2]
    assert one.cancel(1)
    assert work is not None
    assert one.finished(work, 0.003, 0.003) == (2,)


def test_the_rest_of_a_cancelled_long_ask_is_not_computed() -> None:
    one = scheduler(max_micro_batch_ms=5.0)
    one.submit(ask(1, 90, 1000), 0.0, has_state=True)
    work = one.next(0.0).work
    one.cancel(1)
    assert work is not None
    assert one.finished(work, 0.005, 0.005) == ()
    assert one.next(0.005).work is None
    assert one.load(0.005).waiting_candidates == 0


def test_a_state_is_computed_as_long_as_anyone_needs_it() -> None:
    one = scheduler()
    for key in (1, 2):
        one.submit(ask(key, 90, user_key="ann"), 0.0, has_state=False)
    one.cancel(1)
    assert one.next(0.0).work == UserWork("ann", (2,))
    other = scheduler()
    other.submit(ask(1, 90, user_key="ann"), 0.0, has_state=False)
    other.cancel(1)
    assert other.next(0.0).work is None


def test_the_others_still_pay_for_the_state_of_a_cancelled_ask() -> None:
    one = scheduler()
    for key in (1, 2):
        one.submit(ask(key, 90, user_key="ann"), 0.0, has_state=False)
    one.cancel(1)
    assert one.load(0.0).ahead_s == 0.004


def test_who_comes_after_all_have_gone_still_shares_running_work() -> None:
    one = scheduler()
    one.submit(ask(1, 90, user_key="ann"), 0.0, has_state=False)
    work = one.next(0.0).work
    one.cancel(1)
    one.submit(ask(2, 90, user_key="ann"), 0.001, has_state=False)
    assert work is not None
    assert one.finished(work, 0.002, 0.002) == ()
    assert keys(one.next(0.002).work) == [2]


def test_a_refused_ask_leaves_nothing_behind() -> None:
    one = scheduler()
    assert one.submit(ask(1, 1.0, user_key="ann"), 0.0, has_state=False) is not None
    assert one.load(0.0)[:3] == (0, 0, 0.0)
    one.submit(ask(1, 90, user_key="ann"), 0.0, has_state=False)
    assert one.next(0.0).work == UserWork("ann", (1,))


def test_failed_user_work_ends_all_that_wait_for_it() -> None:
    one = scheduler()
    for key, user in ((1, "ann"), (2, "ann"), (3, "bob")):
        one.submit(ask(key, 90, user_key=user), 0.0, has_state=False)
    work = one.next(0.0).work
    assert work is not None
    assert one.failed(work) == (1, 2)
    assert Thread(one).run().log == ["bob", [(3, 0, 100)]]


def test_a_failed_batch_ends_its_asks_whole_or_in_pieces() -> None:
    one = scheduler(max_micro_batch_ms=5.0)
    for key in (1, 2):
        one.submit(ask(key, 90, 1000), 0.0, has_state=True)
    work = one.next(0.0).work
    assert work is not None
    assert one.failed(work) == (1,)
    assert list(Thread(one).run().done) == [2]


def test_a_failure_teaches_nothing_about_costs() -> None:
    one = scheduler()
    one.submit(ask(1, 90), 0.0, has_state=True)
    work = one.next(0.0).work
    assert work is not None
    one.failed(work)
    assert one.costs.batch.num_observations == 0
