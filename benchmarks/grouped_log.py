"""A log grouped by request with a planted signal: user, item and crosses of both.

    logit = a + sum_f u_f(value) + sum_g v_g(value) + sum_k <p_k(user), q_k(item)>

where u, v are effects of single values, and p, q are sums of vectors of the values of two columns
a side. A model that sees user and item apart cannot learn the last term: the true logit has an AUC
of .820, and without that term .697.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

NUM_IDS, CANDIDATES = 20, 30
NUM_COLUMNS = {"user": 18, "item": 12}
CROSSED_COLUMNS, NUM_CROSSES = 2, 8
"""Columns of a side that enter the crosses, and the width of their vectors."""
SCALES = {"user": 0.6, "item": 0.8, "cross": 1.2}
"""Deviation of each part of the logit."""


def columns(side: str) -> list[str]:
    """Name the columns of a side."""
    return [f"{side}_{number}" for number in range(NUM_COLUMNS[side])]


def write_grouped_log(folder: Path, *, num_rows: int, seed: int) -> Path:
    """Write a log once; a later call finds it.

    Args:
        folder: Its name must say all arguments.
        num_rows: Of all requests, each of 30 candidates.
        seed: Of users, items and clicks. The signal is always the same.
    """
    path = folder / "part-0.parquet"
    if path.exists():
        return path
    signal, rng = np.random.default_rng(11), np.random.default_rng(seed)
    num_requests = num_rows // CANDIDATES
    shapes = {"user": (num_requests,), "item": (num_requests, CANDIDATES)}
    parts: dict[str, npt.NDArray[np.float64]] = {}
    vectors: dict[str, npt.NDArray[np.float64]] = {}
    table: dict[str, pa.Array] = {}
    for side, shape in shapes.items():
        count = NUM_COLUMNS[side]
        effects = signal.normal(size=(count, NUM_IDS)) / np.sqrt(count)
        latent = np.zeros((count, NUM_IDS, NUM_CROSSES))
        latent[:: count // CROSSED_COLUMNS] = signal.normal(
            size=(CROSSED_COLUMNS, NUM_IDS, NUM_CROSSES)
        ) / np.sqrt(CROSSED_COLUMNS)
        values = rng.integers(NUM_IDS, size=(count, *shape))
        parts[side] = sum(effects[f][values[f]] for f in range(count))
        vectors[side] = sum(latent[f][values[f]] for f in range(count))
        for name, column in zip(columns(side), values, strict=True):
            table[name] = pa.array(column if side == "user" else list(column))
    cross = (vectors["user"][:, None] * vectors["item"]).sum(-1) / np.sqrt(NUM_CROSSES)
    logit = (
        SCALES["user"] * parts["user"][:, None]
        + SCALES["item"] * parts["item"]
        + SCALES["cross"] * cross
        - 1.0
    )
    clicks = rng.random(logit.shape) < 1 / (1 + np.exp(-logit))
    table["label"] = pa.array(list(clicks.astype(np.int64)))
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    pq.write_table(pa.table(table), temporary, row_group_size=2048)
    temporary.replace(path)
    return path
