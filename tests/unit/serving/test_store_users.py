"""Users by id, from a real Redis: what is written is read, whatever stands there besides."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from tests.unit.data.test_request import Values, assert_same
from tests.unit.serving.store_world import (
    ALL_KINDS,
    DECODER,
    INDEXES,
    RedisServer,
    running_redis,
)

from rankloom.data.plain_lists import as_list
from rankloom.errors import ConfigError, DataError, RequestError
from rankloom.schema import Roles, Schema, SparseFeature
from rankloom.serving.request import RankRequest
from rankloom.serving.store.door import DoorCounts, FeatureDoor
from rankloom.serving.store.user_writer import UserWriter

HISTORY = ("seen_item", "shops", "seen_brand", "seen_at")
CANDIDATES = [Values(0).candidate()]
CONTEXT = Values(0).context()
# `clicks` has no default: without it there is no request that could be scored.
SENT = {"user_id": 7, "clicks": 3}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(server: RedisServer) -> RedisServer:
    with server.client() as client:
        client.flushall()
    return server


def filled(
    redis: RedisServer, user: Any, schema: Schema = ALL_KINDS, **options: Any
) -> tuple[Mapping[str, Any], DoorCounts]:
    async def fill() -> Any:
        door = FeatureDoor.open(redis.config(**options), schema, INDEXES)
        try:
            request = RankRequest(user=user, candidates=CANDIDATES, context=CONTEXT)
            return (await door.fill(request)).user, door.counts
        finally:
            await door.close()

    return asyncio.run(fill())


def assert_decodes_as(user: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    found = DECODER.decode(user, CANDIDATES, CONTEXT)
    assert_same(found, DECODER.decode(expected, CANDIDATES, CONTEXT))


def as_json(user: Mapping[str, Any]) -> dict[str, Any]:
    """Give null for NaN, which JSON has not."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(one) for one in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    return {name: plain(value) for name, value in user.items()}


def nothing_known() -> dict[str, Any]:
    drawn = Values(0).user()
    return {**dict.fromkeys(drawn), "first_seen": 0, **SENT}


@pytest.mark.parametrize("seed", range(20))
def test_a_filled_request_decodes_as_one_that_brings_all(redis, seed):
    values = Values(seed)
    user = {**values.user(), "user_id": 7}
    length = values.whole(0, 9)
    history = {
        "seen_item": values.many(lambda: values.whole(0, 50), length),
        "shops": values.many(lambda: values.or_null(values.big()), length),
        "seen_brand": values.many(values.word, length),
        "seen_at": sorted(values.many(lambda: values.whole(0, 2**31), length)),
    }
    with UserWriter(redis.config()) as writer:
        writer.put(7, as_json({name: user[name] for name in user.keys() - {*HISTORY}}))
        for at in range(length):
            writer.append_events(7, {name: [one[at]] for name, one in history.items()})
    found, counts = filled(redis, {"user_id": 7})
    assert_decodes_as(found, {**user, **history, "first_seen": 0})
    assert counts == DoorCounts(users_found=1)


def test_a_long_history_is_trimmed_and_keeps_its_events_numbers(redis):
    with UserWriter(redis.config(), max_length=10) as writer, redis.client() as client:
        for number in range(100):
            some = range(3 * number, 3 * number + 3)
            events = {"seen_item": [one % 50 for one in some], "shops": [None] * 3}
            events |= {"seen_brand": ["a,b"] * 3, "seen_at": [10**9 + one for one in some]}
            writer.append_events(7, events)
            text = client.get("rankloom:user:7:seen_at").decode()
            assert text.count(",") <= 2 * 10 + 3
    found, counts = filled(redis, SENT)
    times = as_list(found["seen_at"])
    assert 10 <= len(times) <= 23
    assert times == [10**9 + one for one in range(300 - len(times), 300)]
    assert found["first_seen"] == 300 - len(times)
    assert as_list(found["seen_brand"]) == ["a,b"] * len(times)
    assert counts.values_damaged == 0


def test_any_program_may_write_users(redis):
    events = {"seen_item": "1", "shops": "null", "seen_brand": '"a"', "seen_at": "978300760"}
    with redis.client() as client:
        client.set("rankloom:user:7", '{"age": 31, "city": "b"}')
        for name, event in events.items():
            for _ in range(2):
                client.append(f"rankloom:user:7:{name}", f",{event}")
    found, counts = filled(redis, SENT)
    listed = {"seen_item": [1, 1], "shops": [None] * 2, "seen_brand": ["a"] * 2}
    listed["seen_at"] = [978300760] * 2
    assert_decodes_as(found, {**nothing_known(), "age": 31, "city": "b", **listed})
    assert counts == DoorCounts(users_found=1)


