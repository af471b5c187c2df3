"""One log flat and grouped by request: bytes on disk, rate of reading, rate of training.

The log has requests of 30 candidates by users with a history of 100 events (item and time), and
popular items that come up more often. It is generated flat; `rankloom data group` makes the grouped
one of it, and both hold the same rows. Cells:

- `disk`: bytes of both, and of the histories' columns alone, in zstd as RankLoom writes them;
- `read`: rows/s from Parquet to batches, in the order of the file and shuffled, in turns;
- `train <model>`: rows/s of training flat, grouped, and grouped with `training.hoist` off, on the
  first rows of the log, read in order so that all three make the same steps: their losses are
  compared. `hoist` computes once a request what depends on the request alone.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import ROOT, Cell, Row, by_variant, run_module, spread
from rankloom import api
from rankloom.data.order import Order
from rankloom.data.plan import Decoder
from rankloom.data.reader import LogReader
from rankloom.data.regroup import group_log
from rankloom.data.transforms import Transforms
from rankloom.training.hooks import read_metrics

LOGS = ROOT / ".bench" / "grouping"
CANDIDATES, HISTORY = 30, 100
NUM_USERS, NUM_ITEMS, NUM_VALUES = 50_000, 100_000, 200
COLUMNS = {"user": 12, "moment": 3, "item": 8}
SIDES = {"user": "user", "moment": "context", "item": "item"}
PIECE_REQUESTS = 1000
READERS = ("flat", "grouped", "flat_shuffled", "grouped_shuffled")
WAYS: dict[str, tuple[str, bool | None]] = {
    "flat": ("flat", None),
    "grouped": ("grouped", None),
    "grouped_unhoisted": ("grouped", False),
}
"""Name -> layout of the log, and `training.hoist`."""

BASES = {
    "grouped": "flat",
    "grouped_shuffled": "flat_shuffled",
    "grouped_unhoisted": "flat",
}
"""What each rate is compared with."""

SETTINGS: dict[str, Any] = {
    "num_requests": 33_334,
    "train_requests": 1_600,
    "batch_size": 1920,
    "buffer_rows": 262_144,
    "models": ["mlp", "din"],
    "repeats": 5,
}


def planned_cells(settings: Mapping[str, Any]) -> list[Cell]:
    """The bytes once; reading, and training of each model, `repeats` times."""
    size = {"num_requests": settings["num_requests"]}
    reading = size | {"batch_size": settings["batch_size"], "buffer_rows": settings["buffer_rows"]}
    training = {"train_requests": settings["train_requests"], "batch_size": settings["batch_size"]}
    cells = [Cell("disk", 0, size)]
    for repeat in range(settings["repeats"]):
        cells.append(Cell("read", repeat, reading))
        cells += [
            Cell(f"train {model}", repeat, training | {"model": model})
            for model in settings["models"]
        ]
    return cells


def run_cell(cell: Cell) -> dict[str, Any]:
    """Measure one cell; the order of what is compared changes from repeat to repeat."""
    options = dict(cell.options)
    if cell.variant == "disk":
        logs = write_logs(options["num_requests"])
        return {layout: _disk_bytes(path) for layout, path in logs.items()}
    kind = cell.variant.split(maxsplit=1)[0]
    measured: dict[str, Any] = run_module("grouping", kind, str(cell.repeat), json.dumps(options))
    return measured


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Medians and spreads; every ratio is of one repeat."""
    return {
        variant: group[0] | {"flat / grouped": group[0]["flat"]["all"] / group[0]["grouped"]["all"]}
        if variant == "disk"
        else _summary(group)
        for variant, group in by_variant(rows).items()
    }


