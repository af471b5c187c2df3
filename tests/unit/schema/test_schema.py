from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from rankloom.config import validation_problems
from rankloom.errors import SchemaError
from rankloom.schema import (
    AnyFeature,
    AnyTask,
    BinaryTask,
    DenseFeature,
    PositiveTask,
    QuantileEncoding,
    Rate,
    Roles,
    Schema,
    SequenceColumn,
    SequenceFeature,
    SparseFeature,
    SparseTrainingOnly,
    UnifiedConfig,
    VectorFeature,
    VocabularyConfig,
)


def problems_of(features: dict[str, Any], **options: Any) -> list[str]:
    with pytest.raises(SchemaError) as caught:
        Schema(features, **options)
    return [line.strip() for line in str(caught.value).splitlines()]


def item(**options: Any) -> SparseFeature:
    return SparseFeature(side="item", **options)


def test_a_table_defined_in_two_ways_is_refused() -> None:
    features = {
        "item": item(num_embeddings=5),
        "other": item(table="item", num_embeddings=6),
        "same": item(table="item", num_embeddings=5),
        "more": item(table="item"),
    }
    assert problems_of(features) == [
        (
            "schema.other: defines table 'item' otherwise than schema.item. Define it "
            "once, and give only `table` elsewhere."
        )
    ]


def test_a_table_without_definition_names_the_nearest() -> None:
    columns = {"id": SequenceColumn(table="itme")}
    features = {
        "item": item(num_embeddings=5),
        "seen": SequenceFeature(side="user", columns=columns),
    }
    assert problems_of(features) == [
        (
            "schema.seen.columns.id.table: no feature says how values become rows of 'itme'. "
            "Did you mean 'item'? Add num_embeddings, vocabulary or hash_buckets."
        )
    ]


def test_a_definition_may_come_after_its_use() -> None:
    columns = {"id": SequenceColumn(table="item")}
    history = SequenceFeature(side="user", columns=columns)
    schema = Schema({"seen": history, "item": item(vocabulary=VocabularyConfig())})
    assert schema.tables() == {"item": schema.features["item"]}


def test_quantile_buckets_need_a_table_name_of_their_own() -> None:
    features = {
        "age": DenseFeature(side="user", encode=QuantileEncoding()),
        "years": SparseFeature(side="user", table="age", num_embeddings=9),
    }
    assert problems_of(features) == ["schema.age: a sparse feature's table has the same name."]


def given(**tasks: str | None) -> dict[str, BinaryTask]:
    return {name: BinaryTask(label="y", given=other) for name, other in tasks.items()}


def test_a_chain_in_a_circle_is_reported_where_it_is() -> None:
    # `tail` leads into the circle but is no part of it.
    tasks = given(tail="a", a="b", b="c", c="a")
    assert problems_of({}, tasks=tasks) == [
        "schema has 3 mistakes:",
        "tasks.a.given: the chain leads back to 'a'. Break it.",
        "tasks.b.given: the chain leads back to 'b'. Break it.",
        "tasks.c.given: the chain leads back to 'c'. Break it.",
    ]


def test_an_unknown_given_names_the_nearest() -> None:
    tasks = given(click=None, buy="clik")
    assert problems_of({}, tasks=tasks) == [
        "tasks.buy.given: no task is named 'clik'. Did you mean 'click'?"
    ]


def test_nothing_is_conditional_on_a_positive_task() -> None:
    tasks = {"watch": PositiveTask(label="w"), "like": BinaryTask(label="y", given="watch")}
    assert problems_of({}, tasks=tasks) == [
        "tasks.like.given: task 'watch' must be binary. It is positive."
    ]


def test_problems_of_all_kinds_come_together() -> None:
    features = {"item": item(table="itme"), "more": item(table="none")}
    lines = problems_of(features, tasks=given(buy="clik"))
    assert [line.split(":")[0] for line in lines] == [
        "schema has 3 mistakes",
        "schema.item.table",
        "schema.more.table",
        "tasks.buy.given",
    ]


