from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.serving.kserve_double import (
    DECODER,
    SERVED,
    Double,
    body_of,
    client_of,
    everything,
    needed,
    tensor,
)
from torch.utils._pytree import tree_leaves

from rankloom.schema import (
    DenseFeature,
    DenseTrainingOnly,
    Schema,
    SparseFeature,
    SparseTrainingOnly,
)
from rankloom.serving.kserve.model import Model
from rankloom.serving.limits import Limits
from rankloom.serving.request import RankRequest

INFER = "/v2/models/shop/infer"


def asked(inputs: list[dict], **options: Any) -> RankRequest:
    double = Double()
    answer = client_of(double, **options).post(INFER, json={"inputs": inputs})
    assert answer.status_code == 200, answer.text
    return double.requests[0]


def refused(inputs: list[dict], **options: Any) -> str:
    double = Double()
    answer = client_of(double, **options).post(INFER, json={"inputs": inputs})
    assert answer.status_code == 400
    assert not double.requests
    return answer.json()["error"]


def plain(given: dict[str, Any]) -> dict[str, Any]:
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in given.items()}


def test_tensors_become_columns() -> None:
    request = asked(everything())
    assert plain(request.user) == {
        "user_id": "ann",
        "age": 41.5,
        "history_item": [7, 8, 9],
        "history_time": [100, 200, 300],
        "taste": [0.5, -0.5],
    }
    assert plain(request.context) == {"hour": 20, "now": 1000, "country": "ch"}
    assert plain(request.candidates) == {
        "price": [1.5, 2.5],
        "item_id": [3, 5],
        "tags": [["red"], ["blue", "red"]],
        "tag_weights": [[1.0], [0.5, 2.0]],
        "picture": [[1, 2, 3], [4, 5, 6]],
    }


def test_raw_tensors_decode_to_what_plain_values_do() -> None:
    double = Double()
    body, headers = body_of(everything())
    assert client_of(double).post(INFER, content=body, headers=headers).status_code == 200
    request = double.requests[0]
    found = DECODER.decode(request.user, request.candidates, request.context)
    expected = DECODER.decode(
        {
            "user_id": "ann",
            "age": 41.5,
            "history_item": [7, 8, 9],
            "history_time": [100, 200, 300],
            "taste": [0.5, -0.5],
        },
        {
            "price": [1.5, 2.5],
            "item_id": [3, 5],
            "tags": [["red"], ["blue", "red"]],
            "tag_weights": [[1.0], [0.5, 2.0]],
            "picture": [[1, 2, 3], [4, 5, 6]],
        },
        {"hour": 20, "now": 1000, "country": "ch"},
    )
    torch.testing.assert_close(
        [one for one in tree_leaves(asdict(found)) if one is not None],
        [one for one in tree_leaves(asdict(expected)) if one is not None],
        rtol=0,
        atol=0,
    )


def test_what_is_left_out_is_none_where_the_feature_allows_it() -> None:
    request = asked(needed())
    left_out = ("user_id", "age", "history_item", "history_time", "taste")
    assert request.user == dict.fromkeys(left_out)
    assert request.context == {"hour": 20, "now": 1000, "country": None}
    nones = {"item_id": [None] * 2, "tags": [None] * 2, "tag_weights": [None] * 2}
    given = plain(request.candidates)
    assert given == {"price": [1.5, 2.5], **nones, "picture": [None] * 2}
    assert DECODER.decode(request.user, request.candidates, request.context).num_rows == 2


def test_what_may_not_be_left_out_is_not_made_up() -> None:
    request = asked([tensor("candidates/item_id", "INT64", [3])])
    assert not {"hour", "now"} & request.context.keys()
    assert "price" not in request.candidates


def test_what_the_server_stores_is_not_none() -> None:
    stored = ["user/age", "candidates/item_id", "context/hour"]
    request = asked(needed(), stored=lambda served: stored if served is SERVED else [])
    assert "age" not in request.user
    assert "item_id" not in request.candidates
    assert "user_id" in request.user


def test_what_nothing_reads_is_left_out_and_told() -> None:
    double = Double()
    inputs = [tensor("user/agee", "FP32", [1]), tensor("candidates/place", "INT64", [1])]
    body, headers = body_of([*inputs, *needed()])
    answer = client_of(double).post(INFER, content=body, headers=headers).json()
    assert answer["parameters"]["ignored"] == "user/agee, candidates/place"
    assert "agee" not in double.requests[0].user
    assert double.requests[0].context["hour"] == 20