@pytest.mark.parametrize(
    "user", ["a:b", "7:seen_at", "*", "{}", "%", "Zürich", "a b\n", "-", "", "\ud800"]
)
def test_text_ids_of_every_kind_are_their_own_users(redis, user):
    schema = Schema(
        {
            "user_id": SparseFeature(side="user", hash_buckets=9),
            "city": SparseFeature(side="user", hash_buckets=9),
        },
        roles=Roles(user="user_id"),
    )
    with UserWriter(redis.config()) as writer:
        writer.put(user, {"city": "right"})
        writer.append_events(7, {"seen_at": [1]})
        for other in ("7", "?", "\ufffd"):
            writer.put(other, {"city": "wrong"})
    assert filled(redis, {"user_id": user}, schema)[0]["city"] == "right"


@pytest.mark.parametrize("user", [8, None, np.int64(8)])
def test_an_unknown_user_has_the_features_defaults(redis, user):
    found, counts = filled(redis, {**SENT, "user_id": user})
    assert_decodes_as(found, {**nothing_known(), "user_id": user})
    assert counts == DoorCounts(users_missing=1)


def test_a_user_without_events_is_known(redis):
    with UserWriter(redis.config()) as writer:
        writer.put(7, {})
    sent = dict.fromkeys(Values(0).user().keys() - {*HISTORY, "first_seen"}) | SENT
    found, counts = filled(redis, sent, missing_user="refuse")
    assert found == {**sent, **{name: [] for name in HISTORY}, "first_seen": 0}
    assert counts == DoorCounts(users_found=1)


def test_an_unknown_user_may_be_refused(redis):
    with pytest.raises(RequestError, match=r"user: the store does not know user 7\. Send"):
        filled(redis, SENT, missing_user="refuse")


def test_null_that_nothing_stands_for_is_refused(redis):
    message = r"does not know user 7, and features declare nothing for null: 'clicks'\. Send"
    with pytest.raises(RequestError, match=message):
        filled(redis, {"user_id": 7})
    with UserWriter(redis.config()) as writer:
        writer.put(7, {"age": 3.0})
    with pytest.raises(RequestError, match=r"knows too little of user 7, and features .* 'clicks'"):
        filled(redis, {"user_id": 7})


@pytest.mark.parametrize("user", [1.5, True, [7], {"a": 1}, 2**63])
def test_an_id_of_another_type_is_refused(redis, user):
    with pytest.raises(RequestError, match="'user_id' must be a whole number of 64 bits or a text"):
        filled(redis, {"user_id": user})


def test_a_huge_id_is_refused(redis):
    # Of more digits than Python writes.
    with pytest.raises(RequestError, match=r"must be a whole number of 64 bits.*Got a huge number"):
        filled(redis, {"user_id": 10**5000})


def test_a_request_without_an_id_is_left_to_the_decoder(redis):
    user = {"clicks": 3}
    found, counts = filled(redis, user)
    assert found is user
    assert counts == DoorCounts()


def test_an_endless_id_is_an_unknown_user(redis):
    user = "a" * 100_000
    with redis.client() as client:
        client.set(f"rankloom:user:{user}", '{"age": 3}')
    assert filled(redis, {**SENT, "user_id": user})[1] == DoorCounts(users_missing=1)
    with UserWriter(redis.config()) as writer:
        for write in (writer.put, writer.append_events):
            with pytest.raises(DataError, match="its id is too long"):
                write(user, {"age": [3]})


def test_what_the_client_sends_wins_and_histories_are_not_mixed(redis):
    with UserWriter(redis.config()) as writer:
        writer.put(7, {"age": 3.0, "city": "b"})
        writer.append_events(
            7, {"seen_item": [1], "shops": [2], "seen_brand": ["a"], "seen_at": [5]}
        )
    found, _ = filled(redis, {**SENT, "age": None, "seen_item": [4]})
    assert (found["age"], found["city"], found["seen_item"]) == (None, "b", [4])
    # The decoder says that the others are missing: those of the store are of other events.
    assert found.keys().isdisjoint({"shops", "seen_brand", "seen_at", "first_seen"})


GOOD = {"age": 31.0, "city": "b", "profile": [1.0, 2.0, 3.0]}
NO_JSON = ("true false", '"\\ud800"')
DAMAGED = {
    "age": ['"old"', "[1]", "{}", "1e999", "1e39", "true false"],
    "city": ["1", "[]", '"\\ud800"', "{}"],
    "profile": ["[1, 2]", "[1, 2, null]", "3", '["a", "b", "c"]'],
    "interests": ["3", '[["a"]]', "[1.5]", "{}"],
}


@pytest.mark.parametrize(
    ("column", "text"), [(name, text) for name, texts in DAMAGED.items() for text in texts]
)
def test_a_damaged_value_is_null_and_the_others_are_kept(redis, column, text):
    values = {name: json.dumps(value) for name, value in GOOD.items()} | {column: text}
    with redis.client() as client:
        content = ", ".join(f'"{name}": {value}' for name, value in values.items())
        client.set("rankloom:user:7", f"{{{content}}}")
    found, counts = filled(redis, SENT)
    # What is no JSON spoils all: where the next value begins is not known.
    kept = {} if text in NO_JSON else {**GOOD, column: None}
    assert_decodes_as(found, {**nothing_known(), **kept})
    assert counts == DoorCounts(users_found=1, values_damaged=1)


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"[1, 2]", b"null", b"3", b"{", b"\x80\x04K\x01.", b'{"a":' * 99_999, b"\0" * 99],
)
def test_garbage_is_a_damaged_user(redis, content):
    with redis.client() as client:
        client.set("rankloom:user:7", content)
        client.set("rankloom:user:7:seen_at", content)
    found, counts = filled(redis, SENT)
    assert_decodes_as(found, nothing_known())
    assert (counts.users_found, counts.values_damaged) == (1, 2)


