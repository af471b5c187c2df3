"""How fast a run's log is read, stage by stage, beside how fast the run trains."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from rankloom.api.reading import evaluation_reader, training_reader
from rankloom.api.result import RunFolder, new_model
from rankloom.api.run import Run, load_run
from rankloom.api.training import fit
from rankloom.data.reader import LogReader
from rankloom.data.stages import TOGETHER, StageTimes, time_stages
from rankloom.data.transforms import Transforms
from rankloom.errors import ConfigError
from rankloom.losses import Loss
from rankloom.ops.device import autocast_for, choose_device, choose_precision, synchronize
from rankloom.training.hoisting import network_to_train
from rankloom.training.hooks import read_metrics
from rankloom.training.optimizer import dense_optimizer
from rankloom.training.sparse import sparse_optimizer
from rankloom.training.step import train_step

WHAT = {
    "decode": "Parquet to Arrow",
    "transform": "Arrow to ids and numbers",
    "batch": "shuffled, cut, to tensors",
    TOGETHER: "with read-ahead, as a training sees it",
}
MODEL_BATCHES = 8
"""Batches that training steps are timed with, again and again."""


@dataclass(frozen=True)
class ReadingSpeed:
    """What `bench_data` measured."""

    times: StageTimes
    """Rows a second of each stage."""
    row_bytes: float
    """Bytes on disk of the columns that are read, compressed, for each row."""
    training_rows_per_s: float | None
    """Rows a second of training; none where nothing tells it."""
    training_source: str
    """Where that comes from."""

    def __str__(self) -> str:
        lines = []
        for stage, rates in self.times.rows_per_s.items():
            rate = self.times.median(stage)
            spread = f"({min(rates):,.0f} to {max(rates):,.0f})"
            size = f"{rate * self.row_bytes / 1e6:,.1f} MB/s"
            lines.append(f"{stage:<9} {rate:>11,.0f} rows/s  {size:>12}  {WHAT[stage]}  {spread}")
        if self.training_rows_per_s is not None:
            rate = self.training_rows_per_s
            lines.append(f"training  {rate:>11,.0f} rows/s  {'':>12}  {self.training_source}")
        return "\n".join([*lines, f"limit     {self.verdict()}"])

    def verdict(self) -> str:
        """Say in one sentence what limits."""
        stage = self.times.limit()
        slowest = "decode, which takes longer than transform and batch together"
        if stage != "decode":
            other = "batch" if stage == "transform" else "transform"
            slowest = f"{stage}: with {other}, in one thread, slower than decode in another"
        if self.training_rows_per_s is None:
            return f"of reading: {slowest}"
        ratio = self.times.median(TOGETHER) / self.training_rows_per_s
        if ratio >= 1:
            return f"the model: reading is {ratio:.1f} times as fast. Of reading: {slowest}"
        return f"reading, at {ratio:.2f} of what the model takes. Of it: {slowest}"


def bench_data(
    source: str | Path,
    overrides: Mapping[str, Any] | Iterable[str] = (),
    *,
    split: str = "train",
    seconds: float = 10.0,
    with_model: bool = False,
    printer: Callable[[str], None] = lambda _: None,
) -> ReadingSpeed:
    """Time the stages of reading a run's log.

    Args:
        source: A run file or a run folder; of a run file, `runs/<name>` tells the rate of training
            if it holds the same run.
        overrides: `{"training.batch_size": 4096}`, or texts `training.batch_size=4096`.
        split: train, valid or test; train is read as a training does, the others as evaluation.
        seconds: About how long to measure.
        with_model: Whether to time training steps as well, with batches held in memory.
        printer: Where plain lines go.

    Raises:
        ConfigError: There is no such split, or `seconds` is not positive.
        DataError: A file of the log is missing or wrong.
        SchemaError: Columns are missing or of the wrong type.
    """
    if not seconds > 0:
        raise ConfigError(f"--seconds: must be positive. Got {seconds}. Give 10.")
    path = Path(source)
    run = load_run(RunFolder(path).run_file if path.is_dir() else path, overrides)
    at = RunFolder(path if path.is_dir() else Path("runs") / run.name)
    is_same = at.run_file.is_file() and _is_same(run, at)
    files = run.config.data.files(split)
    has_transforms = is_same and (at.transforms / "transforms.json").is_file()
    transforms = Transforms.load(at.transforms) if has_transforms else fit(run, printer=printer)
    reader = (
        training_reader(run, transforms)
        if split == "train"
        else evaluation_reader(run, transforms, files)
    )
    times = time_stages(reader, seconds=seconds)
    row_bytes = _column_bytes(reader) / max(reader.num_rows, 1)
    printer(
        f"reading   {split}: {reader.num_rows:,} rows, {len(reader.decoder.columns)} columns, "
        f"{row_bytes:,.0f} bytes a row on disk; buffers of {times.buffer_rows:,} rows, batches of "
        f"{reader.batch_size:,}"
    )
    rate, where = _logged_rate(at) if is_same else None, f"logged in {at.metrics}"
    if with_model:
        rate, where = _step_rate(run, transforms, seconds), "steps on batches held in memory"
    return ReadingSpeed(times, row_bytes, rate, where)


def _is_same(run: Run, at: RunFolder) -> bool:
    """Tell whether a run folder is of this run."""
    return load_run(at.run_file).config.digest() == run.config.digest()


def _logged_rate(at: RunFolder) -> float | None:
    """Give the median rate of a training's log, its first record left out."""
    if not at.metrics.is_file():
        return None
    rates = [one["rows_per_s"] for one in read_metrics(at.metrics) if one["kind"] == "step"]
    return median(rates[1:] or rates) if rates else None


def _column_bytes(reader: LogReader) -> int:
    """Count the bytes on disk of the columns that are read."""
    columns = set(reader.decoder.columns)
    total = 0
    for group in reader.log.row_groups:
        header = group.metadata.row_group(group.number)
        chunks = (header.column(number) for number in range(header.num_columns))
        # The values of a list column are called `name.list.element`.
        total += sum(
            chunk.total_compressed_size
            for chunk in chunks
            if chunk.path_in_schema in columns or chunk.path_in_schema.split(".list.")[0] in columns
        )
    return total


def _step_rate(run: Run, transforms: Transforms, seconds: float) -> float:
    """Give the rows a second of training steps, reading left out."""
    training = run.config.training
    device = choose_device(training.device)
    autocast = autocast_for(choose_precision(training.precision, device), device)
    model = new_model(run, transforms).to(device).train()
    is_grouped = run.config.data.layout == "grouped"
    network = network_to_train(model, hoist=training.hoist, is_grouped=is_grouped)
    loss = Loss(model.schema, auxiliary_weights=model.network.auxiliary_weights)
    dense = dense_optimizer(model.network, training.dense)
    sparse = sparse_optimizer(model.sparse_tables(), training.sparse)
    with training_reader(run, transforms).batches(0) as reads:
        batches = [read.batch.to(device) for read in islice(reads, MODEL_BATCHES)]
    rates: list[float] = []
    ends = time.perf_counter() + seconds
    while len(rates) <= MODEL_BATCHES or time.perf_counter() < ends:
        batch = batches[len(rates) % len(batches)]
        began = time.perf_counter()
        train_step(
            model.embedder,
            network,
            loss,
            batch,
            dense=dense,
            sparse=sparse,
            max_grad_norm=training.max_grad_norm,
            autocast=autocast,
        )
        synchronize(device)
        rates.append(batch.num_rows / (time.perf_counter() - began))
    # The first steps make the optimizers' state and warm up.
    return median(rates[2:])