def test_the_event_time_may_stand_with_the_user() -> None:
    inputs = [one for one in needed() if one["name"] != "context/now"]
    request = asked([*inputs, tensor("user/now", "INT64", [1000])])
    assert request.user["now"] == 1000
    assert "now" not in request.context
    assert DECODER.decode(request.user, request.candidates, request.context).num_rows == 2


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (tensor("user/age", "FP32", [1, 2]), "input 'user/age': its shape must be [1]"),
        (
            tensor("user/taste", "FP32", [1, 2], [1, 2]),
            "its shape must be [2], -1 for any length. Got [1, 2]",
        ),
        (tensor("candidates/item_id", "INT64", [1, 2], [2, 1]), "must be [-1], -1 for any"),
        (tensor("candidates/picture", "FP32", [1, 2]), "must be [-1, 3], -1 for any"),
        (tensor("candidates/tags", "INT64", [1, 2]), "Send 'candidates/tags/offsets' too"),
        (tensor("candidates/tags/offsets", "INT64", [0]), "Send 'candidates/tags' too"),
        (tensor("items/item_id", "INT64", [1]), "'items/item_id': belongs nowhere"),
        (tensor("age", "INT64", [1]), "'age': belongs nowhere"),
    ],
)
def test_a_tensor_must_fit_its_column(one: dict, said: str) -> None:
    inputs = [given for given in needed() if given["name"] != one["name"]]
    assert said in refused([*inputs, one])


@pytest.mark.parametrize(
    "offsets",
    [[], [0], [1, 3], [0, 2], [0, 4], [0, 2, 1, 3], [0, -1, 3], [0, 2**62, 3]],
)
def test_offsets_must_lead_through_the_values(offsets: list[int]) -> None:
    tags = tensor("candidates/tags", "INT64", [1, 2, 3])
    wrong = tensor("candidates/tags/offsets", "INT64", offsets, [len(offsets)])
    assert "must lead from 0 to the 3 values" in refused([*needed(), tags, wrong])


def test_offsets_must_be_int64() -> None:
    tags = tensor("candidates/tags", "INT64", [1, 2, 3])
    wrong = tensor("candidates/tags/offsets", "INT32", [0, 1, 3])
    assert "must be INT64" in refused([*needed(), tags, wrong])


def test_limits_hold() -> None:
    limits = Limits(candidates=1, events=2)
    said = refused(everything(), limits=limits)
    assert "'candidates/price': at most 1 candidates are allowed. Got 2" in said
    assert "'user/history_item': at most 2 values are allowed. Got 3" in said
    assert "'candidates/tags/offsets': at most 2 offsets are allowed. Got 3" in said


def test_metadata_tells_the_inputs() -> None:
    inputs = {one["name"]: one for one in Model(SERVED).metadata["inputs"]}
    shapes = {name: (one["datatype"], one["shape"]) for name, one in inputs.items()}
    assert shapes == {
        "user/user_id": ("INT64", [1]),
        "user/age": ("FP32", [1]),
        "user/history_item": ("INT64", [-1]),
        "user/history_time": ("INT64", [-1]),
        "user/taste": ("FP32", [2]),
        "context/country": ("BYTES", [1]),
        "context/hour": ("INT64", [1]),
        "context/now": ("INT64", [1]),
        "candidates/item_id": ("INT64", [-1]),
        "candidates/tags": ("INT64", [-1]),
        "candidates/tags/offsets": ("INT64", [-1]),
        "candidates/tag_weights": ("FP32", [-1]),
        "candidates/tag_weights/offsets": ("INT64", [-1]),
        "candidates/price": ("FP32", [-1]),
        "candidates/picture": ("FP32", [-1, 3]),
    }
    assert inputs["user/user_id"]["parameters"] == {"optional": True, "also_accepts": "BYTES"}
    assert inputs["context/country"]["parameters"] == {"optional": True}
    required = [name for name, one in inputs.items() if not one["parameters"]["optional"]]
    assert required == ["context/hour", "context/now", "candidates/price"]
    json.dumps(Model(SERVED).metadata)


def test_a_column_of_several_features_may_be_left_out_if_all_allow_it() -> None:
    features = {
        "both": SparseFeature(side="user", hash_buckets=5, column="x"),
        "needs": DenseFeature(side="user", column="x"),
        "late": DenseFeature(
            side="user", column="y", training_only=DenseTrainingOnly(serving_default=None)
        ),
        "late_id": SparseFeature(
            side="user",
            num_embeddings=5,
            column="y",
            training_only=SparseTrainingOnly(serving_default=0),
        ),
        "one": SparseFeature(side="user", hash_buckets=5, column="y"),
    }
    columns = {"user": ["x", "y"], "context": [], "candidates": []}
    model = Model(replace(SERVED, schema=Schema(features), columns=columns))
    assert {name: one.is_optional for name, one in model.inputs.items()} == {
        "user/x": False,
        "user/y": True,
    }


def test_a_column_that_no_feature_reads_is_an_id() -> None:
    served = replace(SERVED, columns={"user": ["key"], "context": [], "candidates": []})
    (one,) = Model(served).metadata["inputs"]
    assert one == {
        "name": "user/key",
        "datatype": "INT64",
        "shape": [1],
        "parameters": {"optional": False, "also_accepts": "BYTES"},
    }
