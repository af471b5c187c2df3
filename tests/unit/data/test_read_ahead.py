from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from rankloom.data.read_ahead import ReadAhead


def count_up(is_stopped: Callable[[], bool]) -> Iterator[int]:
    number = 0
    while not is_stopped():
        yield number
        number += 1


def reading_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "rankloom-read-ahead"]


def test_items_come_in_order():
    assert list(ReadAhead(lambda _: iter(range(100)), size=3)) == list(range(100))
    assert not reading_threads()


def test_no_more_than_the_size_is_made_ahead():
    made = []

    def make(is_stopped: Callable[[], bool]) -> Iterator[int]:
        for number in count_up(is_stopped):
            made.append(number)
            yield number

    with ReadAhead(make, size=3) as ahead:
        assert [next(ahead) for _ in range(5)] == [0, 1, 2, 3, 4]
    # Five were used, three wait, and one is in the thread's hand.
    assert len(made) <= 9


def test_an_error_comes_where_its_item_would_have_come():
    def make(_: Callable[[], bool]) -> Iterator[int]:
        yield 1
        raise ValueError("bad")

    ahead = ReadAhead(make, size=3)
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="bad"):
        next(ahead)
    with pytest.raises(StopIteration):
        next(ahead)
    ahead.close()


def test_closing_ends_the_thread_and_the_items():
    ahead = ReadAhead(count_up, size=2)
    next(ahead)
    ahead.close()
    assert not reading_threads()
    with pytest.raises(StopIteration):
        next(ahead)


def test_dropping_the_iterator_ends_the_thread():
    ahead = ReadAhead(count_up, size=2)
    next(ahead)
    del ahead
    gc.collect()
    assert not reading_threads()


def test_a_program_ends_although_an_iterator_is_left_open():
    code = (
        "from rankloom.data.read_ahead import ReadAhead\n"
        "ahead = ReadAhead(lambda s: iter(range(10**9)), size=2)\n"
        "print(next(ahead))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("0\n", "")
