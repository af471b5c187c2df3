"""Redis that stalls, dies and comes back: requests are answered all the while, and rightly."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.serving.store_world import (
    ALL_KINDS,
    INDEXES,
    RedisServer,
    running_redis,
)

from rankloom.errors import DataError, OverloadedError
from rankloom.schema import DenseFeature, Roles, Schema, SparseFeature
from rankloom.serving.request import RankRequest
from rankloom.serving.store.breaker import Breaker
from rankloom.serving.store.door import FeatureDoor
from rankloom.serving.store.user_writer import UserWriter

SCHEMA = Schema(
    {
        "user_id": SparseFeature(side="user", hash_buckets=9),
        "age": DenseFeature(side="user", default=-1.0),
    },
    roles=Roles(user="user_id"),
)
QUICK = {"probe_every_s": 0.05, "probe_at_most_s": 0.1, "breaker_failures": 3}


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as server:
        yield server


def with_door(
    server: RedisServer, act: Callable[[FeatureDoor], Awaitable[None]], **options: Any
) -> None:
    async def run() -> None:
        door = FeatureDoor.open(server.config(**{**QUICK, **options}), SCHEMA, INDEXES)
        try:
            await act(door)
        finally:
            await door.close()

    asyncio.run(run())


async def age_of(door: FeatureDoor, user: int, deadline_ms: float | None = None) -> Any:
    request = RankRequest(user={"user_id": user}, candidates={}, deadline_ms=deadline_ms)
    return (await door.fill(request)).user["age"]


def write_ages(redis: RedisServer, count: int = 100) -> None:
    with UserWriter(redis.config()) as writer:
        for user in range(count):
            writer.put(user, {"age": float(user)})


def pause(redis: RedisServer, ms: int) -> None:
    with redis.client() as client:
        client.client_pause(ms)


async def until_closed(door: FeatureDoor) -> None:
    deadline = time.monotonic() + 20
    while door.is_open:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_redis_may_die_and_come_back(redis):
    async def act(door: FeatureDoor) -> None:
        write_ages(redis)
        assert [await age_of(door, user) for user in range(5)] == [0.0, 1.0, 2.0, 3.0, 4.0]
        redis.stop()
        assert [await age_of(door, 1) for _ in range(3)] == [None] * 3
        assert door.is_open
        assert (door.counts.users_found, door.counts.users_unreachable) == (5, 3)
        began = time.perf_counter()
        assert [await age_of(door, 1) for _ in range(200)] == [None] * 200
        assert (time.perf_counter() - began) / 200 < 0.002
        assert door.counts.users_not_asked == 200
        redis.start()
        write_ages(redis)
        await until_closed(door)
        # Its scripts are gone too.
        assert [await age_of(door, user) for user in range(5)] == [0.0, 1.0, 2.0, 3.0, 4.0]
        assert door.counts.users_unreachable == 3

    with_door(redis, act)


def test_redis_need_not_be_there_at_the_start(redis):
    async def act(door: FeatureDoor) -> None:
        assert [await age_of(door, 1) for _ in range(5)] == [None] * 5
        redis.start()
        write_ages(redis)
        await until_closed(door)
        assert await age_of(door, 7) == 7.0

    redis.stop()
    with_door(redis, act)


def test_a_stalling_redis_costs_the_timeout_and_then_nothing(redis):
    async def act(door: FeatureDoor) -> None:
        assert await age_of(door, 7) == 7.0
        await asyncio.to_thread(pause, redis, 1000)
        began = time.perf_counter()
        assert [await age_of(door, 7) for _ in range(50)] == [None] * 50
        # Three timeouts, and 47 that did not wait.
        assert 0.15 <= time.perf_counter() - began < 0.6
        assert (door.counts.users_unreachable, door.counts.users_not_asked) == (3, 47)
        await until_closed(door)
        assert await age_of(door, 7) == 7.0

    write_ages(redis)
    with_door(redis, act, timeout_ms=50.0)


def test_no_reply_is_ever_anothers(redis):
    """Requests that give up leave replies behind, which must not be taken for later ones."""

    async def act(door: FeatureDoor) -> None:
        answered = 0
        for round_ in range(30):
            if round_ % 3 == 0:
                await asyncio.to_thread(pause, redis, 15)
            users = [(7 * round_ + at) % 100 for at in range(20)]
            deadlines = [1000.0 if at % 2 else 10.0 for at in range(20)]
            asked = [age_of(door, u, d) for u, d in zip(users, deadlines, strict=True)]
            for user, age in zip(users, await asyncio.gather(*asked), strict=True):
                assert age in {None, float(user)}
                answered += age is not None
        assert answered >= 200
        assert door.counts.users_unreachable > 0

    write_ages(redis)
    with_door(redis, act, breaker_failures=1_000_000, connections=3, deadline_share=0.5)


def test_cancelled_requests_leave_nothing_behind(redis):
    async def act(door: FeatureDoor) -> None:
        for user in range(100):
            task = asyncio.ensure_future(age_of(door, user))
            for _ in range(user % 7):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await age_of(door, 99 - user) == 99.0 - user

    write_ages(redis)
    with_door(redis, act, connections=2)


def test_clients_without_time_do_not_open_the_breaker(redis):
    async def act(door: FeatureDoor) -> None:
        assert [await age_of(door, 7, 0.0) for _ in range(50)] == [None] * 50
        assert not door.is_open
        assert door.counts.users_unreachable == 50
        assert await age_of(door, 7) == 7.0

    write_ages(redis)
    with_door(redis, act)


def test_more_requests_than_connections_wait_for_them(redis):
    async def act(door: FeatureDoor) -> None:
        ages = await asyncio.gather(*(age_of(door, user) for user in range(100)))
        assert ages == [float(user) for user in range(100)]
        with redis.client() as client:
            # Two, and the one that asks.
            assert len(client.client_list()) == 3

    write_ages(redis)
    with_door(redis, act, connections=2)


def test_a_unix_socket_does_as_well(redis):
    async def act(door: FeatureDoor) -> None:
        assert await age_of(door, 7) == 7.0

    write_ages(redis)
    with_door(redis, act, redis=f"unix://{redis.folder}/socket?db=0")


def test_an_unreachable_redis_may_be_refused(redis):
    async def act(door: FeatureDoor) -> None:
        for _ in range(5):
            with pytest.raises(OverloadedError, match=r"redis: d.*again"):
                await age_of(door, 1)
        assert door.is_open

    redis.stop()
    with_door(redis, act, unreachable="refuse")


def test_an_unreachable_redis_is_not_the_clients_mistake(redis):
    async def act() -> None:
        # `clicks` has no default: an unknown user would be a RequestError.
        door = FeatureDoor.open(redis.config(), ALL_KINDS, INDEXES)
        with pytest.raises(OverloadedError):
            await door.fill(RankRequest(user={"user_id": 1}, candidates={}))
        await door.close()

    redis.stop()
    asyncio.run(act())


def test_something_else_on_the_port_is_no_redis(redis):
    redis.stop()
    with socket.create_server(("127.0.0.1", redis.port)) as listening:

        async def act(door: FeatureDoor) -> None:
            async def answer(_: Any, writer: asyncio.StreamWriter) -> None:
                writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 1000)
                await writer.drain()
                writer.close()

            async with await asyncio.start_server(answer, sock=listening):
                assert [await age_of(door, 1) for _ in range(5)] == [None] * 5
                assert door.is_open

        with_door(redis, act, timeout_ms=500.0)


GARBAGE = (
    *(b"+OK\r\n", b"$-5\r\n", b"$abc\r\n", b":abc\r\n", b"*3\r\n", b"*-1\r\n", b"%2\r\n", b"_\r\n"),
    *(
        b"#x\r\n",
        b",1e\r\n",
        b"=15\r\n",
        b">3\r\n",
        b"-ERR \xff\r\n",
        b"$3\r\nabc\r\n",
        b"\0\xff\r\n",
    ),
    *(b"*99999999999\r\n", b"$99999999999\r\n", b"*1\r\n" * 5000, b"-NOSCRIPT x\r\n", b"\r\n"),
)


def test_garbled_replies_are_no_answers(redis):
    rng = random.Random(0)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                writer.write(b"".join(rng.choices(GARBAGE, k=rng.randint(1, 6))))
                await writer.drain()
        writer.close()

    async def act(door: FeatureDoor) -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", redis.port):
            assert [await age_of(door, user) for user in range(300)] == [None] * 300
        assert door.counts.users_unreachable == 300

    redis.stop()
    with_door(redis, act, breaker_failures=1_000_000, timeout_ms=20.0)


def test_a_door_may_be_opened_in_another_thread(redis):
    async def act() -> None:
        door = await asyncio.to_thread(FeatureDoor.open, redis.config(), SCHEMA, INDEXES)
        assert await age_of(door, 7) == 7.0
        await door.close()

    write_ages(redis)
    asyncio.run(act())


def test_the_writer_says_when_redis_is_gone(redis):
    redis.stop()
    with UserWriter(redis.config()) as writer, pytest.raises(DataError, match="cannot be written"):
        writer.put(7, {"age": 1.0})


def test_writers_may_append_at_once(redis):
    names = ("a", "b")

    async def act() -> None:
        def append(number: int) -> None:
            with UserWriter(redis.config(), max_length=20) as writer:
                for at in range(100):
                    event = 1000 * number + at
                    writer.append_events(7, {name: [event] for name in names})

        await asyncio.gather(*(asyncio.to_thread(append, number) for number in range(4)))

    asyncio.run(act())
    with redis.client() as client:
        first, second = (client.get(f"rankloom:user:7:{name}").decode() for name in names)
    assert first == second
    dropped, *events = first.split(",")
    assert int(dropped) + len(events) == 400
    assert len(events) >= 20
    of_one = [int(event) for event in events if int(event) < 1000]
    assert of_one == sorted(of_one)


def test_the_breaker_opens_after_failures_in_a_row():
    breaker = Breaker(3, every_s=0.5, at_most_s=3.0)
    assert [breaker.failed(), breaker.failed()] == [False, False]
    breaker.answered()
    assert [breaker.failed() for _ in range(4)] == [False, False, True, False]
    assert breaker.is_open
    waits = []
    for _ in range(5):
        waits.append(breaker.wait_s)
        breaker.probe_failed()
    assert waits == [0.5, 1.0, 2.0, 3.0, 3.0]
    breaker.answered()
    assert not breaker.is_open
    assert breaker.wait_s == 0.5
