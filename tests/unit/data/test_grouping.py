from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rankloom.data.plan import Decoder
from rankloom.data.reader import LogReader
from rankloom.data.regroup import Regrouped, arrange, group, group_log, log, requests, ungroup_log
from rankloom.data.regroup import writing as regroup_writing
from rankloom.data.regroup.constant import unequal
from rankloom.data.transforms import Transforms
from rankloom.errors import ConfigError, DataError, SchemaError
from rankloom.schema import (
    BinaryTask,
    DenseFeature,
    LogEncoding,
    Roles,
    Schema,
    SequenceColumn,
    SequenceFeature,
    SparseFeature,
)

KINDS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "int8": (pa.int8(), [1, -3, None]),
    "uint64": (pa.uint64(), [0, 2**64 - 1, None]),
    "float16": (pa.float16(), [np.float16(0.5), np.float16("nan"), None]),
    "float": (pa.float32(), [1.5, float("nan"), -0.0, 0.0, None]),
    "double": (pa.float64(), [1e300, float("nan"), float("-inf"), None]),
    "bool": (pa.bool_(), [True, False, None]),
    "string": (pa.string(), ["", "a", "much longer than the others", None]),
    "large_string": (pa.large_string(), ["x", "y", None]),
    "binary": (pa.binary(), [b"", b"\x00", None]),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), ["red", "green", None]),
    "ints": (pa.list_(pa.int64()), [[], [1], [1, None, 2], None]),
    "large": (pa.large_list(pa.int32()), [[], [7, 8], None]),
    "texts": (pa.list_(pa.string()), [[], ["a", None], ["b"], None]),
    "pair": (pa.list_(pa.float32(), 2), [[1.0, 2.0], [None, 3.0], None]),
    "nested": (pa.list_(pa.list_(pa.int64())), [[], [[1], None, []], [[1], [2]], None]),
    "colors": (pa.list_(pa.dictionary(pa.int32(), pa.string())), [["red"], [], None]),
    "time": (pa.timestamp("us", "UTC"), [0, 10**15, None]),
    "date": (pa.date32(), [0, 19000, None]),
    "duration": (pa.duration("ms"), [0, 5, None]),
    "decimal": (pa.decimal128(10, 2), [Decimal("1.10"), None]),
    "struct": (pa.struct({"a": pa.int64(), "b": pa.string()}), [{"a": 1, "b": None}, None]),
    "map": (pa.map_(pa.string(), pa.int64()), [[("a", 1)], [], None]),
    "null": (pa.null(), [None]),
}
"""Name -> type, and some values of it."""


def random_table(rng: np.random.Generator, sizes: Sequence[int]) -> pa.Table:
    """Draw a log: each kind once constant within a request and once not, requests of some sizes."""
    ids = np.repeat(rng.permutation(len(sizes)), sizes)
    columns: dict[str, pa.Array] = {"request_id": pa.array([f"r{i}" for i in ids])}
    fields = [pa.field("request_id", pa.string(), nullable=False)]
    for name, (kind, values) in KINDS.items():
        of_request = rng.integers(len(values), size=len(sizes))
        of_row = rng.integers(len(values), size=len(ids))
        for side, chosen in (("user", of_request[ids]), ("item", of_row)):
            columns[f"{side}_{name}"] = pa.array([values[i] for i in chosen], kind)
            fields.append(pa.field(f"{side}_{name}", kind, metadata={"side": side}))
    columns["place"] = pa.array(np.arange(len(ids)))
    fields.append(pa.field("place", pa.int64(), nullable=False))
    schema = pa.schema(fields, metadata={"made": "by hand", "pandas": "{}"})
    return pa.table(columns, schema=schema)


def write_files(folder: Path, table: pa.Table, cuts: Sequence[int], group_rows: int) -> list[Path]:
    """Write a table in several files."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number, (first, stop) in enumerate(zip([0, *cuts], [*cuts, len(table)], strict=True)):
        paths.append(folder / f"part-{number}.parquet")
        pq.write_table(table.slice(first, stop - first), paths[-1], row_group_size=group_rows)
    return paths


def read_files(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(folder.iterdir()))


def assert_same_rows(found: pa.Table, expected: pa.Table) -> None:
    """Compare types, metadata and values; NaN equals NaN, and 0.0 is not -0.0."""
    assert found.schema.equals(expected.schema, check_metadata=True)
    assert len(found) == len(expected)
    for name in expected.column_names:
        ones, others = (table[name].combine_chunks() for table in (found, expected))
        assert not unequal(ones, others).any(), name
        assert repr(ones.to_pylist()) == repr(others.to_pylist()), name


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read, sort and write a few rows at a time."""
    monkeypatch.setattr(log, "CHUNK_BYTES", 8192)
    monkeypatch.setattr(log, "SAMPLE_LINES", 5)
    monkeypatch.setattr(requests, "BUCKET_RUNS", 3)
    monkeypatch.setattr(group, "PART_BYTES", 20_000)
    monkeypatch.setattr(regroup_writing, "GROUP_ROWS", 11)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("seed", range(6))
