"""Training-only features: the log's value in training, a constant everywhere else."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import torch

from rankloom.data.batch import Batch
from rankloom.data.plan import Decoder, decode_table
from rankloom.data.request import RequestDecoder
from rankloom.data.statistics import Quantiles
from rankloom.data.transforms import Transforms
from rankloom.data.vocabulary import Vocabulary
from rankloom.errors import DataError, SchemaError
from rankloom.schema import (
    DenseFeature,
    DenseTrainingOnly,
    QuantileEncoding,
    Schema,
    SparseFeature,
    SparseTrainingOnly,
    UnifiedConfig,
    VocabularyConfig,
)


def ids(default: int | str | None, **options: Any) -> SparseFeature:
    options = {"side": "item", **options}
    return SparseFeature(training_only=SparseTrainingOnly(serving_default=default), **options)


def number(default: float | None, **options: Any) -> DenseFeature:
    only = DenseTrainingOnly(serving_default=default)
    return DenseFeature(side="cross", training_only=only, **options)


COUNTED = VocabularyConfig()
FEATURES = {
    "item": SparseFeature(side="item", num_embeddings=9),
    "position": ids(1, num_embeddings=5),
    "surface": ids("b", side="context", vocabulary=COUNTED),
    "slot": ids(None, side="item", hash_buckets=50),
    "page": ids("top", side="user", hash_buckets=50),
    "delay": number(0.5, encode={"kind": "log"}),
    "depth": number(None, encode=QuantileEncoding()),
}
TRANSFORMS = Transforms(
    {"surface": Vocabulary(pa.array(["a", "b"]), torch.tensor([2, 1]).numpy())},
    {"depth": Quantiles((1.0,))},
)
LINE = {
    "item": [[3, 4, 5]],
    "position": [[0, 2, 4]],
    "surface": ["a"],
    "slot": [[7, 8, 9]],
    "page": ["first"],
    "delay": [[1.0, 2.0, 3.0]],
    "depth": [[1.0, 2.0, 3.0]],
}


def decode(schema: Schema, line: dict[str, Any], *, training: bool) -> Batch:
    decoder = Decoder(schema, TRANSFORMS, layout="grouped", with_labels=False, training=training)
    return decode_table(pa.table(line), decoder)


def test_the_log_s_values_are_for_training_only() -> None:
    schema = Schema(FEATURES)
    trained = decode(schema, LINE, training=True)
    assert trained.ids["position"].tolist() == [0, 2, 4]  # type: ignore[union-attr]
    assert trained.numbers["delay"].tolist() == [1.0, 2.0, 3.0]
    served = decode(schema, LINE, training=False)
    assert served.ids["position"].tolist() == [1, 1, 1]  # type: ignore[union-attr]
    assert served.ids["surface"].tolist() == [3]  # type: ignore[union-attr]
    # Row 0 is that of a missing value.
    assert served.ids["slot"].tolist() == [0, 0, 0]  # type: ignore[union-attr]
    assert served.numbers["delay"].tolist() == [0.5] * 3
    assert served.numbers["depth"].isnan().all()
    without = {"item": LINE["item"]}
    assert Decoder(schema, TRANSFORMS, layout="grouped", with_labels=False).columns == ["item"]
    assert decode(schema, without, training=False).ids["slot"].tolist() == [0] * 3  # type: ignore[union-attr]


@pytest.mark.parametrize("unified", [None, UnifiedConfig(hash_buckets=99, lookups=2)])
def test_a_request_has_the_constants_of_the_log(unified: UnifiedConfig | None) -> None:
    schema = Schema(FEATURES, unified=unified)
    decoder = RequestDecoder(schema, {"surface": TRANSFORMS.vocabularies["surface"].index})
    assert decoder.columns() == {"user": [], "context": [], "candidates": ["item"]}
    ours = decoder.decode({}, {"item": [3, 4, 5]})
    theirs = decode(schema, LINE, training=False)
    assert ours.ids.keys() == theirs.ids.keys()
    for name, value in theirs.ids.items():
        assert torch.equal(ours.ids[name], value), name  # type: ignore[arg-type]
    for name, numbers in theirs.numbers.items():
        assert torch.equal(ours.numbers[name].nan_to_num(9), numbers.nan_to_num(9)), name


def test_a_request_may_not_hold_them() -> None:
    decoder = RequestDecoder(Schema({name: FEATURES[name] for name in ("item", "position")}), {})
    expected = (
        "candidates: column 'position' is of a training-only feature, for which scoring takes 1. "
        "Leave it out."
    )
    wrong: list[Any] = [
        {"item": [3, 4], "position": [0, 1]},
        [{"item": 3}, {"item": 4, "position": 1}],
    ]
    for candidates in wrong:
        with pytest.raises(DataError) as caught:
            decoder.decode({}, candidates)
        assert str(caught.value) == expected


def test_a_column_that_another_feature_reads_is_asked_for() -> None:
    again = SparseFeature(side="item", column="position", num_embeddings=5)
    schema = Schema({"position": FEATURES["position"], "rank": again})
    batch = RequestDecoder(schema, {}).decode({}, {"position": [3, 4]})
    assert batch.ids["rank"].tolist() == [3, 4]  # type: ignore[union-attr]
    assert batch.ids["position"].tolist() == [1, 1]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("feature", "what"),
    [
        (ids(5, num_embeddings=5), "is no value that the feature can have. Got 5."),
        (ids("a", num_embeddings=5), "is no value that the feature can have. Got 'a'."),
        (ids(None, num_embeddings=5), "is no value that the feature can have. Got None."),
        (number(None, encode={"kind": "log"}), "is no value that the feature can have. Got None."),
        (ids("c", table="surface", vocabulary=COUNTED), "is not in the vocabulary"),
    ],
)
def test_a_default_that_is_no_value_is_found_before_training(feature: Any, what: str) -> None:
    with pytest.raises(SchemaError, match=r"schema\.shown\.training_only\.serv") as caught:
        Decoder(Schema({"shown": feature}), TRANSFORMS, training=True)
    assert what in str(caught.value)