def test_keys_of_another_type_are_damaged(redis):
    with redis.client() as client:
        client.hset("rankloom:user:7", mapping={"age": 3})
        client.rpush("rankloom:user:7:seen_at", *range(100_000))
    found, counts = filled(redis, SENT)
    assert_decodes_as(found, nothing_known())
    assert counts == DoorCounts(users_found=1, values_damaged=2)


def test_values_that_are_too_long_are_damaged(redis):
    with UserWriter(redis.config()) as writer:
        writer.put(7, {"interests": ["a"] * 9999, "strength": [1.0] * 9999})
        events = {"seen_item": [1], "shops": [1], "seen_brand": ["a"], "seen_at": [1]}
        writer.append_events(7, {name: one * 2000 for name, one in events.items()})
    assert filled(redis, SENT)[1].values_damaged == 0
    found, counts = filled(redis, SENT, max_value_bytes=7999)
    assert_decodes_as(found, nothing_known())
    assert (counts.users_found, counts.values_damaged) == (1, 2)


EVENTS = {"seen_item": ",1,2", "shops": ",3,null", "seen_brand": ',"a",null', "seen_at": ",5,6"}


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("seen_item", ",1"),
        ("seen_item", ",1,50"),
        ("seen_item", ",1,null"),
        ("seen_item", "1,1,2"),
        ("seen_item", "-1,1,2"),
        ("seen_item", "9" * 5000 + ",1,2"),
        ("seen_item", ",1,2],[3"),
        ("seen_item", ",1,2,"),
        ("seen_item", ""),
        ("shops", ',3,"x"'),
        ("shops", f",3,{2**64}"),
        ("seen_brand", ",1,2"),
        ("seen_at", ",6,5"),
        ("seen_at", ",5,null"),
        ("seen_at", ",5,6.5"),
    ],
)
def test_a_damaged_history_is_empty(redis, column, text):
    def write(texts: Mapping[str, str]) -> None:
        with redis.client() as client:
            client.set("rankloom:user:7", '{"age": 3}')
            for name, one in texts.items():
                client.set(f"rankloom:user:7:{name}", one)

    write(EVENTS)
    assert filled(redis, SENT)[1].values_damaged == 0
    write(EVENTS | {column: text})
    found, counts = filled(redis, SENT)
    assert_decodes_as(found, {**nothing_known(), "age": 3})
    assert counts == DoorCounts(users_found=1, values_damaged=1)


def test_ids_and_weights_of_other_lengths_are_damaged(redis):
    with UserWriter(redis.config()) as writer:
        writer.put(7, {"interests": ["a"], "strength": [1.0, 2.0]})
    found, counts = filled(redis, SENT)
    assert_decodes_as(found, nothing_known())
    assert counts.values_damaged == 1


def test_what_is_not_written_to_is_forgotten(redis):
    with UserWriter(redis.config(), expire_s=100) as writer, redis.client() as client:
        writer.put(7, {"age": 3.0})
        writer.append_events(7, {"seen_at": [1], "shops": [1]})
        keys = sorted(client.keys())
        assert keys == [b"rankloom:user:7", b"rankloom:user:7:seen_at", b"rankloom:user:7:shops"]
        assert all(0 < client.ttl(key) <= 100 for key in keys)


def test_another_prefix_is_another_store(redis):
    with UserWriter(redis.config(prefix="other")) as writer:
        writer.put(7, {"age": 3.0})
    assert filled(redis, SENT)[0]["age"] is None
    assert filled(redis, SENT, prefix="other")[0]["age"] == 3.0


@pytest.mark.parametrize("value", [{"a": {1, 2}}, {"a": math.nan}, {"a": b"x"}, {"a": "\ud800"}])
def test_the_writer_refuses_what_is_no_json(redis, value):
    with UserWriter(redis.config()) as writer:
        with pytest.raises(DataError, match="neither number nor text"):
            writer.put(7, value)
        with pytest.raises(DataError, match="an event cannot be written"):
            writer.append_events(7, {"seen_at": [value["a"]]})


def test_the_writer_refuses_columns_of_other_lengths(redis):
    with UserWriter(redis.config()) as writer, redis.client() as client:
        with pytest.raises(DataError, match=r"one length\. Got {'a': 1, 'b': 2}"):
            writer.append_events(7, {"a": [1], "b": [1, 2]})
        assert client.keys() == []


def test_users_need_a_role_to_be_looked_up_by(redis):
    schema = Schema({"age": ALL_KINDS.features["age"]})
    with pytest.raises(ConfigError, match=r"redis: users are looked up by roles\.user"):
        filled(redis, SENT, schema)
