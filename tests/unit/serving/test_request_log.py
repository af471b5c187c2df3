"""The request log: what is served can be trained on, and is decoded to the same bits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.data.test_request import (
    SCHEMA,
    TRANSFORMS,
    VOCABULARIES,
    Values,
    as_array,
    assert_same,
    columns_of,
)
from tests.unit.serving.telemetry_counts import Counts

from rankloom.data.plan import Decoder
from rankloom.data.reader import LogReader
from rankloom.data.request import RequestDecoder
from rankloom.data.tensors import to_batch
from rankloom.schema import (
    BinaryTask,
    DenseFeature,
    Roles,
    Schema,
    SequenceColumn,
    SequenceFeature,
    SparseFeature,
    SparseTrainingOnly,
)
from rankloom.serving.request import RankRequest, RankResult, Served
from rankloom.serving.telemetry import request_log
from rankloom.serving.telemetry.request_log import RequestLog, RequestLogConfig
from rankloom.serving.telemetry.sampling import Sample

RANK = SparseFeature(
    side="cross", num_embeddings=9, training_only=SparseTrainingOnly(serving_default=0)
)
FULL = Schema(
    {**SCHEMA.features, "rank": RANK},
    roles=Roles(
        user="user_id",
        item="sku",
        request="request_id",
        event_time="now",
        position="rank",
        scenario="surface",
    ),
    tasks={"click": BinaryTask(label="click"), "buy": BinaryTask(label="buy")},
)
ITEM = Schema({"item": SparseFeature(side="item", hash_buckets=50)})


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "LOOK_S", 0.01)


def served_by(schema: Schema, digest: str = "a" * 64) -> Served:
    decoder = RequestDecoder(schema, {name: one.index for name, one in VOCABULARIES.items()})
    return Served(name="m", digest=digest, schema=schema, columns=decoder.columns())


def ranked(count: int, digest: str = "a" * 64, **scores: Any) -> RankResult:
    blended = np.linspace(0, 1, count)
    return RankResult(scores=scores, blended=blended, order=np.arange(count), digest=digest)


def opened(folder: Path, **options: Any) -> tuple[RequestLog, Counts]:
    counts = Counts()
    config = RequestLogConfig(folder=str(folder), **{"sample_rate": 1.0, **options})
    return RequestLog(config, counts), counts


def logged(
    folder: Path, *requests: RankRequest, schema: Schema = ITEM, examples: Any = (), **options: Any
) -> Counts:
    """Write requests with one number of candidates each, and give what became of them."""
    log, counts = opened(folder, **options)
    log.begin(served_by(schema), examples)
    for request in requests:
        count = len(next(iter(request.candidates.values())))
        log.write(request, ranked(count, **{task: np.zeros(count) for task in schema.tasks}))
    log.close()
    return counts


def item(value: Any, number: int = 0, **user: Any) -> RankRequest:
    values = value if isinstance(value, list | np.ndarray) else [value]
    return RankRequest(user=user, candidates={"item": values}, id=f"r{number}")


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def read(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in files(folder))


def whole_requests(num: int) -> list[tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]]:
    requests = [Values(seed).request() for seed in range(num)]
    for number, (user, _, _) in enumerate(requests):
        # More digits than a float64 holds are another test's.
        user["clicks"] = number
    return requests


@pytest.mark.parametrize("as_arrays", [False, True])
def test_with_labels_it_is_read_as_the_server_decoded_it(tmp_path: Path, as_arrays: bool) -> None:
    requests = whole_requests(40)
    log, counts = opened(tmp_path, max_lines=9)
    served = served_by(FULL)
    log.begin(served)
    for number, (user, rows, context) in enumerate(requests):
        candidates: Any = rows
        if as_arrays:
            candidates = {name: as_array(values) for name, values in columns_of(rows).items()}
            user = {n: as_array(v) if isinstance(v, list) else v for n, v in user.items()}
        request = RankRequest(user=user, candidates=candidates, context=context, id=str(number))
        scores = {"click": np.full(len(rows), 0.25), "buy": np.arange(len(rows)) / 8}
        log.write(request, ranked(len(rows), **scores))
    log.close()
    assert counts == {"written": 40}
    assert len(files(tmp_path)) == 5
    for path in files(tmp_path):
        # What a join by request.id adds.
        table = pq.read_table(path)
        numbers = map(int, table["request.id"].to_pylist())
        lengths = [len(requests[number][1]) for number in numbers]
        for name in ("click", "buy", "rank"):
            table = table.append_column(name, pa.array([[1] * length for length in lengths]))
        pq.write_table(table, path)
    decoder = Decoder(FULL, TRANSFORMS, layout="grouped")
    reader = LogReader(tmp_path / "*.parquet", decoder, batch_size=1)
    online = RequestDecoder(FULL, {name: one.index for name, one in VOCABULARIES.items()})
    with reader.batches(epoch=0) as reads:
        batches = [read.batch for read in reads]
    assert len(batches) == 40
    for batch, (user, rows, context) in zip(batches, requests, strict=True):
        assert batch.labels.pop("click").tolist() == [1.0] * len(rows)
        del batch.labels["buy"]
        assert_same(batch, to_batch(online.decode_block(user, rows, context)))


def test_a_line_has_scores_and_names_its_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1_795_361_817.5)
    schema = Schema(
        {"item": ITEM.features["item"]},
        roles=Roles(user="who", item="sku", request="asked", event_time="now"),
        tasks={"click": BinaryTask(label="click")},
    )
    log, _ = opened(tmp_path)
    log.begin(served_by(schema))
    request = RankRequest(user={"who": 7, "secret": 1}, candidates={"item": [4, 5]}, id="q")
    log.write(request, ranked(2, click=np.array([0.5, 0.1])))
    log.close()
    table = read(tmp_path)
    assert table.to_pylist() == [
        {
            "item": [4, 5],
            "who": 7,
            "sku": [None, None],
            "now": 1_795_361_817,
            "asked": "q",
            "request.id": "q",
            "request.time_ms": 1_795_361_817_500,
            "request.digest": "a" * 64,
            "served.blended": [0.0, 1.0],
            "served.click": [0.5, 0.1],
        }
    ]
    assert table.schema.field("now").type == pa.int64()
    (path,) = files(tmp_path)
    assert path.name.startswith("requests-2026")
    assert "-aaaaaaaa-" in path.name


def test_the_first_keys_say_what_a_table_holds(tmp_path: Path) -> None:
    history = SequenceFeature(side="user", columns={"item": SequenceColumn(table="item")})
    schema = Schema({"item": ITEM.features["item"], "past": history})
    requests = [
        item(None, 0, past_item=None),
        item(None, 1, past_item=["a", None]),
        item(3, 2, past_item=[]),
        item("b", 3, past_item=np.array([], "O")),
    ]
    # The second says "a", so that the third does not fit.
    counts = logged(tmp_path, *requests, schema=schema, max_lines=2)
    assert counts == {"written": 3, "bad_values": 1}
    first, second = (pq.read_table(path) for path in files(tmp_path))
    assert first.schema == second.schema
    assert first.schema.field("item").type == pa.list_(pa.string())
    assert first["past_item"].to_pylist() == [None, ["a", None]]
    assert second["item"].to_pylist() == [["b"]]


def test_examples_and_defaults_say_so_before(tmp_path: Path) -> None:
    nulls = [item(None, number, user=None) for number in range(2)]
    user = SparseFeature(side="user", hash_buckets=50)
    schema = Schema({"item": ITEM.features["item"], "user": user})
    assert logged(tmp_path / "a", *nulls, schema=schema, examples=[item("x", user="y")])["written"]
    assert read(tmp_path / "a").schema.field("item").type == pa.list_(pa.string())
    assert read(tmp_path / "a").schema.field("user").type == pa.string()
    schema = Schema({"item": SparseFeature(side="item", hash_buckets=50, default="none")})
    assert logged(tmp_path / "b", *nulls, schema=schema)["written"]
    assert read(tmp_path / "b").schema.field("item").type == pa.list_(pa.string())


def test_nothing_but_nulls_is_settled_by_the_first_file(tmp_path: Path) -> None:
    requests = [item(None), item(5, 1), item("b", 2)]
    assert logged(tmp_path, *requests, max_lines=1) == {"written": 2, "bad_values": 1}
    assert read(tmp_path)["item"].to_pylist() == [[None], [5]]


PRICE = Schema({"item": DenseFeature(side="item")})


@pytest.mark.parametrize(
    ("schema", "value", "kept"),
    [
        (PRICE, 3, 3.0),
        (PRICE, True, 1.0),
        (PRICE, 2**53, 2.0**53),
        (PRICE, 2**53 + 1, None),
        (PRICE, 10**400, None),
        (PRICE, "3", None),
        (PRICE, np.array([1.5], np.float32), 1.5),
        (PRICE, np.array([2**53 + 1]), None),
        (PRICE, np.array([True]), 1.0),
        (ITEM, 7.0, 7),
        (ITEM, 7.5, None),
        (ITEM, np.int32(7), 7),
        (ITEM, True, None),
        (ITEM, "7", None),
        (ITEM, 2**63, None),
        (ITEM, np.array([7], np.uint8), 7),
        (ITEM, np.array([2**63], np.uint64), None),
        (ITEM, np.array([7.5]), None),
        (ITEM, [[1]], None),
        (ITEM, object(), None),
    ],
)
def test_other_types_are_cast_if_exact_else_dropped(
    tmp_path: Path, schema: Schema, value: Any, kept: float | None
) -> None:
    requests = [item(1), item(value, 1), item(2, 2)]
    counts = logged(tmp_path, *requests, schema=schema)
    expected = [1, 2] if kept is None else [1, kept, 2]
    assert [one for (one,) in read(tmp_path)["item"].to_pylist()] == expected
    assert counts == Counter(written=len(expected), bad_values=3 - len(expected))


def test_texts_that_no_file_can_hold_are_dropped(tmp_path: Path) -> None:
    counts = logged(tmp_path, item("a"), item("\ud800", 1), item("b", 2))
    assert counts == {"written": 2, "bad_values": 1}


def test_wrong_shapes_are_dropped(tmp_path: Path) -> None:
    log, counts = opened(tmp_path)
    log.begin(served_by(ITEM))
    log.write(item([1, 2, 3]), ranked(2))
    log.write(RankRequest(user={}, candidates={"item": 3}), ranked(1))
    log.write(item(5), ranked(1))
    log.close()
    assert counts == {"bad_values": 2, "written": 1}


def test_the_same_requests_are_sampled_everywhere(tmp_path: Path) -> None:
    requests = [item(number, number) for number in range(500)]
    for folder in ("a", "b"):
        logged(tmp_path / folder, *requests, sample_rate=0.2)
    found = read(tmp_path / "a")["request.id"].to_pylist()
    assert found == [f"r{number}" for number in range(500) if Sample(0.2).has(f"r{number}")]
    assert read(tmp_path / "b")["request.id"].to_pylist() == found
    assert 60 < len(found) < 140


def test_an_artifact_follows_another(tmp_path: Path) -> None:
    price = Schema({"price": DenseFeature(side="item")})
    log, counts = opened(tmp_path)
    log.begin(served_by(ITEM))
    log.write(item(1), ranked(1))
    log.begin(served_by(price, "b" * 64))
    log.write(RankRequest(user={}, candidates={"price": [2.5]}), ranked(1, "b" * 64))
    # Scored before the change, answered after it.
    log.write(item(3), ranked(1))
    log.begin(served_by(price, "b" * 64))
    log.begin(served_by(PRICE, "c" * 64))
    log.write(item(5), ranked(1))
    log.close()
    old, new = sorted(files(tmp_path), key=lambda path: path.name.split("-")[2])
    assert pq.read_table(old)["item"].to_pylist() == [[1], [3]]
    assert pq.read_table(new)["price"].to_pylist() == [[2.5]]
    assert "item" not in pq.read_table(new).column_names
    # The one before the last is gone by then.
    assert counts == {"written": 3, "bad_values": 1}


def test_an_artifact_that_comes_back_counts_as_the_last(tmp_path: Path) -> None:
    log, counts = opened(tmp_path)
    for digest in ("a" * 64, "b" * 64, "a" * 64, "c" * 64):
        log.begin(served_by(ITEM, digest))
    log.write(item(1), ranked(1))
    log.close()
    assert counts == {"written": 1}


def test_columns_that_one_line_cannot_hold(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    features = {
        "country": SparseFeature(side="user", hash_buckets=5),
        "place": SparseFeature(side="context", column="country", hash_buckets=5),
        "brand": SparseFeature(side="user", hash_buckets=5),
        "item_brand": SparseFeature(side="item", column="brand", hash_buckets=5),
        "score": DenseFeature(side="item", column="served.blended"),
    }
    log, counts = opened(tmp_path)
    log.begin(served_by(Schema(features)))
    log.write(item(1), ranked(1))
    log.close()
    assert counts == {"bad_values": 1}
    (message,) = caplog.messages
    assert "nothing of m is logged" in message
    assert "column 'country' is read in several ways" in message
    assert "column 'brand' is read in several ways" in message
    assert "column 'served.blended' is one that the log adds" in message
    assert files(tmp_path) == []