def _summary(group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rates = [one["rows_per_s"] for one in group]
    found: dict[str, Any] = {
        "rows_per_s": {name: spread(rate[name] for rate in rates) for name in rates[0]},
        "share": {
            f"{name} / {base}": spread(rate[name] / rate[base] for rate in rates)
            for name, base in BASES.items()
            if name in rates[0]
        },
    }
    if "largest_loss_difference" in group[0]:
        found["largest_loss_difference"] = max(one["largest_loss_difference"] for one in group)
    return found


def write_logs(num_requests: int) -> dict[str, Path]:
    """Write the log in both layouts once; a later call finds them."""
    folder = LOGS / str(num_requests)
    logs = {layout: folder / f"{layout}.parquet" for layout in ("flat", "grouped")}
    if not logs["flat"].exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / "flat.tmp"
        pieces = _pieces(num_requests)
        first = next(pieces)
        with pq.ParquetWriter(temporary, first.schema, compression="zstd") as writer:
            writer.write_table(first)
            for piece in pieces:
                writer.write_table(piece)
        temporary.replace(logs["flat"])
    if not logs["grouped"].exists():
        group_log(logs["flat"], logs["grouped"], schema=api.load_run(run_values("mlp")).schema)
    return logs


def _pieces(num_requests: int) -> Iterator[pa.Table]:
    """Draw the rows of some requests at a time.

    A click follows the taste of the user for the item: <p_user, q_item> of their first values.
    """
    signal, rng = np.random.default_rng(11), np.random.default_rng(1)
    taste = signal.normal(size=(NUM_VALUES, 4))
    # Popular items are small numbers, 1 / rank; their ids are in no order.
    weights = 1 / np.arange(1, NUM_ITEMS + 1)
    limits = np.cumsum(weights) / weights.sum()
    ids = signal.permutation(NUM_ITEMS)
    of_user = signal.integers(NUM_VALUES, size=(COLUMNS["user"], NUM_USERS))
    of_item = signal.integers(NUM_VALUES, size=(COLUMNS["item"], NUM_ITEMS))
    for start in range(0, num_requests, PIECE_REQUESTS):
        count = min(PIECE_REQUESTS, num_requests - start)
        users = rng.integers(NUM_USERS, size=count)
        history = ids[np.searchsorted(limits, rng.random((count, HISTORY)))]
        gaps = rng.integers(1, 40_000, size=(count, HISTORY))
        # Events happened before the log begins.
        times = 1_700_000_000 - np.cumsum(gaps, axis=1)[:, ::-1]
        items = ids[np.searchsorted(limits, rng.random((count, CANDIDATES)))]
        of_request = {
            "request_id": pa.array(np.arange(start, start + count)),
            "user_id": pa.array([f"user-{user}" for user in users]),
            **{name: pa.array(c[users]) for name, c in zip(_names("user"), of_user, strict=True)},
            **{name: pa.array(rng.integers(24, size=count)) for name in _names("moment")},
            "timestamp": pa.array(1_700_000_000 + np.arange(start, start + count) * 10),
            "history_item_id": _lists(history),
            "history_time": _lists(times),
        }
        line = pa.array(np.repeat(np.arange(count), CANDIDATES))
        columns = {name: column.take(line) for name, column in of_request.items()}
        logits = np.einsum("rd,rnd->rn", taste[of_user[0][users]], taste[of_item[0][items]]) - 1
        columns["item_id"] = pa.array(items.ravel())
        for name, values in zip(_names("item"), of_item, strict=True):
            columns[name] = pa.array(values[items.ravel()])
        columns["price"] = pa.array(rng.random(items.size))
        clicks = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
        columns["label"] = pa.array(clicks.ravel().astype(np.int8))
        yield pa.table(columns)


def _lists(values: np.ndarray) -> pa.Array:
    offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1])
    return pa.ListArray.from_arrays(offsets, pa.array(values.ravel()))


def _names(kind: str) -> list[str]:
    return [f"{kind}_{number}" for number in range(COLUMNS[kind])]


