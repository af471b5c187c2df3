from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from rankloom.data.inspection.coded import Coded
from rankloom.data.inspection.draft import flow
from rankloom.data.inspection.inspection import Options, inspect_log
from rankloom.data.inspection.profile import ColumnProfile
from rankloom.data.inspection.run_checks import colliding_share, run_findings
from rankloom.schema import (
    BinaryTask,
    DenseFeature,
    QuantileEncoding,
    Schema,
    SparseFeature,
    VectorFeature,
    VocabularyConfig,
)


def draft_of(tmp_path, columns, **options):
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    found = inspect_log(tmp_path / "log.parquet", options=Options(**options))
    assert found.draft is not None
    return found.draft


@pytest.fixture
def columns():
    generator = np.random.default_rng(0)
    n = 2_000
    item = generator.integers(0, 300, n) * 1_000
    lengths = generator.integers(0, 4, n)
    offsets = pa.array(np.r_[0, np.cumsum(lengths)], pa.int32())
    return {
        "user_id": generator.integers(0, 90, n),
        "item_id": item,
        "hour": generator.integers(0, 24, n),
        "age": pa.array(generator.normal(40, 5, n), mask=generator.random(n) < 0.1),
        "odd name/x": generator.normal(size=n),
        "infinite": np.where(np.arange(n) == 5, np.inf, 1.0) * generator.random(n),
        "oracle_click": generator.random(n),
        "hist_item_id": pa.ListArray.from_arrays(
            offsets, pa.array(generator.choice(item, lengths.sum()))
        ),
        "hist_seconds_read": pa.ListArray.from_arrays(
            offsets, pa.array(generator.random(lengths.sum()))
        ),
        "click": generator.integers(0, 2, n),
    }


def test_what_a_draft_says(tmp_path, columns):
    draft = draft_of(tmp_path, columns)
    schema = draft.values["schema"]
    assert schema["hour"] == {"side": "cross", "kind": "sparse", "num_embeddings": 24} or schema[
        "hour"
    ] == {"side": "context", "kind": "sparse", "num_embeddings": 24}
    assert schema["age"]["encode"] == {"kind": "quantile"}
    assert schema["odd_name_x"]["column"] == "odd name/x"
    assert schema["item_id"]["table"] == "item_id"
    assert schema["hist"]["columns"] == {"item_id": {"table": "item_id"}}
    assert draft.values["model"]["sequence"] == {"hist": {"kind": "din"}}
    assert draft.values["roles"] == {"user": "user_id", "item": "item_id"}
    assert set(draft.left_out) == {"infinite", "oracle_click", "hist_seconds_read", "click"}


def test_the_text_reads_back_to_the_values(tmp_path, columns):
    draft = draft_of(tmp_path, columns)
    text = draft.to_yaml()
    assert yaml.safe_load(text) == draft.values
    assert "# - 'oracle_click': oracle" in text
    assert max(map(len, (line for line in text.splitlines() if "#" in line))) <= 96


def test_a_limited_look_takes_no_ids_as_rows(tmp_path, columns):
    schema = draft_of(tmp_path, columns, limit_rows=1_000).values["schema"]
    assert schema["hour"]["vocabulary"] == {}


def test_no_label_no_draft(tmp_path):
    pq.write_table(pa.table({"x": [1, 2, 3], "y": [1.5, 2, 3]}), tmp_path / "log.parquet")
    found = inspect_log(tmp_path / "log.parquet")
    assert found.draft is None
    assert [one.check for one in found.findings] == ["no_label"]


def test_flow_yaml_quotes_what_it_must():
    assert flow("yes") == "'yes'"
    assert flow({"a: b": [1, None]}) == "{'a: b': [1, null]}"


def test_expected_collisions_by_hand():
    # A key is alone if the other one is in one of the other three buckets.
    assert colliding_share(2, 4) == pytest.approx(1 / 4)
    assert colliding_share(3, 4) == pytest.approx(1 - (3 / 4) ** 2)
    assert colliding_share(1, 4) == 0


def checks(schema: Schema, **columns) -> list[tuple[str, str, str]]:
    profiles = {}
    for name, values in columns.items():
        array = pa.array(values)
        profiles[name] = ColumnProfile(name, array.type)
        if pa.types.is_list(array.type):
            profiles[name].add_lists(array)
        else:
            profiles[name].add(Coded.of(array))
    summaries = {name: profile.summary() for name, profile in profiles.items()}
    found = run_findings(schema, profiles, summaries)
    return [(one.severity, one.check, one.where) for one in found]


def test_ids_against_num_embeddings():
    schema = Schema({"x": SparseFeature(side="item", num_embeddings=3)})
    assert checks(schema, x=[0, 2]) == []
    outside = [("error", "id_outside", "schema.x.num_embeddings")]
    assert checks(schema, x=[0, 3]) == outside
    assert checks(schema, x=[-1, 2]) == outside
    assert checks(schema, x=[0, None]) == [("error", "null_without_default", "schema.x")]
    large = Schema({"x": SparseFeature(side="item", num_embeddings=50_000)})
    assert checks(large, x=[0, 3]) == [("note", "unused_rows", "schema.x.num_embeddings")]


def test_ids_against_hash_buckets_and_vocabularies():
    schema = Schema({"x": SparseFeature(side="item", hash_buckets=100)})
    assert checks(schema, x=list(range(5))) == []
    many = checks(schema, x=list(range(50)))
    assert many == [("warning", "collisions", "schema.x.hash_buckets")]
    rare = Schema({"x": SparseFeature(side="item", vocabulary=VocabularyConfig(min_count=2))})
    assert checks(rare, x=[1, 1, 1, 1, 2]) == []
    assert checks(rare, x=[1, 1, 2]) == [
        ("warning", "unknown_ids", "schema.x.vocabulary.min_count")
    ]


def test_nulls_against_defaults():
    schema = Schema(
        {
            "a": DenseFeature(side="item"),
            "b": DenseFeature(side="item", default=0.0),
            "c": DenseFeature(side="item", encode=QuantileEncoding()),
            "v": VectorFeature(side="item", dim=2),
        },
        tasks={
            "t": BinaryTask(label="y"),
            "m": BinaryTask(label="y", mask="y >= 0"),
        },
    )
    holes = [1.0, None, float("nan")]
    found = checks(schema, a=holes, b=holes, c=holes, v=[[1.0, None]], y=[1, None])
    assert [where for _, _, where in found] == ["schema.a", "schema.v", "tasks.t.label"]
