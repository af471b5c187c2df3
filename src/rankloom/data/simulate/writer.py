"""Write a simulated log: block after block of users, each with a file for every split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from rankloom.atomic import is_occupied, new_folder
from rankloom.data.simulate.block import (
    calibrate_world,
    join,
    request_times,
    simulate_block,
)
from rankloom.data.simulate.config import SimulationConfig
from rankloom.data.simulate.people import Int64
from rankloom.data.simulate.run_file import run_values
from rankloom.data.simulate.summary import Summary
from rankloom.data.simulate.tables import flat_table, request_table
from rankloom.data.simulate.world import Generator, build_world
from rankloom.errors import DataError

SPLITS = ("train", "valid", "test")
SUMMARY_FILE, RUN_FILE = "simulation.json", "run.yaml"
# A block is in memory as a whole: its rows with their events, and the histories of its users.
_VALUES_OF_BLOCK = 40_000_000
_VALUES_OF_ROW = 40
_REQUESTS_OF_PIECE = 2_000
"""Requests that are written at a time: a row group."""
_TIMES_TO_CUT_BY = 100_000


def simulate(
    config: SimulationConfig, destination: Path, *, progress: Callable[[int], None] = lambda _: None
) -> dict[str, Any]:
    """Write a log whose truth is known.

    The folder holds `train`, `valid` and `test` with Parquet files, a run file that trains on them,
    and the summary.

    Args:
        config: Sizes, dynamics and strengths.
        destination: Folder to write; it appears when all of the log is there.
        progress: Called with the rows written so far.

    Returns:
        The summary: what `simulation.json` holds.

    Raises:
        DataError: The folder holds something already, or cannot be written to.
    """
    if is_occupied(destination):
        raise DataError(
            f"{destination}: holds something already. Name another folder, or remove it."
        )
    try:
        with new_folder(destination) as folder:
            summary = _write_blocks(config, folder, progress)
            text = json.dumps(summary, indent=1) + "\n"
            (folder / SUMMARY_FILE).write_text(text, encoding="ascii")
            text = yaml.safe_dump(run_values(config, destination), sort_keys=False)
            (folder / RUN_FILE).write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{destination}: cannot be written ({error.strerror or error}). "
            "Free some space, or give another folder."
        ) from None
    return summary


def _write_blocks(
    config: SimulationConfig, folder: Path, progress: Callable[[int], None]
) -> dict[str, Any]:
    """Write all blocks' files and give the summary."""
    blocks = blocks_of_users(config)
    seeds = np.random.SeedSequence(config.seed).spawn(3 + len(blocks))
    for_world, for_calibration, for_ends, *for_blocks = map(np.random.default_rng, seeds)
    world = build_world(config, for_world)
    calibration = calibrate_world(config, world, for_calibration)
    ends = _ends_of_splits(config, for_ends)
    summary = Summary(config, SPLITS)
    num_requests = 0
    for number, (users, rng) in enumerate(zip(blocks, for_blocks, strict=True)):
        people, steps = simulate_block(
            config,
            world,
            lambda _: calibration,
            first_user=users.start,
            num_users=len(users),
            rng=rng,
        )
        found = list(steps)
        if not found:
            continue
        block = join(found)
        del found
        table = request_table(
            world, people, block, first_request=num_requests, with_parts=config.parts
        )
        num_requests += len(table)
        for split, part in _divide(table, ends).items():
            path = folder / split / f"part-{number:05d}.parquet"
            _write(part, path, is_flat=config.layout == "flat")
        summary.add(block, np.searchsorted(ends, block.requests["time"], side="right"), people)
        progress(summary.num_rows)
    return summary.to_dict()


def blocks_of_users(config: SimulationConfig) -> list[range]:
    """Divide the users so that a block fits into some hundred megabytes."""
    rows = config.rows.total / config.users.count
    requests = rows / (sum(config.requests.candidates) / 2)
    history = 3 * config.history.length
    values = rows * _VALUES_OF_ROW + (1 + requests) * history + config.items.categories
    size = max(1, int(_VALUES_OF_BLOCK / values))
    count = config.users.count
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


def _ends_of_splits(config: SimulationConfig, rng: Generator) -> Int64:
    """Give the seconds in which train and valid end."""
    times = request_times(config, _TIMES_TO_CUT_BY, rng)
    rows = config.rows
    shares = np.array([rows.train, rows.train + rows.valid]) / rows.total
    return np.quantile(times, shares).astype(np.int64)


def _divide(table: pa.Table, ends: Int64) -> dict[str, pa.Table]:
    """Cut a table that is in order of time; splits without a request are left out."""
    cuts = np.searchsorted(table["timestamp"].to_numpy(), ends)
    places = zip(SPLITS, [0, *cuts], [*cuts, len(table)], strict=True)
    return {
        split: table.slice(first, last - first) for split, first, last in places if last > first
    }


def _write(requests: pa.Table, path: Path, *, is_flat: bool) -> None:
    path.parent.mkdir(exist_ok=True)
    pieces = [
        requests.slice(first, _REQUESTS_OF_PIECE)
        for first in range(0, len(requests), _REQUESTS_OF_PIECE)
    ]
    schema = (flat_table(pieces[0]) if is_flat else requests).schema
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=1) as writer:
        for piece in pieces:
            writer.write_table(flat_table(piece) if is_flat else piece)
