"""What a group of features is, and what a request is without it."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.serving.page_double import REQUEST, SCHEMA

from rankloom.schema import BinaryTask, DenseFeature, Roles, Schema, SequenceColumn, SequenceFeature
from rankloom.serving.page.groups import groups_of, without
from rankloom.serving.page.offered import few, groups_of_run


def test_each_feature_is_a_group_and_the_history_is_one() -> None:
    groups, without_default = groups_of(SCHEMA, {})
    assert [(one.kind, one.name, one.also) for one in groups] == [
        ("feature", "age", ()),
        ("history", "history", ()),
        ("feature", "item", ()),
        ("feature", "price", ("price_band",)),
        ("feature", "price_band", ("price",)),
    ]
    assert without_default == {"hour": "context/hour"}


def test_a_model_s_groups_are_taken_and_the_rest_is_by_itself() -> None:
    together = {"goods": ["item", "price", "price_band"], "when": ["hour"], "gone": ["nothing"]}
    groups, without_default = groups_of(SCHEMA, together)
    assert [(one.kind, one.name, one.features) for one in groups] == [
        ("feature", "age", ("age",)),
        ("history", "history", ("watched",)),
        ("group", "goods", ("item", "price", "price_band")),
    ]
    assert without_default == {"hour": "context/hour"}


def test_without_a_history_nothing_was_dropped_of_it() -> None:
    history = groups_of(SCHEMA, {})[0][1]
    assert without(REQUEST, history).user == {
        "age": 3.0,
        "watched_item": None,
        "watched_time": None,
        "watched_first": 0,
    }
    assert REQUEST.user["watched_first"] == 4


def test_candidates_may_be_mappings() -> None:
    item = groups_of(SCHEMA, {})[0][2]
    rows = [{"item": 3, "price": 1.0}, {"item": 5}]
    assert without(replace(REQUEST, candidates=rows), item).candidates == [
        {"item": None, "price": 1.0},
        {"item": None},
    ]
    assert without(REQUEST, item).candidates == {"item": [None, None], "price": [10.0, 20.0]}


def test_the_event_time_has_no_default_where_histories_need_it() -> None:
    history = SequenceFeature(
        side="user", columns={"item": SequenceColumn(num_embeddings=9)}, time="h_time"
    )
    features = {"now": DenseFeature(side="context", default=0.0), "h": history}
    roles, tasks = Roles(event_time="now"), {"click": BinaryTask(label="click")}
    schema = Schema(features, roles=roles, tasks=tasks)
    assert groups_of(schema, {})[1] == {"now": "context/now"}
    schema = Schema(
        {**features, "h": history.model_copy(update={"time": None})}, roles=roles, tasks=tasks
    )
    assert groups_of(schema, {})[1] == {}


def test_groups_of_a_run_are_read_whatever_it_is() -> None:
    run = {"model": {"tokenization": {"kind": "semantic_groups", "groups": {"a": ["x", "y"]}}}}
    assert groups_of_run(run) == {"a": ["x", "y"]}
    assert groups_of_run({"model": {"tokenization": None}}) == {}
    assert groups_of_run({"model": {"tokenization": {"groups": {"a": "xy"}}}}) == {}
    assert groups_of_run({}) == {}


def test_examples_are_few_and_small() -> None:
    small, large = {"user": {"x": 1}}, {"user": {"x": "a" * (600 << 10)}}
    assert few([small] * 9) == [small] * 5
    assert few([large] * 3) == [large] * 2
    assert few([large, large, large, small]) == [large] * 2
