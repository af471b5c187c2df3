"""The cache of users' states: bounded by bytes, the oldest used go first."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from rankloom.serving.user_states import UserStates


@dataclass(frozen=True)
class State:
    num_bytes: int


def filled(max_bytes: int, **sizes: int) -> UserStates[State]:
    states: UserStates[State] = UserStates(max_bytes)
    for key, size in sizes.items():
        states.put(key, State(size))
    return states


def test_the_oldest_used_goes_first() -> None:
    states = filled(30, a=10, b=10, c=10)
    assert states.get("a") == State(10)
    states.put("d", State(10))
    assert states.get("b") is None
    assert all(states.get(key) for key in "acd")
    assert (states.num_bytes, states.counts.evictions) == (30, 1)
    assert (states.counts.hits, states.counts.misses) == (4, 1)


def test_a_large_state_drives_out_several() -> None:
    states = filled(30, a=10, b=10, c=10, d=25)
    assert (len(states), states.num_bytes, states.counts.evictions) == (1, 25, 3)


def test_what_is_larger_than_the_cache_is_not_kept_and_drives_out_nothing() -> None:
    states = filled(30, a=10, b=31)
    assert states.get("a") == State(10)
    assert states.get("b") is None
    assert (states.counts.too_large, states.counts.evictions) == (1, 0)


def test_a_state_put_again_counts_once() -> None:
    states = filled(30, a=10)
    states.put("a", State(12))
    assert (len(states), states.num_bytes) == (1, 12)
    # Too large now: the old one is of no use either.
    states.put("a", State(31))
    assert (len(states), states.num_bytes) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40))))
def test_the_bytes_are_those_of_the_states_and_within_the_bound(
    puts: list[tuple[int, int]],
) -> None:
    states: UserStates[State] = UserStates(50)
    for key, size in puts:
        states.put(key, State(size))
        held = [one for one in (states.get(key) for key in range(6)) if one is not None]
        assert sum(one.num_bytes for one in held) == states.num_bytes <= 50
        assert len(held) == len(states)
