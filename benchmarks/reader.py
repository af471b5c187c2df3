"""Rows per second from Parquet to `Batch`, beside pyarrow's own decode of the same columns.

Every repeat reads the whole log with each of

- `pyarrow_table`: `pyarrow.parquet.read_table`, all rows in memory at once;
- `pyarrow_stream`: `ParquetFile.iter_batches`, nothing kept: the fastest pyarrow gets;
- `batches`: `LogReader` in the order of the file;
- `batches_shuffled`: `LogReader`, row groups and rows permuted;

one after the other, so that a machine's moods hit all of them, in a process with the environment
that the `rankloom` command sets. A share is rows/s over that of
`pyarrow_table` (the goal is 60 %) or of `pyarrow_stream` in the same repeat.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.criteo_like import DENSE_COLUMNS, SPARSE_COLUMNS, write_log
from benchmarks.harness import ROOT, Cell, Row, run_module, spread
from rankloom.data.order import Order
from rankloom.data.plan import Decoder
from rankloom.data.reader import LogReader
from rankloom.data.transforms import Transforms
from rankloom.schema import BinaryTask, DenseFeature, Feature, LogEncoding, Schema, SparseFeature

LOGS = ROOT / ".bench" / "reader"

SETTINGS: dict[str, Any] = {
    "num_rows": 1_000_000,
    "seed": 1,
    "batch_size": 4096,
    "buffer_rows": 262_144,
    "repeats": 9,
}

READERS = ("pyarrow_table", "pyarrow_stream", "batches", "batches_shuffled")
STREAM_ROWS = 65_536


def planned_cells(settings: Mapping[str, Any]) -> list[Cell]:
    """`repeats` cells, each with all readers."""
    options = {key: value for key, value in settings.items() if key != "repeats"}
    return [Cell("readers", repeat, options) for repeat in range(settings["repeats"])]


def run_cell(cell: Cell) -> dict[str, Any]:
    """Time each reader once; the first one changes from repeat to repeat."""
    return {"rows_per_s": run_module("reader", str(cell.repeat), json.dumps(dict(cell.options)))}


def _measure(repeat: int, options: Mapping[str, Any]) -> dict[str, int]:
    folder = LOGS / f"{options['num_rows']}-{options['seed']}"
    log = write_log(folder, num_rows=options["num_rows"], seed=options["seed"], valid_rows=1000)
    decoder = criteo_decoder()
    calls: dict[str, Callable[[], int]] = {
        "pyarrow_table": lambda: pq.read_table(log.train, columns=decoder.columns).num_rows,
        "pyarrow_stream": lambda: _stream(log.train, decoder.columns),
        "batches": lambda: _batches(log.train, decoder, options, None),
        "batches_shuffled": lambda: _batches(
            log.train, decoder, options, Order(buffer_rows=options["buffer_rows"])
        ),
    }
    calls["batches"]()  # the file in the page cache, the code loaded
    start = repeat % len(READERS)
    rates = {}
    for name in READERS[start:] + READERS[:start]:
        began = time.perf_counter()
        rows = calls[name]()
        rates[name] = rows / (time.perf_counter() - began)
    return {name: round(rates[name]) for name in READERS}


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Give rows/s and shares of pyarrow's, with medians and spreads."""
    rates = [row["measured"]["rows_per_s"] for row in rows]
    return {
        "rows_per_s": {name: spread(rate[name] for rate in rates) for name in READERS},
        "share": {
            f"{ours} / {theirs}": spread(rate[ours] / rate[theirs] for rate in rates)
            for ours in READERS[2:]
            for theirs in READERS[:2]
        },
    }


def criteo_decoder() -> Decoder:
    """Decode 26 ids, 13 numbers and a label, without anything fitted."""
    features: dict[str, Feature] = {
        name: SparseFeature(side="item", num_embeddings=1_000_000) for name in SPARSE_COLUMNS
    }
    for name in DENSE_COLUMNS:
        features[name] = DenseFeature(side="item", encode=LogEncoding(), default=0.0)
    return Decoder(Schema(features, tasks={"click": BinaryTask(label="label")}), Transforms())


def _stream(path: Path, columns: Sequence[str]) -> int:
    with pq.ParquetFile(path) as file:
        return sum(len(batch) for batch in file.iter_batches(STREAM_ROWS, columns=columns))


def _batches(path: Path, decoder: Decoder, options: Mapping[str, Any], order: Order | None) -> int:
    reader = LogReader(path, decoder, batch_size=options["batch_size"], order=order)
    with reader.batches(epoch=0) as reads:
        return sum(read.batch.num_rows for read in reads)


if __name__ == "__main__":
    print(json.dumps(_measure(int(sys.argv[1]), json.loads(sys.argv[2]))))
