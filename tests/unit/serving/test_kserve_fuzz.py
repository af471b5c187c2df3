"""Whatever is sent, the answer is 200 or an error of the client's, in the protocol's form."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.serving.kserve_double import (
    NUMPY,
    Client,
    Double,
    body_of,
    client_of,
    everything,
)

from rankloom.serving.limits import Limits

INFER = "/v2/models/shop/infer"
LENGTH = "Inference-Header-Content-Length"
LIMITS = Limits(body_bytes=20_000, candidates=50, events=50)
NAMES = [one["name"] for one in everything()]
DATATYPES = [*NUMPY, "BYTES", "INT8", "UINT64", "FP16", "BF16", ""]

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
)
values = st.recursive(leaves, lambda one: st.lists(one, max_size=3), max_leaves=6)
anything = st.recursive(
    leaves,
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=5), one, max_size=3),
    max_leaves=8,
)
shapes = st.lists(st.integers(-1, 4) | st.sampled_from([2**31, 2**62, 2**63, 2**64]), max_size=3)
sizes = st.integers(-1, 40) | st.sampled_from([2**31, 2**63, 2**64]) | anything
parameters = st.dictionaries(
    st.sampled_from(
        ["binary_data_size", "binary_data", "binary_data_output", "deadline_ms", "timeout", "top_k"]
    ),
    sizes,
    max_size=3,
)
tensors = st.fixed_dictionaries(
    {
        "name": st.sampled_from(NAMES) | st.text(max_size=9),
        "datatype": st.sampled_from(DATATYPES),
        "shape": shapes,
    },
    optional={"data": values, "parameters": parameters},
)
heads = st.fixed_dictionaries(
    {"inputs": st.lists(tensors, max_size=5)},
    optional={
        "id": anything,
        "parameters": parameters,
        "outputs": st.lists(
            st.fixed_dictionaries(
                {"name": st.sampled_from(["order", "blended", "scores/click"]) | st.text()},
                optional={"parameters": parameters},
            ),
            max_size=3,
        ),
    },
)
headers_of_any_kind = st.dictionaries(
    st.sampled_from(
        [LENGTH, "X-Deadline-Ms", "Content-Encoding", "Accept-Encoding", "Content-Type"]
    ),
    st.sampled_from(["gzip", "deflate", "-1", "1e9", "nan", "0", "7", "99999999999999999999"])
    | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12),
)


def check(client: Client, body: bytes, headers: dict[str, str]) -> int:
    answer = client.post(INFER, content=body, headers=headers)
    if answer.status_code != 200:
        assert answer.status_code in (400, 413, 415), answer.text
        assert list(answer.json()) == ["error"]
        assert answer.json()["error"]
    return answer.status_code


@given(st.binary(max_size=200), headers_of_any_kind)
def test_any_bytes(body: bytes, headers: dict[str, str]) -> None:
    check(client_of(Double(), LIMITS), body, headers)


@given(anything, headers_of_any_kind)
def test_any_json(value: Any, headers: dict[str, str]) -> None:
    check(client_of(Double(), LIMITS), json.dumps(value).encode(), headers)


@given(heads, st.binary(max_size=64), st.integers(-3, 3), headers_of_any_kind)
def test_any_request(head: dict[str, Any], raw: bytes, shift: int, headers: dict[str, str]) -> None:
    encoded = json.dumps(head).encode()
    headers = {LENGTH: str(len(encoded) + shift), **headers}
    check(client_of(Double(), LIMITS), encoded + raw, headers)


@given(st.data())
def test_a_right_request_with_a_few_bytes_changed(data: st.DataObject) -> None:
    body, headers = body_of(everything())
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        changed[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)) | st.just(len(body)))
    check(client_of(Double(), LIMITS), bytes(changed[:cut]), headers)


def test_a_right_request_is_answered() -> None:
    body, headers = body_of(everything())
    assert check(client_of(Double(), LIMITS), body, headers) == 200