def test_the_chain_goes_from_the_task_to_its_conditions() -> None:
    schema = Schema({}, tasks=given(show=None, click="show", buy="click"))
    assert schema.chain("buy") == ["buy", "click", "show"]
    assert schema.chain("show") == ["show"]


WIDE = Schema(
    {
        "user": SparseFeature(side="user", num_embeddings=9, column="uid"),
        "tags": item(num_embeddings=9, pooling="mean", weights="tag_weights"),
        "price": DenseFeature(side="item"),
        "image": VectorFeature(side="item", dim=4),
        "seen": SequenceFeature(
            side="user",
            time="seen_at",
            first_event="seen_first",
            columns={
                "id": SequenceColumn(table="user"),
                "star": SequenceColumn(num_embeddings=6, column="stars"),
            },
        ),
    },
    roles=Roles(user="uid", scenario="page"),
    tasks={
        "click": BinaryTask(label="rating >= 4", mask="shown", weight="w"),
        "like": BinaryTask(label="rating >= 5", mask="uid != 3"),
    },
)


def test_lists_each_column_that_is_read_once() -> None:
    inputs = ["uid", "tags", "tag_weights", "price", "image", "seen_at", "seen_first"]
    inputs += ["seen_id", "stars", "page"]
    assert sorted(WIDE.columns(labels=False)) == sorted(inputs)
    assert sorted(WIDE.columns()) == sorted([*inputs, "rating", "shown", "w"])
    assert WIDE.label_columns() == ["rating", "shown", "w", "uid"]


def test_the_table_of_a_sequence_column_has_its_full_name() -> None:
    assert list(WIDE.tables()) == ["user", "tags", "seen.star"]
    columns = [(c.path, c.column, c.table) for c in WIDE.id_columns()]
    assert columns == [
        ("schema.user", "uid", "user"),
        ("schema.tags", "tags", "tags"),
        ("schema.seen.columns.id", "seen_id", "user"),
        ("schema.seen.columns.star", "stars", "seen.star"),
    ]


def test_the_rate_follows_from_the_side() -> None:
    rates = {"user": Rate.USER, "context": Rate.REQUEST, "item": Rate.CANDIDATE}
    for side, rate in {**rates, "cross": Rate.CANDIDATE}.items():
        assert TypeAdapter(AnyFeature).validate_python({"side": side, "kind": "dense"}).rate is rate
    assert sorted(Rate) == [Rate.CONSTANT, Rate.USER, Rate.REQUEST, Rate.CANDIDATE]


