"""Bodies in MessagePack: requests, results and problems arrive as they were."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankloom.data.columns import Block, Plain
from rankloom.data.key_index import build_key_index
from rankloom.data.plain_lists import Ragged
from rankloom.data.request import RequestDecoder
from rankloom.data.texts import Texts
from rankloom.errors import RequestError, ServingError
from rankloom.schema import (
    DenseFeature,
    Roles,
    Schema,
    SequenceColumn,
    SequenceFeature,
    SparseFeature,
    VectorFeature,
    VocabularyConfig,
)
from rankloom.serving import wire
from rankloom.serving.limits import Limits
from rankloom.serving.request import RankRequest, RankResult


def arrived(*requests: RankRequest) -> list[RankRequest]:
    return wire.decode_requests(wire.encode_requests(requests), Limits())


def test_all_members_arrive() -> None:
    request = RankRequest(
        user={"u": "a", "age": 3.5, "city": None},
        candidates={"i": np.array([1, 2])},
        context={"hour": 4},
        deadline_ms=12.5,
        top_k=1,
        id="r1",
    )
    (found,) = arrived(request)
    assert (found.user, found.context) == (request.user, request.context)
    assert (found.deadline_ms, found.top_k, found.id) == (12.5, 1, "r1")
    assert isinstance(found.candidates, dict)
    assert found.candidates["i"].tolist() == [1, 2]


def test_several_requests_arrive_in_order() -> None:
    requests = [RankRequest(user={}, candidates={"i": [n]}, id=str(n)) for n in range(3)]
    assert [one.id for one in arrived(*requests)] == ["0", "1", "2"]


def test_lists_become_buffers_and_candidates_columns() -> None:
    request = RankRequest(
        user={"history": [1, 2]},
        candidates=[{"i": 1, "tags": ["a"]}, {"i": 2, "tags": []}],
    )
    (found,) = arrived(request)
    assert isinstance(found.user["history"], np.ndarray)
    assert isinstance(found.candidates, dict)
    assert isinstance(found.candidates["i"], np.ndarray)
    assert isinstance(found.candidates["tags"], Ragged)


def test_candidates_of_different_columns_stay_mappings() -> None:
    candidates = [{"i": 1}, {"j": 2}]
    (found,) = arrived(RankRequest(user={}, candidates=candidates))
    assert found.candidates == candidates


def test_a_plain_body_of_one_request_is_read_too() -> None:
    body = msgspec.msgpack.encode({"user": {}, "candidates": {"i": [1, 2]}})
    assert wire.decode_requests(body, Limits()) == [RankRequest(user={}, candidates={"i": [1, 2]})]


def test_of_equal_keys_the_last_counts_as_in_json() -> None:
    user, candidates = b"\xa4user", b"\xaacandidates\x81\xa1i\x91\x01"
    body = b"\x83" + user + b"\x80" + candidates + user + b"\x81\xa1u\x05"
    (found,) = wire.decode_requests(body, Limits())
    assert found.user == {"u": 5}


def test_all_values_that_cannot_be_sent_are_named() -> None:
    wrong = RankRequest(user={"u": {1j}, "a": "\ud800"}, candidates={"i": [2**70, 1]}, top_k=2**70)
    with pytest.raises(RequestError) as raised:
        wire.encode_requests([RankRequest(user={}, candidates={}), wrong])
    lines = str(raised.value).splitlines()
    assert lines[0] == "request has 4 mistakes:"
    starts = [line.split(":")[0].strip() for line in lines[1:]]
    assert starts == [
        *("requests[1].user.u", "requests[1].user.a", "requests[1].candidates.i"),
        "requests[1].top_k",
    ]


def test_what_the_server_refuses_is_sent() -> None:
    for wrong in (
        RankRequest(user=[1], candidates={"i": [1]}),  # type: ignore[arg-type]
        RankRequest(user={}, candidates=[1]),  # type: ignore[list-item]
    ):
        with pytest.raises(RequestError, match="must be a mapping"):
            arrived(wrong)


RESULT = RankResult(
    scores={"click": np.array([0.25, 0.5]), "buy": np.array([0.0, 1.0])},
    blended=np.array([1.5, float("nan")]),
    order=np.array([1, 0]),
    digest="ab" * 32,
    timing_ms={"total": 1.25},
    id="r1",
)


@pytest.mark.parametrize("is_list", [True, False])
def test_results_arrive(is_list: bool) -> None:
    (found,) = wire.decode_results(wire.encode_results([RESULT], is_list=is_list))
    assert isinstance(found, RankResult)
    assert {task: one.tolist() for task, one in found.scores.items()} == {
        "click": [0.25, 0.5],
        "buy": [0.0, 1.0],
    }
    assert np.array_equal(found.blended, RESULT.blended, equal_nan=True)
    assert found.order.tolist() == [1, 0]
    assert (found.digest, found.timing_ms, found.id) == ("ab" * 32, {"total": 1.25}, "r1")
    assert found.blended.flags.writeable
    assert found.blended.flags.aligned


def test_a_problem_may_stand_in_a_results_place() -> None:
    problem = {"status": 504, "code": "deadline", "detail": "too late"}
    first, second = wire.decode_results(wire.encode_results([problem, RESULT]))
    assert first == problem
    assert isinstance(second, RankResult)


def test_problems_arrive() -> None:
    problem = {"type": "urn:x", "status": 400, "problems": ["a", "b"]}
    assert wire.decode_problem(wire.encode_problem(problem)) == problem


GOOD = msgspec.msgpack.decode(
    wire.encode_results([RESULT], is_list=False), ext_hook=msgspec.msgpack.Ext
)


@pytest.mark.parametrize(
    "answer",
    [
        [1],
        {"results": 5},
        {"results": [5]},
        {"results": [{"problem": 3}]},
        {},
        GOOD | {"scores": [1]},
        GOOD | {"scores": {"click": [0.5, 0.5]}},
        GOOD | {"scores": {"click": GOOD["order"]}},
        GOOD | {"blended": msgspec.msgpack.Ext(1, b"\x0b\x01\0\0\0\0\0\0")},
        GOOD | {"timing_ms": {"total": "x"}},
        GOOD | {"order": msgspec.msgpack.Ext(9, b"")},
    ],
)
def test_another_answer_is_a_servers_error(answer: Any) -> None:
    with pytest.raises(ServingError, match="answer: is not as documented"):
        wire.decode_results(msgspec.msgpack.encode(answer))


@pytest.mark.parametrize("data", [b"", b"<html>", b"\x91" * 10**5, b"\xc1"])
def test_garbage_is_a_servers_error(data: bytes) -> None:
    with pytest.raises(ServingError, match="answer: is not as documented"):
        wire.decode_results(data)
    with pytest.raises(ServingError, match="answer: is not as documented"):
        wire.decode_problem(data)


SCHEMA = Schema(
    {
        "user": SparseFeature(side="user", hash_buckets=1000),
        "taste": VectorFeature(side="user", dim=2),
        "seen": SequenceFeature(
            side="user",
            columns={"item": SequenceColumn(table="item"), "shop": SequenceColumn(table="shop")},
            max_length=3,
        ),
        "hour": SparseFeature(side="context", num_embeddings=24),
        "item": SparseFeature(side="item", vocabulary=VocabularyConfig()),
        "shop": SparseFeature(side="item", hash_buckets=100, default="none"),
        "tags": SparseFeature(side="item", hash_buckets=50, pooling="sum"),
        "price": DenseFeature(side="item", default=0.5),
        "image": VectorFeature(side="item", dim=2, default="zeros"),
    },
    roles=Roles(),
)
DECODER = RequestDecoder(SCHEMA, {"item": build_key_index(Texts.of(["a", "b", "é"]))})
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)


@st.composite
def requests(draw: st.DrawFn) -> RankRequest:
    count = draw(st.integers(1, 4))
    events = draw(st.integers(0, 5))

    def column(values: st.SearchStrategy[Any], length: int = count) -> list[Any]:
        return draw(st.lists(values, min_size=length, max_size=length))

    numbers = st.floats(-1e30, 1e30)
    return RankRequest(
        user={
            "user": draw(WORDS | st.integers(-(2**63), 2**64 - 1)),
            "taste": column(numbers, 2),
            "seen_item": column(st.sampled_from(["a", "b", "x"]), events),
            "seen_shop": column(WORDS, events),
        },
        candidates={
            "item": column(st.sampled_from(["a", "é", "unknown"]) | st.none()),
            "shop": column(WORDS),
            "tags": column(st.lists(WORDS, max_size=3) | st.none()),
            "price": column(st.none() | numbers),
            "image": column(st.lists(numbers, min_size=2, max_size=2)),
        },
        context={"hour": draw(st.integers(0, 23))},
    )


def contents(block: Block) -> dict[Any, Any]:
    """Give every array of a block as its type and bytes."""
    found: dict[Any, Any] = {}
    for key, column in (block.requests | block.rows).items():
        arrays = (
            {"": column.values}
            if isinstance(column, Plain)
            else {"offsets": column.offsets, **column.values}
        )
        for name, array in arrays.items():
            found[key, name] = (array.dtype.str, array.shape, array.tobytes())
    return found


@given(requests())
def test_what_arrives_decodes_to_the_same_batch(request: RankRequest) -> None:
    (found,) = arrived(request)
    first = DECODER.decode_block(request.user, request.candidates, request.context)
    second = DECODER.decode_block(found.user, found.candidates, found.context)
    assert contents(first) == contents(second)


@pytest.mark.parametrize("module", ["wire", "client", "members", "buffers"])
def test_no_torch_and_no_arrow_is_imported(module: str) -> None:
    code = (
        f"import rankloom.serving.{module}, sys;"
        "print({'torch', 'pyarrow', 'starlette'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"
