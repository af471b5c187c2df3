from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rankloom.data.batch import Batch, Jagged
from rankloom.data.order import Order
from rankloom.data.plan import Decoder, decode_table
from rankloom.data.reader import LogReader, Read
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

FLAT = Schema(
    {
        "user": SparseFeature(side="user", num_embeddings=1000),
        "item": SparseFeature(side="item", num_embeddings=1000),
        "price": DenseFeature(side="item", encode=LogEncoding()),
    },
    tasks={"click": BinaryTask(label="click")},
)


def write_flat(folder: Path, rows_of_files: list[int], *, group_rows: int = 10) -> str:
    """Write files in which `item` counts all rows from 0 on."""
    at = 0
    for number, rows in enumerate(rows_of_files):
        items = np.arange(at, at + rows)
        table = pa.table(
            {"user": items // 3, "item": items, "price": items / 2, "click": items % 2}
        )
        pq.write_table(table, folder / f"part-{number}.parquet", row_group_size=group_rows)
        at += rows
    return str(folder / "part-*.parquet")


def flat_reader(files: str, batch_size: int, order: Order | None = None) -> LogReader:
    return LogReader(files, Decoder(FLAT, Transforms()), batch_size=batch_size, order=order)


def items(reads: list[Read]) -> list[list[int]]:
    return [read.batch.ids["item"].tolist() for read in reads]  # type: ignore[union-attr]


def read_all(reader: LogReader, epoch: int = 0, position: int = 0) -> list[Read]:
    with reader.batches(epoch, position) as reads:
        return list(reads)


def test_an_unshuffled_reader_gives_the_rows_as_they_are_stored(tmp_path):
    reader = flat_reader(write_flat(tmp_path, [13, 4]), 8)
    reads = read_all(reader)
    assert items(reads) == [list(range(8)), list(range(8, 16)), [16]]
    assert [read.position for read in reads] == [8, 16, 17]
    assert (reader.num_rows, reader.num_requests) == (17, 17)


def test_a_batch_has_all_columns_of_its_rows(tmp_path):
    batch = read_all(flat_reader(write_flat(tmp_path, [7]), 4))[1].batch
    assert batch.ids["user"].tolist() == [1, 1, 2]
    assert batch.numbers["price"].tolist() == [2.0, 2.5, 3.0]
    assert batch.labels["click"].tolist() == [0.0, 1.0, 0.0]
    assert batch.request_index.tolist() == [0, 1, 2]
    assert batch.num_requests == batch.num_rows == 3
    assert {t.dtype for t in batch.numbers.values()} == {torch.float32}


@pytest.mark.parametrize("buffer_rows", [1, 7, 32, 1000])
def test_a_shuffled_epoch_has_every_row_once(tmp_path, buffer_rows):
    files = write_flat(tmp_path, [35, 1, 22])
    reads = read_all(flat_reader(files, 8, Order(buffer_rows=buffer_rows)))
    found = [item for batch in items(reads) for item in batch]
    assert sorted(found) == list(range(58))
    assert found != list(range(58))
    assert [len(batch) for batch in items(reads)] == [8] * 7 + [2]


def test_columns_stay_together_when_rows_are_shuffled(tmp_path):
    files = write_flat(tmp_path, [50])
    for batch, _ in read_all(flat_reader(files, 7, Order(buffer_rows=33))):
        item = batch.ids["item"]
        assert torch.equal(batch.ids["user"], item // 3)  # type: ignore[operator]
        assert torch.equal(batch.numbers["price"], item / 2)  # type: ignore[operator]
        assert torch.equal(batch.labels["click"], (item % 2).float())  # type: ignore[operator]


@pytest.mark.parametrize("group_rows", [10, 60])
def test_order_depends_on_seed_and_epoch_only(tmp_path, group_rows):
    files = write_flat(tmp_path, [60], group_rows=group_rows)
    first = items(read_all(flat_reader(files, 8, Order(seed=1))))
    assert items(read_all(flat_reader(files, 8, Order(seed=1)))) == first
    assert items(read_all(flat_reader(files, 8, Order(seed=2)))) != first
    assert items(read_all(flat_reader(files, 8, Order(seed=1)), epoch=1)) != first


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("buffer_rows", [5, 16, 24, 1000])
def test_the_batches_after_a_restart_are_those_that_would_have_come(tmp_path, buffer_rows, shuffle):
    files = write_flat(tmp_path, [35, 22])
    order = Order(shuffle=shuffle, buffer_rows=buffer_rows, seed=3)
    reads = read_all(flat_reader(files, 8, order), epoch=2)
    for number, read in enumerate(reads):
        rest = read_all(flat_reader(files, 8, order), epoch=2, position=read.position)
        assert items(rest) == items(reads[number + 1 :])
        assert [r.position for r in rest] == [r.position for r in reads[number + 1 :]]


@pytest.mark.parametrize("world_size", [2, 3, 7])
@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_share_the_rows_evenly(tmp_path, world_size, shuffle):
    files = write_flat(tmp_path, [35, 22])
    shares = []
    for rank in range(world_size):
        order = Order(shuffle=shuffle, buffer_rows=9, rank=rank, world_size=world_size)
        shares.append([i for batch in items(read_all(flat_reader(files, 8, order))) for i in batch])
    assert sorted(item for share in shares for item in share) == list(range(57))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_longer_row_group_than_a_chunk_is_streamed(tmp_path, monkeypatch):
    monkeypatch.setattr("rankloom.data.files.CHUNK_ROWS", 16)
    reads = read_all(flat_reader(write_flat(tmp_path, [100], group_rows=100), 10))
    assert [item for batch in items(reads) for item in batch] == list(range(100))


GROUPED = Schema(
    {
        "user": SparseFeature(side="user", num_embeddings=1000),
        "seen": SequenceFeature(
            side="user", columns={"item": SequenceColumn(table="item")}, max_length=3
        ),
        "item": SparseFeature(side="item", num_embeddings=1000),
        "tags": SparseFeature(side="item", hash_buckets=50, pooling="sum", weights="tag_weights"),
    },
    roles=Roles(user="user"),
    tasks={"click": BinaryTask(label="rating >= 4", mask="rated", weight="weight")},
)


def write_both(folder: Path, candidates: list[int]) -> tuple[Path, Path]:
    """Write one log in both layouts; request r has `candidates[r]` rows."""
    rng = np.random.default_rng(0)
    requests, rows, item = [], [], 0
    for number, count in enumerate(candidates):
        user = {"user": number % 5, "seen_item": list(range(number % 6))}
        inner = [
            {
                "item": item + n,
                "tags": [f"t{t}" for t in range((item + n) % 3)],
                "tag_weights": [float(t) for t in range((item + n) % 3)],
                "rating": int(rng.integers(1, 6)),
                "rated": bool(rng.integers(2)),
                "weight": float(n),
            }
            for n in range(count)
        ]
        item += count
        rows += [user | row for row in inner]
        names = ("item", "tags", "tag_weights", "rating", "rated", "weight")
        requests.append(user | {name: [row[name] for row in inner] for name in names})
    flat, grouped = folder / "flat.parquet", folder / "grouped.parquet"
    pq.write_table(pa.Table.from_pylist(rows), flat, row_group_size=10)
    pq.write_table(pa.Table.from_pylist(requests), grouped, row_group_size=4)
    return flat, grouped


def grouped_reader(path: Path, batch_size: int, order: Order | None = None) -> LogReader:
    decoder = Decoder(GROUPED, Transforms(), layout="grouped", keys=("user", "item"))
    return LogReader(path, decoder, batch_size=batch_size, order=order, with_slots=True)


def rows_of(batch: Batch) -> list[tuple[object, ...]]:
    """List the rows of a batch, each with all its values."""
    tags, seen = batch.ids["tags"], batch.sequences["seen"]
    assert isinstance(tags, Jagged)
    assert tags.weights is not None
    found = []
    flat = batch.num_requests == batch.num_rows
    for row, request in enumerate(batch.request_index.tolist()):
        assert not flat or request == row
        tag = slice(tags.offsets[row], tags.offsets[row + 1])
        event = slice(seen.offsets[request], seen.offsets[request + 1])
        found.append(
            (
                int(batch.ids["item"][row]),  # type: ignore[index]
                int(batch.ids["user"][request]),  # type: ignore[index]
                tuple(tags.values[tag].tolist()),
                tuple(tags.weights[tag].tolist()),
                tuple(seen.columns["item"][event].tolist()),
                int(seen.first_event[request]),
                float(batch.labels["click"][row]),
                bool(batch.masks["click"][row]),
                float(batch.weights["click"][row]),
                int(batch.keys["user"][row]),
                int(batch.keys["item"][row]),
            )
        )
    return found


@pytest.mark.parametrize("order", [None, Order(buffer_rows=9)])
def test_flat_and_grouped_logs_give_the_same_rows(tmp_path, order):
    flat, grouped = write_both(tmp_path, [3, 1, 4, 2, 6, 1, 1, 2])
    decoder = Decoder(GROUPED, Transforms(), keys=("user", "item"))
    of_flat = read_all(LogReader(flat, decoder, batch_size=5, order=order))
    of_grouped = read_all(grouped_reader(grouped, 5, order))
    rows = [
        sorted(row for r in reads for row in rows_of(r.batch)) for reads in (of_flat, of_grouped)
    ]
    assert len(rows[0]) == 20
    assert rows[0] == rows[1]


def test_a_batch_has_whole_requests_only(tmp_path):
    _, grouped = write_both(tmp_path, [3, 1, 4, 2, 6, 1, 1, 2])
    reads = read_all(grouped_reader(grouped, 5))
    # 3 + 1 | 4 (2 more would pass 5) | 2 | 6 alone | 1 + 1 + 2
    assert [read.batch.num_rows for read in reads] == [4, 4, 2, 6, 4]
    assert [read.position for read in reads] == [2, 3, 4, 5, 8]
    assert reads[0].batch.request_index.tolist() == [0, 0, 0, 1]
    assert reads[0].batch.slots.tolist() == [[0, 1, 2], [3, 4, 4]]  # type: ignore[union-attr]


@pytest.mark.parametrize("buffer_rows", [1, 3, 6, 11])
def test_batches_run_across_buffers(tmp_path, buffer_rows):
    _, grouped = write_both(tmp_path, [3, 1, 4, 2, 6, 1, 1, 2])
    order = Order(shuffle=False, buffer_rows=buffer_rows)
    reads = read_all(grouped_reader(grouped, 5, order))
    assert [read.batch.num_rows for read in reads] == [4, 4, 2, 6, 4]
    assert [row[0] for r in reads for row in rows_of(r.batch)] == list(range(20))


def test_histories_keep_the_newest_events(tmp_path):
    _, grouped = write_both(tmp_path, [1] * 6)
    seen = read_all(grouped_reader(grouped, 6))[0].batch.sequences["seen"]
    assert seen.offsets.tolist() == [0, 0, 1, 3, 6, 9, 12]
    assert seen.columns["item"].tolist() == [0, 0, 1, 0, 1, 2, 1, 2, 3, 2, 3, 4]
    assert seen.first_event.tolist() == [0, 0, 0, 0, 1, 2]


def test_empty_requests_are_left_out_and_reported_once(tmp_path, caplog):
    _, grouped = write_both(tmp_path, [0, 2, 0, 1, 3, 0])
    reader = grouped_reader(grouped, 3)
    with caplog.at_level(logging.WARNING):
        reads = read_all(reader)
        read_all(reader)
    assert [read.batch.num_rows for read in reads] == [3, 3]
    assert [read.position for read in reads] == [4, 5]
    assert reads[0].batch.ids["user"].tolist() == [1, 3]  # type: ignore[union-attr]
    assert [r.getMessage() for r in caplog.records] == [
        "3 requests without candidates were left out"
    ]


@pytest.mark.parametrize("buffer_rows", [3, 7, 1000])
def test_a_grouped_log_resumes_exactly_with_empty_requests(tmp_path, buffer_rows):
    _, grouped = write_both(tmp_path, [0, 2, 0, 1, 3, 0, 5, 1, 1, 0, 2, 2, 4, 0])
    order = Order(buffer_rows=buffer_rows, seed=5)
    reads = read_all(grouped_reader(grouped, 4, order))
    assert sum(read.batch.num_rows for read in reads) == 21
    for number, read in enumerate(reads):
        rest = read_all(grouped_reader(grouped, 4, order), position=read.position)
        assert [rows_of(r.batch) for r in rest] == [rows_of(r.batch) for r in reads[number + 1 :]]


@pytest.mark.parametrize("world_size", [2, 5])
def test_ranks_share_requests_once(tmp_path, world_size):
    _, grouped = write_both(tmp_path, [0, 2, 0, 1, 3, 0, 5, 1, 1, 0, 2, 2, 4, 0])
    rows = []
    for rank in range(world_size):
        order = Order(rank=rank, world_size=world_size)
        rows += [
            row for r in read_all(grouped_reader(grouped, 4, order)) for row in rows_of(r.batch)
        ]
    assert sorted(row[0] for row in rows) == list(range(21))  # type: ignore[type-var]


def test_rows_of_a_grouped_log_are_counted_from_the_headers(tmp_path):
    _, grouped = write_both(tmp_path, [3, 1, 4, 2, 6])
    reader = grouped_reader(grouped, 4)
    assert (reader.num_requests, reader.num_rows) == (5, 16)


def test_candidate_columns_must_have_equal_lengths(tmp_path):
    _, grouped = write_both(tmp_path, [2, 3])
    table = pq.read_table(grouped)
    at = table.column_names.index("weight")
    pq.write_table(table.set_column(at, "weight", pa.array([[1.0, 2.0], [1.0]])), grouped)
    with pytest.raises(
        DataError, match=r"'weight' must have lists as long as 'item'. Got 1 .* beside 3 in row 1"
    ):
        read_all(grouped_reader(grouped, 4))


def test_a_bad_value_is_named_by_file_row_and_count(tmp_path):
    files = write_flat(tmp_path, [13])
    table = pa.table(
        {"user": [0, 5, -1, 2000], "item": [1] * 4, "price": [1.0] * 4, "click": [0] * 4}
    )
    pq.write_table(table, tmp_path / "part-1.parquet", row_group_size=2)
    with pytest.raises(DataError) as error:
        read_all(flat_reader(files, 4))
    assert str(error.value) == (
        f"{tmp_path}/part-1.parquet: column 'user' must be a whole number from 0 to 999. Got -1 in "
        "row 2 and 1 more after it. Raise num_embeddings, or use a vocabulary or hash_buckets."
    )


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_bad_value_is_named_by_its_row_in_any_buffer(tmp_path, shuffle):
    table = pa.table({"user": [1] * 9 + [-1], "item": [1] * 10, "price": [1.0] * 10})
    table = table.append_column("click", pa.array([0] * 10))
    pq.write_table(table, tmp_path / "log.parquet")
    reader = flat_reader(str(tmp_path / "log.parquet"), 4, Order(shuffle=shuffle, buffer_rows=4))
    with pytest.raises(DataError, match=r"Got -1 in row 9\. Raise"):
        read_all(reader)


def test_bad_values_of_several_columns_come_together(tmp_path):
    table = pa.table({"user": [1], "item": [-1], "price": [float("inf")], "click": [2]})
    pq.write_table(table, tmp_path / "log.parquet")
    with pytest.raises(DataError) as error:
        read_all(flat_reader(str(tmp_path / "log.parquet"), 4))
    assert str(error.value).startswith("data has 3 mistakes:")
    for column in ("'item'", "'price'", "'click'"):
        assert f"column {column} must be" in str(error.value)


def test_batches_before_a_bad_value_still_come(tmp_path):
    files = write_flat(tmp_path, [6], group_rows=3)
    table = pq.read_table(tmp_path / "part-0.parquet")
    table = table.set_column(1, "item", pa.array([0, 1, 2, 3, 4, 9999]))
    pq.write_table(table, tmp_path / "part-0.parquet", row_group_size=3)
    order = Order(shuffle=False, buffer_rows=3)
    with flat_reader(files, 3, order).batches(0) as reads:
        assert next(reads).batch.ids["item"].tolist() == [0, 1, 2]  # type: ignore[union-attr]
        with pytest.raises(DataError, match="row 5"):
            next(reads)


def test_a_file_that_changed_after_the_check_is_an_error(tmp_path):
    files = write_flat(tmp_path, [1000], group_rows=1000)
    reader = flat_reader(files, 10)
    path = tmp_path / "part-0.parquet"
    path.write_bytes(b"PAR1" + bytes(path.stat().st_size - 8) + b"PAR1")
    with pytest.raises(DataError, match=r"part-0.parquet: row group 0 cannot be read"):
        read_all(reader)


def test_given_rows_take_the_same_path(tmp_path):
    files = write_flat(tmp_path, [9])
    read = read_all(flat_reader(files, 9))[0].batch
    table = pq.read_table(tmp_path / "part-0.parquet").drop_columns(["click"])
    batch = decode_table(table, Decoder(FLAT, Transforms(), with_labels=False))
    assert torch.equal(batch.ids["item"], read.ids["item"])  # type: ignore[arg-type]
    assert torch.equal(batch.numbers["price"], read.numbers["price"])
    assert not batch.labels


def test_given_grouped_rows_leave_out_empty_requests(tmp_path):
    _, grouped = write_both(tmp_path, [0, 2, 1])
    decoder = Decoder(GROUPED, Transforms(), layout="grouped", with_labels=False)
    batch = decode_table(pq.read_table(grouped), decoder)
    assert batch.request_index.tolist() == [0, 0, 1]
    assert batch.ids["user"].tolist() == [1, 2]  # type: ignore[union-attr]


def test_given_rows_are_checked(tmp_path):
    decoder = Decoder(FLAT, Transforms(), with_labels=False)
    with pytest.raises(SchemaError, match=r"rows has 2 mistakes"):
        decode_table(pa.table({"usr": [1], "item": ["a"], "price": [1.0]}), decoder)
    empty = pa.table({"user": [1], "item": [1], "price": [1.0]}).slice(0, 0)
    with pytest.raises(DataError, match="rows: no rows"):
        decode_table(empty, decoder)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"batch_size": 0}, "batch_size"), ({"batch_size": 1, "read_ahead": 0}, "read_ahead")],
)
def test_options_below_one_are_refused(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        LogReader(write_flat(tmp_path, [3]), Decoder(FLAT, Transforms()), **options)