@pytest.mark.parametrize(
    ("feature", "line"),
    [
        (
            {"kind": "sparse", "num_embeddings": 3, "hash_buckets": 3},
            "num_embeddings and hash_buckets exclude each other. Keep one.",
        ),
        (
            {"kind": "sparse", "num_embeddings": 3, "weights": "w"},
            "weights need several ids. Set pooling: sum or mean.",
        ),
        (
            {
                "kind": "sparse",
                "num_embeddings": 3,
                "pooling": "sum",
                "training_only": {"serving_default": 1},
            },
            "training_only needs exactly one id. Leave pooling out.",
        ),
        ({"kind": "sequence", "columns": {}}, "columns: must have at least 1 entries."),
        ({"kind": "vector"}, "dim: is missing. Add it."),
        (
            {"kind": "dense", "encode": {"kind": "quantile", "num_buckets": 1}},
            "encode.num_buckets: must be at least 2. Got 1.",
        ),
        ({"kind": "dense", "encode": "loga"}, "encode: kind must be one of linear, log, quantile."),
        (
            {"kind": "spase", "num_embeddings": 3},
            (
                "kind must be one of sparse, dense, sequence, vector. Got 'spase'. "
                "Did you mean 'sparse'?"
            ),
        ),
    ],
)
def test_a_feature_that_contradicts_itself_is_refused(feature: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(AnyFeature).validate_python({"side": "item", **feature})
    (found,) = validation_problems(caught.value)
    assert found.startswith(line)


def test_ids_need_a_way_to_become_rows() -> None:
    with pytest.raises(SchemaError) as caught:
        Schema({"item": SparseFeature(side="item")})
    assert str(caught.value) == (
        "schema.item: needs num_embeddings, vocabulary: {} or hash_buckets, or the table of a "
        "feature that has one. Add one."
    )


def test_the_unified_table_keeps_tables_however_they_are_defined() -> None:
    unified = UnifiedConfig(hash_buckets=9, tables=("user", "tags"), lookups={"tags": 2})
    schema = Schema(WIDE.features, unified=unified)
    assert schema.unified_tables() == {"user": 1, "tags": 2}
    assert list(schema.tables()) == ["seen.star"]
    stored = [(column.table, column.stored_in) for column in schema.id_columns()]
    assert stored == [
        ("user", "unified"), ("tags", "unified"), ("user", "unified"), ("seen.star", "seen.star")
    ]  # fmt: skip
    assert schema.digest_values()["unified"]["lookups"] == {"tags": 2}
    assert "unified" not in WIDE.digest_values()


def test_all_that_is_wrong_with_a_unified_table_is_said() -> None:
    unified = UnifiedConfig(hash_buckets=9, tables=("item", "itme"), lookups={"user": 2})
    features = {"item": item(), "user": item(num_embeddings=3), "unified": item(hash_buckets=2)}
    assert problems_of(features, unified=unified) == [
        "schema has 3 mistakes:",
        "model.embedding.unified.tables: no table of ids is named 'itme'. Did you mean 'item'?",
        "model.embedding.unified.lookups: 'user' is not among its tables. Add it to tables.",
        (
            "schema.unified: the table that model.embedding.unified makes is named 'unified'. "
            "Rename this one."
        ),
    ]


def test_a_position_must_say_what_stands_for_it() -> None:
    features = {"shown_at": item(column="place", num_embeddings=9), "other": item(num_embeddings=3)}
    (problem,) = problems_of(features, roles=Roles(position="place"))
    assert problem.startswith("schema.shown_at: reads 'place', roles.position, which is not known")
    first = SparseTrainingOnly(serving_default=0)
    features["shown_at"] = item(column="place", num_embeddings=9, training_only=first)
    schema = Schema(features, roles=Roles(position="place"))
    assert list(schema.training_only) == ["shown_at"]


def test_negatives_are_sampled_at_the_beginning_of_a_chain() -> None:
    tasks = {
        "click": BinaryTask(label="click", negatives_kept=0.5),
        "buy": BinaryTask(label="buy", given="click", negatives_kept=0.5),
    }
    assert problems_of({}, tasks=tasks) == [
        (
            "tasks.buy.negatives_kept: is for a task that is given none. Got 0.5. State it of the "
            "task that the chain begins with."
        )
    ]


def test_options_that_are_not_used_leave_the_digest_as_it_was() -> None:
    schema = Schema(
        {"item": item(num_embeddings=3), "price": DenseFeature(side="item")},
        tasks={"click": BinaryTask(label="click")},
    )
    values = schema.digest_values()
    assert "training_only" not in {**values["features"]["item"], **values["features"]["price"]}
    assert "negatives_kept" not in values["tasks"]["click"]


def test_a_label_that_is_no_comparison_is_refused_by_its_path() -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(AnyTask).validate_python({"kind": "binary", "label": "rating => 4"})
    (found,) = validation_problems(caught.value)
    assert found.startswith("label: must be a column or `column op literal`")


def test_the_schema_does_not_import_torch() -> None:
    code = "import sys, rankloom.schema, rankloom.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_name_that_parts_paths_is_refused() -> None:
    columns = {"a/b": SequenceColumn(num_embeddings=3)}
    features = {
        "price.usd": DenseFeature(side="item"),
        "user@home": SparseFeature(side="user", num_embeddings=3),
        "seen": SequenceFeature(side="user", columns=columns),
        "ok-1 \u00e4": DenseFeature(side="item"),
    }
    lines = problems_of(features, tasks={"a.b": BinaryTask(label="y")})
    assert [line.split(":")[0] for line in lines[1:]] == [
        "schema.price.usd",
        "schema.user@home",
        "schema.seen.columns.a/b",
        "tasks.a.b",
    ]
