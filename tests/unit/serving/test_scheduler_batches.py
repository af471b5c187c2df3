"""Which asks share a batch; costs are those of `schedules`."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.serving.schedules import Thread, ask, keys, scheduler

from rankloom.serving.scheduling.scheduler import Scheduler
from rankloom.serving.scheduling.work import Ask, UserWork


def waiting(*asks: Ask, missing: tuple[int, ...] = (), **changes: Any) -> Scheduler:
    one = scheduler(batching=True, **changes)
    for each in asks:
        assert one.submit(each, 0.0, has_state=each.key not in missing) is None
    return one


def test_small_asks_share_a_batch() -> None:
    thread = Thread(waiting(ask(1, 90), ask(2, 95), ask(3, 99))).run()
    assert thread.log == [[(1, 0, 100), (2, 0, 100), (3, 0, 100)]]
    assert thread.done == {1: 4.0, 2: 4.0, 3: 4.0}


def test_a_batch_ends_within_the_tightest_deadline_in_it() -> None:
    # Two end at 3 ms, three at 4.
    assert keys(waiting(ask(1, 3.5), ask(2, 95), ask(3, 99)).next(0.0).work) == [1, 2]
    assert keys(waiting(ask(1, 4.0), ask(2, 95), ask(3, 99)).next(0.0).work) == [1, 2, 3]


def test_sharing_is_counted_when_asks_are_admitted() -> None:
    one = scheduler(batching=True)
    for each in (ask(1, 6.0), ask(2, 6.0), ask(3, 6.0), ask(4, 6.0)):  # 8 ms one by one
        assert one.submit(each, 0.0, has_state=True) is None
    assert one.load(0.0).ahead_s == pytest.approx(0.005)
    assert one.submit(ask(5, 5.9), 0.0, has_state=True) is not None


def test_only_asks_of_one_group_share() -> None:
    one = waiting(ask(1, 90, group="a"), ask(2, 95, group="b"))
    assert keys(one.next(0.0).work) == [1]


def test_a_batch_passes_over_other_groups_unless_they_would_be_late() -> None:
    # 3 takes 1 ms more in the batch: 2, done at 4 otherwise, is done at 5.
    others = (ask(1, 90, group="a"), ask(3, 99, group="a"))
    assert keys(waiting(*others, ask(2, 95, group="b")).next(0.0).work) == [1, 3]
    urgent = waiting(ask(1, 3.9, group="a"), ask(2, 4.5, group="b"), ask(3, 99, group="a"))
    assert keys(urgent.next(0.0).work) == [1]


def test_what_is_passed_over_is_delayed_once_for_each() -> None:
    # 2 is done at 4; each that passes it takes 1 ms: there is time for one.
    asks = [ask(1, 5.2, group="a"), ask(2, 5.3, group="b"), ask(3, 90, group="a")]
    one = waiting(*asks, ask(4, 95, group="a"))
    assert keys(one.next(0.0).work) == [1, 3]


def test_large_asks_do_not_share() -> None:
    # Sharing saves 1 ms: a tenth of 10 ms is not more.
    assert keys(waiting(ask(1, 90), ask(2, 95, 900)).next(0.0).work) == [1]
    assert keys(waiting(ask(1, 90), ask(2, 95, 890)).next(0.0).work) == [1, 2]


def test_a_batch_is_no_longer_than_a_micro_batch() -> None:
    one = waiting(ask(1, 90), ask(2, 95), ask(3, 99), max_micro_batch_ms=3.0)
    assert keys(one.next(0.0).work) == [1, 2]


def test_the_last_piece_of_a_long_ask_shares() -> None:
    thread = Thread(waiting(ask(1, 90, 400), ask(2, 95), max_micro_batch_ms=4.0)).run()
    assert thread.log == [[(1, 0, 200)], [(1, 200, 400), (2, 0, 100)]]


def test_states_of_a_batch_are_computed_first() -> None:
    one = waiting(ask(1, 90), ask(2, 95), missing=(2,))
    assert one.next(0.0).work == UserWork(2, (2,))


def test_nobody_waits_for_a_state_that_costs_more_than_sharing_saves() -> None:
    one = waiting(ask(1, 90), ask(2, 95), missing=(2,), min_batching_gain=0.3)
    assert keys(one.next(0.0).work) == [1]  # saves 1 ms of 4


def test_a_state_in_time_for_the_batch_or_not_at_all() -> None:
    # With the state of 2 the batch would end at 5 ms.
    assert keys(waiting(ask(1, 4.9), ask(2, 95), missing=(2,)).next(0.0).work) == [1]


def test_a_request_never_waits_while_the_thread_idles() -> None:
    thread = Thread(scheduler(batching=True))
    thread.run([(ask(1, 90), True), (ask(2, 95, arrived_ms=0.1), True)])
    assert thread.done == {1: 2.0, 2: 4.0}