def test_group_then_ungroup_gives_the_same_log(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = random_table(rng, rng.integers(1, 9, size=25))
    cuts = sorted(rng.integers(len(table), size=2).tolist())
    paths = write_files(tmp_path / "flat", table, cuts, group_rows=int(rng.integers(3, 40)))
    expected = read_files(tmp_path / "flat")
    done = group_log(paths, tmp_path / "grouped", by="request_id")
    assert done.is_contiguous
    assert (done.num_rows, done.num_requests) == (len(table), 25)
    assert set(done.candidate_columns) >= {"place", *(f"item_{n}" for n in KINDS if n != "null")}
    assert not [name for name in done.candidate_columns if name.startswith("user_")]
    grouped = sorted((tmp_path / "grouped").iterdir())
    assert [path.name for path in grouped] == [path.name for path in paths]
    assert sum(pq.read_metadata(path).num_rows for path in grouped) == 25
    again = ungroup_log(grouped, tmp_path / "back")
    assert (again.num_rows, again.num_requests, again.num_empty) == (len(table), 25, 0)
    assert_same_rows(read_files(tmp_path / "back"), expected)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("seed", range(4))
def test_scattered_requests_come_in_the_order_of_first_appearance(tmp_path: Path, seed: int):
    rng = np.random.default_rng(seed)
    table = random_table(rng, rng.integers(1, 9, size=25))
    table = table.take(pa.array(rng.permutation(len(table))))
    paths = write_files(tmp_path / "flat", table, [len(table) // 2], group_rows=17)
    done = group_log(paths, tmp_path / "grouped", by="request_id")
    assert (done.is_contiguous, done.num_requests) == (False, 25)
    ungroup_log(sorted((tmp_path / "grouped").iterdir()), tmp_path / "back")
    keys = table["request_id"].to_pylist()
    order = sorted(range(len(keys)), key=lambda row: (keys.index(keys[row]), row))
    assert_same_rows(read_files(tmp_path / "back"), read_files(tmp_path / "flat").take(order))
    # A request stands in the file that has its first row.
    first = pq.read_table(tmp_path / "grouped" / "part-0.parquet")["request_id"].to_pylist()
    assert first == list(dict.fromkeys(keys[: len(table) // 2]))


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def grouped(path: Path, to: str = "to.parquet", **options: Any) -> tuple[Regrouped, pa.Table]:
    done = group_log(path, path.with_name(to), **{"by": "r", **options})
    return done, pq.read_table(path.with_name(to))


def test_the_grouped_file_has_a_line_a_request(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", r=[7, 7, 5], age=[30, 30, 40], item=[1, 2, 3])
    done, table = grouped(path)
    assert table.to_pydict() == {"r": [7, 5], "age": [30, 40], "item": [[1, 2], [3]]}
    assert done.request_columns == ("r", "age")
    assert done.candidate_columns == ("item",)


def test_a_column_that_varies_once_at_the_end_is_the_candidates(tmp_path: Path) -> None:
    age = [float("nan")] * 999 + [1.0]
    path = write(tmp_path / "a.parquet", r=np.repeat(np.arange(500), 2), age=age, i=range(1000))
    assert grouped(path)[0].candidate_columns == ("age", "i")


def test_pieces_of_one_row_are_compared_with_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "CHUNK_BYTES", 1)
    columns = {"r": [1, 1, 1, 2, 2], "age": [3, 3, 4, 5, 5], "sex": list("ffffm"), "i": range(5)}
    path = write(tmp_path / "a.parquet", **columns, year=[1, 1, 1, 2, 2])
    assert grouped(path)[0].candidate_columns == ("age", "sex", "i")


@pytest.mark.parametrize(
    ("values", "is_constant"),
    [
        ([float("nan"), float("nan")], True),
        ([float("nan"), -float("nan")], True),
        ([0.0, -0.0], False),
        ([None, None], True),
        ([None, float("nan")], False),
        ([[1, None], [1, None]], True),
        ([[1], [1, 1]], False),
        ([[], None], False),
        ([[[1], []], [[1], []]], True),
        ([[[1], []], [[], [1]]], False),
    ],
)
def test_equality_within_a_request(tmp_path: Path, values: list[Any], is_constant: bool) -> None:
    done, _ = grouped(write(tmp_path / "a.parquet", r=[1, 1], x=values, item=[1, 2]))
    assert ("x" in done.request_columns) == is_constant


def test_given_candidates_make_all_else_the_requests(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", r=[1, 1, 2, 2], same=[3, 3, 4, 4], age=[1, 1, 2, 3])
    done, _ = grouped(path, candidates=["same", "age"])
    assert done.candidate_columns == ("same", "age")
    with pytest.raises(DataError, match=r"column 'age' .* Got 2 and 3 in the request .* \(r 2\)"):
        grouped(path, "other.parquet", candidates=["same"])
    assert not (tmp_path / "other.parquet").exists()


def test_a_run_says_whose_columns_are(tmp_path: Path) -> None:
    schema = Schema(
        {
            "age": DenseFeature(side="user", encode=LogEncoding()),
            "price": DenseFeature(side="item", encode=LogEncoding()),
        },
        roles=Roles(request="r"),
        tasks={"click": BinaryTask(label="click")},
    )
    columns = {"r": [1, 1], "age": [1, 1], "price": [5, 5], "click": [0, 0], "more": [2, 2]}
    path = write(tmp_path / "a.parquet", **columns)
    done, table = grouped(path, by=None, schema=schema)
    assert done.candidate_columns == ("price", "click")
    assert table["more"].to_pylist() == [2]
    path = write(tmp_path / "b.parquet", **{**columns, "age": [1, 2]})
    with pytest.raises(DataError, match="column 'age' is the request's"):
        grouped(path, "b-to.parquet", by=None, schema=schema)


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"r": [1, 1], "i": [1, 2]}, {"by": "q"}, "column 'q' is missing"),
        ({"r": [1, 1], "i": [1, 2]}, {"by": None}, "--by: is missing"),
        ({"r": [1, 1], "i": [1, 2]}, {"candidates": ["j"]}, "column 'j' is missing"),
        ({"r": [1, 1], "i": [1, 2]}, {"candidates": ["r", "i"]}, "'r' names the request"),
        ({"r": [1, None], "i": [1, 2]}, {}, "must have a value. Got null in row 1"),
        ({"r": [1.5, 2], "i": [1, 2]}, {}, "must hold whole numbers, texts or times"),
        ({"r": [1, 1], "i": [1, 1]}, {}, "no column varies within a request"),
        ({"r": pa.array([], pa.int64())}, {}, "no rows"),
        (
            {"r": [1, 1], "i": pa.array(["a", "b"], pa.string_view())},
            {},
            "cannot be regrouped. Got string_view",
        ),
    ],
)
def test_what_cannot_be_grouped(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "a.parquet", **columns)
    with pytest.raises((ConfigError, DataError, SchemaError), match=message):
        grouped(path, **options)
    assert list(tmp_path.iterdir()) == [path]


def test_files_must_have_the_same_columns(tmp_path: Path) -> None:
    one = write(tmp_path / "a.parquet", r=[1], i=[1])
    two = write(tmp_path / "b.parquet", r=[1], i=["x"], j=[2])
    with pytest.raises(SchemaError, match=r"b.parquet.*'i' is string, there int64; 'j' is int64"):
        group_log([one, two], tmp_path / "to", by="r")


def test_texts_with_one_hash_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = requests.hash_keys
    monkeypatch.setattr(
        requests, "hash_keys", lambda keys, seed: real(keys, seed=seed) * np.uint64(seed > 0)
    )
    path = write(tmp_path / "a.parquet", r=["a", "b", "a"], i=[1, 2, 3])
    done, table = grouped(path)
    assert table.to_pydict() == {"r": ["a", "b"], "i": [[1, 3], [2]]}
    assert done.num_requests == 2


def test_a_request_longer_than_several_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "CHUNK_BYTES", 64)
    keys = [1] * 3 + [2] * 50 + [3]
    path = write(tmp_path / "a.parquet", r=keys, i=range(54))
    _, table = grouped(path)
    assert table["i"].to_pylist() == [[0, 1, 2], list(range(3, 53)), [53]]


def test_empty_files_keep_their_place(tmp_path: Path) -> None:
    one = write(tmp_path / "a.parquet", r=[1, 1, 2], i=[1, 2, 3])
    two = write(tmp_path / "b.parquet", r=pa.array([], pa.int64()), i=pa.array([], pa.int64()))
    three = write(tmp_path / "c.parquet", r=[2, 2], i=[4, 5])
    group_log([one, two, three], tmp_path / "to", by="r")
    rows = [pq.read_metadata(tmp_path / "to" / f"{n}.parquet").num_rows for n in "abc"]
    assert rows == [2, 0, 0]
    ungroup_log(str(tmp_path / "to" / "*.parquet"), tmp_path / "back")
    assert read_files(tmp_path / "back")["i"].to_pylist() == [1, 2, 3, 4, 5]


def test_ungrouping_what_others_grouped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", r=[1, 2, 3], h=[[1], [], [2]], i=[[1, 2], [], None])
    to = tmp_path / "to.parquet"
    with pytest.raises(ConfigError, match="does not say which columns"):
        ungroup_log(path, to)
    with pytest.raises(SchemaError, match="column 'r' must be a list"):
        ungroup_log(path, to, candidates=["r"])
    with pytest.raises(DataError, match="'i' must have lists as long as 'h'"):
        ungroup_log(path, to, candidates=["h", "i"])
    done = ungroup_log(path, to, candidates=["i"])
    assert (done.num_rows, done.num_empty) == (2, 2)
    assert pq.read_table(to).to_pydict() == {"r": [1, 1], "h": [[1], [1]], "i": [1, 2]}


def test_ungrouping_by_a_run_takes_what_it_does_not_read_by_its_lengths(tmp_path: Path) -> None:
    schema = Schema({"i": DenseFeature(side="item", encode=LogEncoding())})
    path = write(
        tmp_path / "a.parquet",
        r=[1, 2],
        tags=[[1, 2], [3]],
        i=[[1, 2], [3]],
        truth=[[0.1, 0.2], [0.3]],
        seen=[[7, 8], [8, 9]],
    )
    to = tmp_path / "to.parquet"
    done = ungroup_log(path, to, schema=schema)
    assert done.candidate_columns == ("tags", "i", "truth")
    table = pq.read_table(to).to_pydict()
    assert table["truth"] == [0.1, 0.2, 0.3]
    assert table["seen"] == [[7, 8], [7, 8], [8, 9]]


LOG_SCHEMA = Schema(
    {
        "user": SparseFeature(side="user", num_embeddings=1000),
        "seen": SequenceFeature(
            side="user", columns={"item": SequenceColumn(table="item")}, max_length=3
        ),
        "item": SparseFeature(side="item", num_embeddings=1000),
        "tags": SparseFeature(side="item", hash_buckets=50, pooling="sum"),
        "price": DenseFeature(side="item", encode=LogEncoding()),
    },
    roles=Roles(request="r"),
    tasks={"click": BinaryTask(label="click")},
)


def test_both_layouts_are_read_as_the_same_rows(tmp_path: Path) -> None:
    """A grouped batch, its request columns repeated by `request_index`, equals the flat one."""
    rng = np.random.default_rng(0)
    request = np.repeat(np.arange(40), rng.integers(1, 6, size=40))
    seen = [rng.integers(1000, size=n).tolist() for n in rng.integers(0, 6, size=40)]
    path = write(
        tmp_path / "a.parquet",
        r=request,
        user=request % 7,
        seen_item=[seen[r] for r in request],
        item=rng.integers(1000, size=len(request)),
        tags=[[f"t{i}"] * int(i % 3) for i in rng.integers(50, size=len(request))],
        price=rng.random(len(request)),
        click=rng.integers(2, size=len(request)),
    )
    grouped(path, schema=LOG_SCHEMA)
    batches = {}
    for layout, file in (("flat", path), ("grouped", tmp_path / "to.parquet")):
        decoder = Decoder(LOG_SCHEMA, Transforms(), layout=layout)  # type: ignore[arg-type]
        with LogReader(file, decoder, batch_size=10_000).batches(0) as reads:
            (batches[layout],) = [read.batch for read in reads]
    flat, by_request = batches["flat"], batches["grouped"]
    index = by_request.request_index
    assert by_request.num_requests == 40
    assert torch.equal(flat.ids["user"], by_request.ids["user"][index])
    assert torch.equal(flat.ids["item"], by_request.ids["item"])
    assert torch.equal(flat.numbers["price"], by_request.numbers["price"])
    assert torch.equal(flat.labels["click"], by_request.labels["click"])
    assert torch.equal(flat.ids["tags"].values, by_request.ids["tags"].values)
    assert torch.equal(flat.ids["tags"].offsets, by_request.ids["tags"].offsets)
    events, of_request = flat.sequences["seen"], by_request.sequences["seen"]
    lengths = of_request.offsets.diff()
    assert torch.equal(events.offsets.diff(), lengths[index])
    lists = of_request.columns["item"].split(lengths.tolist())
    repeated = torch.cat([lists[request] for request in index])
    assert torch.equal(events.columns["item"], repeated)


def test_a_part_of_scattered_rows_is_small_wherever_requests_begin(tmp_path: Path) -> None:
    """Also where all requests begin in the first rows of the log."""
    keys = np.tile(np.arange(100), 30)
    path = write(tmp_path / "a.parquet", r=keys, i=np.arange(3000))
    opened = log.open_log(path)
    found = requests.find_requests(opened, "r", tmp_path, report=lambda _: None)
    work = tmp_path / "work"
    work.mkdir()
    rows = arrange.RowsBroughtTogether(
        opened, found, work, chunk_rows=500, part_rows=300, report=lambda _: None
    )
    sizes = [pa.ipc.open_stream(str(part)).read_all().num_rows for part in rows.paths]
    assert sizes == [300] * 10
