"""What a body may hold, whatever its format."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankloom.data.plain_lists import Ragged
from rankloom.data.texts import Texts
from rankloom.errors import RequestError
from rankloom.serving.limits import Limits
from rankloom.serving.members import requests_of
from rankloom.serving.request import RankRequest

LIMITS = Limits(requests=3, candidates=4, events=5)


def body(**members: Any) -> dict[str, Any]:
    return {"user": {"u": 1}, "candidates": {"i": [1, 2]}, **members}


def problem(given_body: object, limits: Limits = LIMITS) -> str:
    with pytest.raises(RequestError) as raised:
        requests_of(given_body, limits)
    return str(raised.value)


def test_one_request_has_its_members() -> None:
    (found,) = requests_of(body(context={"hour": 3}, deadline_ms=50, top_k=1, id="a"), LIMITS)
    assert found == RankRequest(
        user={"u": 1},
        candidates={"i": [1, 2]},
        context={"hour": 3},
        deadline_ms=50.0,
        top_k=1,
        id="a",
    )
    assert type(found.deadline_ms) is float


def test_null_is_as_if_a_member_were_not_there() -> None:
    nulls = dict.fromkeys(("context", "deadline_ms", "top_k", "id"))
    assert requests_of(body(**nulls), LIMITS) == requests_of(body(), LIMITS)


def test_several_requests_keep_their_order() -> None:
    found = requests_of({"requests": [body(id="a"), body(id="b")]}, LIMITS)
    assert [one.id for one in found] == ["a", "b"]


def test_candidates_may_be_mappings() -> None:
    (found,) = requests_of(body(candidates=[{"i": 1}, {"i": 2}]), LIMITS)
    assert found.candidates == [{"i": 1}, {"i": 2}]


def test_more_of_the_best_than_there_can_be_are_all_of_them() -> None:
    assert requests_of(body(top_k=10**400), LIMITS)[0].top_k == 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (5, "body: must be a mapping. Got 5. Give user and candidates."),
        ({"requests": []}, "requests: must be a list of 1 to 3 requests. Got 0."),
        ({"requests": [1] * 4}, "requests: must be a list of 1 to 3 requests. Got 4."),
        ({"requests": {}}, "requests: must be a list of 1 to 3 requests. Got {}."),
        ({"requests": [body()], "user": {}}, "user: is no member. Got 'user'. Known: requests."),
        ({"requests": [body(), 3]}, "requests[1]: must be a mapping. Got 3."),
        ({"candidates": {"i": [1]}}, "user: is missing. Got candidates."),
        (body(user=[1]), "user: must be a mapping of columns to values. Got [1]."),
        (body(user=None), "user: must be a mapping of columns to values. Got null."),
        (body(context=3), "context: must be a mapping of columns to values. Got 3."),
        (body(user={"h": [1] * 6}), "user.h: must have at most 5 values. Got 6."),
        (body(user={"h": np.zeros((2, 3))}), "user.h: must have at most 5 values. Got 6."),
        (body(context={"h": Texts.of(["a"] * 6)}), "context.h: must have at most 5 values."),
        (
            body(user={"h": Ragged(np.arange(6), np.array([0, 6]))}),
            "user.h: must have at most 5 values. Got 6.",
        ),
        (body(top_n=3), "top_n: is no member. Got 'top_n'. Did you mean 'top_k'? Known: user, "),
        (body(candidates=7), "candidates: must be a mapping of columns to lists, or a list of"),
        (body(candidates=[{"i": 1}, 2]), "candidates: must be a mapping of columns to lists, or"),
        (body(candidates=[]), "candidates: their number must be 1 to 4. Got 0."),
        (body(candidates={}), "candidates: their number must be 1 to 4. Got 0."),
        (body(candidates={"i": []}), "candidates: their number must be 1 to 4. Got 0."),
        (body(candidates=[{}] * 5), "candidates: their number must be 1 to 4. Got 5."),
        (body(candidates={"i": np.zeros(5)}), "candidates: their number must be 1 to 4. Got 5."),
        (body(candidates={"i": 3}), "candidates.i: must be a list of one value for each"),
        (body(candidates={"i": "ab"}), "candidates.i: must be a list of one value for each"),
        (
            body(candidates={"i": [1], "j": [1, 2]}),
            "candidates: all columns must have one length. Got i: 1, j: 2.",
        ),
        ({1: 2}, "body: names of members and columns must be texts. Got int."),
        (body(user={1.5: 2}), "body: names of members and columns must be texts. Got float."),
    ],
)
def test_a_wrong_body_is_explained(wrong: object, message: str) -> None:
    found = problem(wrong)
    assert found.startswith(message)
    assert found.count("\n") == 0


@pytest.mark.parametrize(
    "deadline", [0, -1, True, "5", float("nan"), float("inf"), 10**400, [1], 86_400_001]
)
def test_a_deadline_is_a_number_of_milliseconds_to_come(deadline: object) -> None:
    assert problem(body(deadline_ms=deadline)).startswith(
        "deadline_ms: must be a number above 0, at most 86400000. Got "
    )


@pytest.mark.parametrize("top_k", [0, -1, True, 2.0, "1", [1]])
def test_top_k_is_a_number_of_candidates(top_k: object) -> None:
    assert problem(body(top_k=top_k)).startswith("top_k: must be a whole number from 1 on. Got ")


@pytest.mark.parametrize("id_", [7, "a" * 129, "a\nb", "\x00", ["a"]])
def test_an_id_is_a_short_line(id_: object) -> None:
    assert problem(body(id=id_)).startswith("id: must be a text of at most 128 printable")


def test_all_mistakes_come_at_once() -> None:
    wrong = body(top_k=0, deadline_ms=-1, user=3)
    found = problem({"requests": [body(), wrong, body(id=1)]})
    assert found.splitlines()[0] == "request has 4 mistakes:"
    for where in ("[1].user", "[1].deadline_ms", "[1].top_k", "[2].id"):
        assert f"  requests{where}: must be" in found


def test_a_message_stays_short_whatever_is_sent() -> None:
    found = problem({f"{name:09}" * 10**3: 1 for name in range(1000)})
    assert len(found) < 3000
    many = problem({"requests": [body(id=1, top_k=0)] * 20}, Limits())
    assert many.splitlines()[-1] == "  and 20 more."


def nested(depth: int, *, of: str) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if of == "list" else {"a": value}
    return value


@pytest.mark.parametrize("of", ["list", "dict"])
def test_the_depth_of_values_is_limited(of: str) -> None:
    # The body and its user are two mappings.
    assert requests_of(body(user={"x": nested(6, of=of)}), Limits())
    message = "body: lists and mappings are more than 8 deep. Got more. Flatten it."
    assert problem(body(user={"x": nested(7, of=of)}), Limits()) == message
    assert problem(body(user={"x": nested(100_000, of=of)}), Limits()) == message


@pytest.mark.parametrize("first", [[1, 2.5], ["a", None], [True], [2**2000]])
def test_depth_counts_behind_any_values(first: list[Any]) -> None:
    deep = [*first, nested(6, of="list")]
    assert problem(body(user={"x": deep}), Limits()).startswith("body: lists and mappings")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=20,
)
NAMES = st.sampled_from(["user", "candidates", "context", "deadline_ms", "top_k", "id", "requests"])


@given(PLAIN | st.dictionaries(NAMES, PLAIN))
def test_whatever_is_sent_gives_requests_or_a_request_error(anything: object) -> None:
    try:
        found = requests_of(anything, Limits())
    except RequestError:
        return
    for one in found:
        assert isinstance(one.user, dict)
        assert one.top_k is None or one.top_k > 0


def test_a_large_body_is_checked_in_less_time_than_it_is_parsed() -> None:
    image = [[0.5] * 500 for _ in range(1000)]
    text = msgspec.json.encode(body(candidates={"image": image}))

    def fastest(work: Any) -> float:
        times = []
        for _ in range(5):
            begun = time.process_time()
            work()
            times.append(time.process_time() - begun)
        return min(times)

    parsed = msgspec.json.decode(text)
    parsing = fastest(lambda: msgspec.json.decode(text))
    assert fastest(lambda: requests_of(parsed, Limits())) < parsing