def run_values(
    model: str,
    log: Path = Path("log.parquet"),
    *,
    layout: str = "flat",
    hoist: bool | None = None,
    batch_size: int = 1920,
) -> dict[str, Any]:
    """Give the run file's values."""
    features: dict[str, Any] = {
        name: {"side": SIDES[kind], "kind": "sparse", "num_embeddings": NUM_VALUES}
        for kind in COLUMNS
        for name in _names(kind)
    }
    features["user_id"] = {"side": "user", "kind": "sparse", "hash_buckets": NUM_USERS}
    features["item_id"] = {"side": "item", "kind": "sparse", "num_embeddings": NUM_ITEMS}
    features["price"] = {"side": "item", "kind": "dense", "encode": {"kind": "log"}}
    features["history"] = {
        "side": "user",
        "kind": "sequence",
        "time": "history_time",
        "columns": {"item_id": {"table": "item_id"}},
        "max_length": HISTORY,
    }
    return {
        "data": {"train": str(log), "layout": layout},
        "schema": features,
        "roles": {"request": "request_id", "event_time": "timestamp"},
        "tasks": {"click": {"kind": "binary", "label": "label"}},
        "model": {
            "embedding": {"embedding_dim": 16},
            "sequence": {"history": {"kind": "din" if model == "din" else "masked_mean"}},
            "interaction": {"kind": "mlp", "hidden_dims": [256, 128]},
            "head": {"kind": "shared_bottom", "hidden_dims": []},
        },
        "training": {
            "epochs": 1,
            "batch_size": batch_size,
            "shuffle": False,
            "hoist": hoist,
            "checkpoint_every_steps": None,
            "log_every_steps": 1,
        },
        "evaluation": {"metrics": ["auc"], "num_resamples": 0},
    }


def _disk_bytes(path: Path) -> dict[str, int]:
    header = pq.read_metadata(path)
    groups = [header.row_group(number) for number in range(header.num_row_groups)]
    chunks = [group.column(c) for group in groups for c in range(header.num_columns)]
    history = [c for c in chunks if c.path_in_schema.startswith("history_")]
    return {
        "all": path.stat().st_size,
        "histories": sum(chunk.total_compressed_size for chunk in history),
        "row_groups": header.num_row_groups,
    }


def _measure_reading(repeat: int, options: Mapping[str, Any]) -> dict[str, Any]:
    calls: dict[str, Callable[[], int]] = {}
    for layout, path in write_logs(options["num_requests"]).items():
        schema = api.load_run(run_values("mlp")).schema
        decoder = Decoder(schema, Transforms(), layout=layout)  # type: ignore[arg-type]
        for suffix, order in (
            ("", None),
            ("_shuffled", Order(buffer_rows=options["buffer_rows"])),
        ):
            reader = LogReader(path, decoder, batch_size=options["batch_size"], order=order)
            calls[layout + suffix] = lambda reader=reader: _read(reader)
    calls["grouped"]()  # the code loaded
    rates = {}
    for name in _turned(READERS, repeat):
        began = time.perf_counter()
        rows = calls[name]()
        rates[name] = rows / (time.perf_counter() - began)
    return {"rows_per_s": {name: round(rates[name]) for name in READERS}}


def _read(reader: LogReader) -> int:
    with reader.batches(epoch=0) as reads:
        return sum(read.batch.num_rows for read in reads)


def _measure_training(repeat: int, options: Mapping[str, Any]) -> dict[str, Any]:
    logs = write_logs(options["train_requests"])
    found = {}
    for name in _turned(tuple(WAYS), repeat):
        layout, hoist = WAYS[name]
        values = run_values(
            options["model"],
            logs[layout],
            layout=layout,
            hoist=hoist,
            batch_size=options["batch_size"],
        )
        found[name] = _train(values)
    losses = np.array([one["losses"] for one in found.values()])
    return {
        "rows_per_s": {name: found[name]["rows_per_s"] for name in WAYS},
        "largest_loss_difference": float(np.ptp(losses, axis=0).max()),
    }


def _train(values: Mapping[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        result = api.train(api.load_run(values), Path(folder) / "run", printer=lambda _: None)
        records = [one for one in read_metrics(result.folder.metrics) if one["kind"] == "step"]
    # The first steps make the programs and warm up.
    warm = records[3:] or records
    return {
        "rows_per_s": median(one["rows_per_s"] for one in warm),
        "losses": [one["losses"]["click"] for one in records],
    }


def _turned(names: Sequence[str], repeat: int) -> list[str]:
    start = repeat % len(names)
    return [*names[start:], *names[:start]]


if __name__ == "__main__":
    measure = {"read": _measure_reading, "train": _measure_training}[sys.argv[1]]
    print(json.dumps(measure(int(sys.argv[2]), json.loads(sys.argv[3]))))
