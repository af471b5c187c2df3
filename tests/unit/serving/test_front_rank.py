"""POST /v1/rank and its neighbours, without a server."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.unit.serving.front_doubles import BODY, SERVED, Double, ask

from rankloom.errors import DeadlineError, OverloadedError
from rankloom.serving.front import rank
from rankloom.serving.front.config import FrontConfig
from rankloom.serving.front.rank import decoded
from rankloom.serving.limits import Limits
from rankloom.serving.request import RankRequest
from rankloom.serving.wire import decode_problem, decode_results, encode_requests

MSGPACK = "application/vnd.rankloom.v1+msgpack"


def test_one_user_gets_scores_order_and_digest() -> None:
    backend = Double()
    answer = ask(backend, {**BODY, "context": {"hour": 3}, "top_k": 2, "id": "me"})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == {
        "id": "me",
        "digest": SERVED.digest,
        "order": [2, 1],
        "blended": [1 / 3, 2 / 3, 1.0],
        "scores": {"click": [1 / 3, 2 / 3, 1.0], "buy": [1 / 6, 1 / 3, 0.5]},
        "timing_ms": {"total": 0.5},
    }
    assert backend.seen[0].context == {"hour": 3}


def test_several_users_are_ranked_at_one_time_and_fail_alone() -> None:
    backend = Double(error=DeadlineError("late"), wait_s=0.01)
    answer = ask(backend, {"requests": [BODY, {**BODY, "id": "fine"}, BODY]})
    first, second, third = answer.json["results"]
    assert answer.status == 200
    assert backend.most_running == 3
    assert first["problem"]["code"] == third["problem"]["code"] == "deadline"
    assert (second["id"], second["order"]) == ("fine", [2, 1, 0])


def test_where_no_user_is_answered_the_answer_is_the_first_problem() -> None:
    answer = ask(Double(error=OverloadedError("full")), {"requests": [BODY, BODY]})
    assert (answer.status, answer.json["code"]) == (503, "overloaded")
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_list_of_one_is_answered_by_a_list_of_one() -> None:
    assert list(ask(Double(), {"requests": [BODY]}).json) == ["results"]


def test_msgpack_is_answered_in_msgpack() -> None:
    body = encode_requests([RankRequest(user={"user": 1}, candidates={"item": [3, 5, 4]}, id="a")])
    answer = ask(Double(), body, headers={"content-type": MSGPACK})
    (result,) = decode_results(answer.body)
    assert answer.headers["content-type"] == MSGPACK
    np.testing.assert_array_equal(result.blended, [1 / 3, 2 / 3, 1.0])
    problem = ask(Double(), b"\xc1", headers={"content-type": "application/msgpack"})
    assert (problem.status, problem.headers["content-type"]) == (400, MSGPACK)
    assert decode_problem(problem.body)["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("*/*", "application/json"),
        ("text/html", "application/json"),
        (MSGPACK, MSGPACK),
        (f"application/json;q=0.5, {MSGPACK}", MSGPACK),
        (f"{MSGPACK};q=0.5, */*", "application/json"),
        (f"{MSGPACK};q=x", "application/json"),
        (f"application/json, {MSGPACK}", "application/json"),
    ],
)
def test_accept_chooses_the_format_of_the_answer(accept: str, expected: str) -> None:
    assert ask(Double(), headers={"accept": accept}).headers["content-type"] == expected


@pytest.mark.parametrize("given", ["", "text/plain", "application/json; charset=latin-1", "json"])
def test_other_types_are_refused(given: str) -> None:
    answer = ask(Double(), headers={"content-type": given})
    assert (answer.status, answer.json["code"]) == (415, "unsupported_media_type")


def test_compressed_bodies_are_refused() -> None:
    assert ask(Double(), headers={"content-encoding": "gzip"}).status == 415
    assert ask(Double(), headers={"content-encoding": "identity"}).status == 200


def test_scores_that_are_not_finite_are_null_in_json() -> None:
    class Odd(Double):
        async def rank(self, request: RankRequest) -> Any:
            result = await super().rank(request)
            result.blended[:] = [np.nan, np.inf, 0.1]
            return result

    assert ask(Odd()).json["blended"] == [None, None, 0.1]


def test_all_mistakes_of_a_request_come_together() -> None:
    answer = ask(Double(), {**BODY, "user": {"user": "wrong"}})
    assert answer.status == 400
    assert answer.json["detail"] == "request has 2 mistakes:"
    assert answer.json["problems"] == ["user: one.", "user: two."]
    twice = ask(Double(), {"user": 1, "candidates": {}, "top_k": 0})
    assert len(twice.json["problems"]) == 3


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"user": {}, "candidates": {"item": [NaN]}}',
        b'{"user": {}, "candidates": {"item": [Infinity]}}',
        b'{"user": {}, "candidates": {"item": [1e999]}}',
        b'{"user": {}, "candidates": {"item": ["\xff"]}}',
        b'{"user": {}, "candidates": {"item": ["\\ud800"]}}',
        b'\xef\xbb\xbf{"user": {}, "candidates": {"item": [1]}}',
        b"[" * 1_000_000,
        b"[" * 900 + b"]" * 900,
        b'{"a":' * 900 + b"1" + b"}" * 900,
        b"9" * 100_000,
        b"null",
        b"[]",
        b'{"requests": []}',
        b'{"user": {}, "candidates": {"item": []}}',
        b'{"user": {}, "candidates": {"item": [1]}, "deadline_ms": -1}',
    ],
)
def test_a_wrong_body_is_one_400(body: bytes) -> None:
    answer = ask(Double(), body)
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")
    assert answer.json["problems"]


def test_many_small_lists_are_refused_before_they_are_built() -> None:
    answer = ask(Double(), b"[" + b"[]," * 1_000_000 + b"1]")
    assert answer.status == 400
    assert "may have 1000000 lists and mappings" in answer.json["detail"]


def test_whole_numbers_are_exact_and_the_last_of_two_equal_names_counts() -> None:
    values = decoded(b'{"a": 123456789012345678901234567890, "b": 1, "b": 2}', "json")
    assert values == {"a": 123456789012345678901234567890, "b": 2}


def test_the_smaller_deadline_counts_and_time_runs_from_the_arrival() -> None:
    backend = Double()
    ask(backend, {**BODY, "deadline_ms": 60_000}, headers={"x-deadline-ms": "50000"})
    ask(backend, {**BODY, "deadline_ms": 40_000}, headers={"x-deadline-ms": "50000.5"})
    ask(backend, BODY, config=FrontConfig(deadline_ms=30_000))
    deadlines = [one.deadline_ms for one in backend.seen]
    for given, left in zip([50_000, 40_000, 30_000], deadlines, strict=True):
        assert left is not None
        assert given - 5000 < left < given


def test_a_deadline_that_reading_used_up_is_a_504() -> None:
    backend = Double()
    answer = ask(backend, {**BODY, "deadline_ms": 1e-6})
    assert (answer.status, answer.json["code"]) == (504, "deadline")
    assert not backend.seen


@pytest.mark.parametrize(
    "given", ["nan", "inf", "-1", "0", "0.0", "1e9", "1_0", "", "\u0663", "99999999"]
)
def test_a_wrong_deadline_is_refused(given: str) -> None:
    answer = ask(Double(), headers={"x-deadline-ms": given.encode().decode("latin-1")})
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")


def test_an_unexpected_failure_tells_an_incident_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = ask(Double(error=ZeroDivisionError("secret")))
    assert (answer.status, answer.json["code"]) == (500, "internal")
    assert b"secret" not in answer.body
    assert b"ZeroDivision" not in answer.body
    (record,) = caplog.records
    assert answer.json["incident"] in record.getMessage()
    assert record.exc_info is not None


def test_before_an_artifact_is_served_only_ready_and_rank_say_no() -> None:
    backend = Double()
    backend.is_ready = False
    for path, method in (("/v1/rank", "POST"), ("/health/ready", "GET"), ("/v1/artifact", "GET")):
        answer = ask(backend, path=path, method=method)
        assert (answer.status, answer.json["code"]) == (503, "not_ready")
        assert answer.headers["retry-after"] == "1"
    assert ask(backend, path="/health/live", method="GET").status == 200
    assert ask(backend, path="/openapi.json", method="GET").status == 200


def test_the_artifact_is_described() -> None:
    answer = ask(Double(), path="/v1/artifact", method="GET", config=FrontConfig(blend="click"))
    assert answer.json == {
        "name": "double",
        "digest": SERVED.digest,
        "columns": {key: list(names) for key, names in SERVED.columns.items()},
        "tasks": {
            "click": {"kind": "binary", "given": None},
            "buy": {"kind": "binary", "given": "click"},
        },
        "blend": "click",
    }


def test_other_paths_and_methods_are_problems_too() -> None:
    nowhere = ask(Double(), path="/v1/rank/")
    assert (nowhere.status, nowhere.json["code"]) == (404, "not_found")
    wrong = ask(Double(), method="GET")
    assert (wrong.status, wrong.json["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"
    # Clients of the Open Inference Protocol read this member.
    assert ask(Double(), path="/v2/nowhere").json["error"].endswith("See /openapi.json.")


@pytest.mark.parametrize(("count", "thread"), [(10, "MainThread"), (5000, "aside")])
def test_large_bodies_are_read_and_answered_beside_the_loop(
    count: int, thread: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def noted(work: Callable[..., Any]) -> Callable[..., Any]:
        def working(*given: Any, **named: Any) -> Any:
            threads.append(threading.current_thread().name.split("_")[0])
            return work(*given, **named)

        return working

    monkeypatch.setattr(rank, "decoded", noted(rank.decoded))
    monkeypatch.setattr(rank, "result_messages", noted(rank.result_messages))
    rows = [{"item": 3, "price": 1.0, "text": "x" * 60}] * count
    answer = ask(Double(), {**BODY, "candidates": rows})
    assert answer.status == 200
    assert len(answer.json["blended"]) == count
    assert threads == [thread, thread]


def test_limits_of_the_config_hold() -> None:
    limits = Limits(candidates=2, requests=1)
    assert ask(Double(), config=FrontConfig(limits=limits)).status == 400
    two = {"requests": [{"user": {}, "candidates": {"item": [1]}}] * 2}
    assert ask(Double(), two, config=FrontConfig(limits=limits)).status == 400


def test_json_numbers_are_read_back_exactly() -> None:
    value = 0.1 + 0.2
    assert msgspec.json.decode(ask(Double()).body)["blended"][0] == 1 / 3
    assert msgspec.json.decode(msgspec.json.encode(value)) == value


def test_the_front_end_needs_neither_torch_nor_arrow() -> None:
    code = (
        "import sys; import rankloom.serving.front.app, rankloom.serving.front.run; "
        "assert not {'torch', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
