"""A seeded log that behaves like Criteo's: 26 sparse and 13 dense columns, a planted signal.

    write_log(Path("log"), num_rows=1_000_000, valid_rows=100_000, seed=1)

Sparse ids are Zipf-distributed over 10 to 1,000,000 values a column; dense values are heavy-tailed
counts, a tenth of them missing. The label's logit is the sum of

- an effect of each id,
- inner products between latent vectors of some columns' ids: invisible to a linear model,
- bumps and saturations of the dense values: not linear in them,
- one dense value whose effect turns with the id of one sparse column,
- noise.

Latents are hashes of (seed, column, id), so no table is kept and any part can be written alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

GENERATOR = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
"""Part of the cache key: after any change of this file, a log is written again."""

NUM_SPARSE, NUM_DENSE = 26, 13
CARDINALITIES = tuple(round(10 ** (1 + 5 * i / (NUM_SPARSE - 1))) for i in range(NUM_SPARSE))
SPARSE_COLUMNS = tuple(f"c{i + 1}" for i in range(NUM_SPARSE))
DENSE_COLUMNS = tuple(f"i{i + 1}" for i in range(NUM_DENSE))
SCHEMA = pa.schema(
    [(name, pa.int64()) for name in SPARSE_COLUMNS]
    + [(name, pa.float64()) for name in DENSE_COLUMNS]
    + [("label", pa.int64())]
)

ROWS_PER_GROUP = 65_536
ZIPF_EXPONENT = 1.1
MISSING_RATE = 0.1
INTERACTING = (1, 3, 5, 7, 9, 11, 13, 15)
"""Sparse columns whose latent vectors meet each other; by order of cardinality, 16 to 10,000."""
LATENT_DIM, LATENT_MEAN = 3, 0.2
ID_EFFECT, PAIR_EFFECT, DENSE_EFFECT, TURN_EFFECT, NOISE = 0.18, 0.2, 0.4, 0.4, 0.3
"""Standard deviations: of one id's effect, one pair's product, one dense effect, the noise."""
BIAS = -2.1
"""Gives about one positive in four."""

UInts = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Log:
    """Where a written log lies."""

    train: Path
    valid: Path
    digest: str
    """SHA-256 of all values in order, independent of how Parquet stores them."""


def write_log(folder: Path, *, num_rows: int, seed: int, valid_rows: int) -> Log:
    """Write `train.parquet` and `valid.parquet`, or find them there from an earlier call.

    `log.json` is written last and names settings and digest; without it, or when its settings
    differ, everything is written again.

    Args:
        folder: Made when missing.
        num_rows: Rows of `train.parquet`. A longer log begins with the shorter one's rows, up to
            the last whole row group.
        seed: Decides ids, latents, values and labels.
        valid_rows: Rows of `valid.parquet`, from the same distribution.
    """
    settings = {
        "generator": GENERATOR,
        "num_rows": num_rows,
        "valid_rows": valid_rows,
        "seed": seed,
    }
    train, valid, stamp = folder / "train.parquet", folder / "valid.parquet", folder / "log.json"
    if stamp.exists() and train.exists() and valid.exists():
        written = json.loads(stamp.read_text(encoding="utf-8"))
        if written["settings"] == settings:
            return Log(train, valid, written["digest"])
    folder.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    digest = hashlib.sha256()
    for part, (path, rows) in enumerate(((train, num_rows), (valid, valid_rows))):
        _write_part(path, rows=rows, seed=seed, part=part, digest=digest)
    record = json.dumps({"settings": settings, "digest": digest.hexdigest()}, indent=1)
    _replace(stamp, record.encode())
    return Log(train, valid, digest.hexdigest())


def draw_chunk(rows: int, *, seed: int, part: int, chunk: int) -> pa.RecordBatch:
    """Draw one row group; equal arguments give equal values.

    Args:
        rows: Number of rows.
        seed: The log's seed.
        part: 0 for training rows, 1 for validation rows.
        chunk: Number of the row group in its part.
    """
    rng = np.random.default_rng([seed, part, chunk])
    columns: list[pa.Array] = []
    logits = np.full(rows, BIAS)
    logits += NOISE * rng.standard_normal(rows)
    vectors = np.zeros((rows, LATENT_DIM))
    squares = np.zeros(rows)
    turns = np.zeros(rows)
    for column, cardinality in enumerate(CARDINALITIES):
        ids = _shuffle_ids(
            _draw_zipf(rng, rows, cardinality), cardinality, seed=seed, column=column
        )
        columns.append(pa.array(ids))
        logits += ID_EFFECT * hashed_normal(ids, seed=seed, stream=column)
        if column in INTERACTING:
            vector = _latent_vectors(ids, seed=seed, column=column)
            vectors += vector
            squares += (vector**2).sum(axis=1)
        if column == 6:
            turns = hashed_normal(ids, seed=seed, stream=2000)
    # (|sum of v|^2 - sum of |v|^2) / 2 is the sum over all pairs of their inner products.
    logits += PAIR_EFFECT * ((vectors**2).sum(axis=1) - squares) / 2 / math.sqrt(LATENT_DIM)
    for column in range(NUM_DENSE):
        z = rng.standard_normal(rows)
        missing = rng.random(rows) < MISSING_RATE
        columns.append(pa.array(_dense_values(z, column), mask=missing))
        effect = _dense_effect(z, column)
        if column == 0:
            effect = TURN_EFFECT / DENSE_EFFECT * turns * z
        logits += DENSE_EFFECT * np.where(missing, 0.0, effect)
    labels = rng.random(rows) < 1.0 / (1.0 + np.exp(-logits))
    columns.append(pa.array(labels.astype(np.int64)))
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def splitmix64(x: UInts) -> UInts:
    """Mix each 64-bit number into one that looks random (the finalizer of SplitMix64)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hashed_normal(ids: Ints, *, seed: int, stream: int) -> Floats:
    """Give each id a fixed value from nearly a standard normal: no table, the same in each run.

    Args:
        ids: (B,) ids of one column.
        seed: The log's seed.
        stream: Which of the column's latents; other streams are independent.
    """
    key = splitmix64(np.array([seed * 1_000_003 + stream], dtype=np.uint64))
    lanes = splitmix64(ids.astype(np.uint64) ^ key).view(np.uint16).reshape(-1, 4)
    # The sum of four uniform numbers has variance 4 / 12 and is normal enough.
    return (lanes.sum(axis=1, dtype=np.int64) / 65_536 - 2.0) * math.sqrt(3.0)


def _draw_zipf(rng: np.random.Generator, rows: int, cardinality: int) -> Ints:
    """Draw ranks 0 .. cardinality - 1 with frequency near (rank + 1) ** -ZIPF_EXPONENT.

    The continuous power law is inverted and rounded down: a closed form, at any cardinality.
    """
    power = 1.0 - ZIPF_EXPONENT
    u = rng.random(rows)
    x = (1.0 + u * ((cardinality + 1.0) ** power - 1.0)) ** (1.0 / power)
    return np.minimum(x.astype(np.int64) - 1, cardinality - 1)


def _shuffle_ids(ranks: Ints, cardinality: int, *, seed: int, column: int) -> Ints:
    """Map ranks to ids one to one, by the column, so that frequent ids are not small."""
    rng = np.random.default_rng([seed, 7, column])
    multiplier = int(rng.integers(cardinality // 3, cardinality))
    while math.gcd(multiplier, cardinality) != 1:
        multiplier += 1
    return (ranks * multiplier + int(rng.integers(cardinality))) % cardinality


def _latent_vectors(ids: Ints, *, seed: int, column: int) -> Floats:
    """Give each id its (B, LATENT_DIM) latent vector.

    The shared mean makes the products visible, weakly, in each id's own effect: a model finds the
    vectors' directions there, as it does in real logs, and products of pure noise stay hidden.
    """
    streams = range(1000 + column * LATENT_DIM, 1000 + (column + 1) * LATENT_DIM)
    normals = [hashed_normal(ids, seed=seed, stream=stream) for stream in streams]
    return np.stack(normals, axis=1) + LATENT_MEAN


def _dense_values(z: Floats, column: int) -> Floats:
    """Turn normal values into heavy-tailed counts; the scale grows with the column."""
    return np.floor(np.exp(0.5 + 0.35 * column + (0.8 + 0.1 * (column % 5)) * z))


def _dense_effect(z: Floats, column: int) -> Floats:
    """Give a dense value's effect, by turns linear, a bump, saturating, and periodic."""
    shapes = (
        lambda: 0.5 * z,
        lambda: 1.5 * np.exp(-(z**2)) - 0.85,
        lambda: np.tanh(3.0 * (z - 0.5)) + 0.3,
        lambda: np.sin(2.5 * z),
    )
    return shapes[column % len(shapes)]()


def _write_part(path: Path, *, rows: int, seed: int, part: int, digest: hashlib._Hash) -> None:
    """Write one Parquet file under a temporary name, then rename it."""
    temporary = path.with_name(path.name + ".tmp")
    with pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
        for chunk, size in enumerate(_chunk_sizes(rows)):
            batch = draw_chunk(size, seed=seed, part=part, chunk=chunk)
            for column in batch.columns:
                values = column.to_numpy(zero_copy_only=False)  # nulls become NaN, always the same
                digest.update(np.ascontiguousarray(values).data)
            writer.write_batch(batch, row_group_size=ROWS_PER_GROUP)
    Path(temporary).replace(path)


def _chunk_sizes(rows: int) -> Iterator[int]:
    for start in range(0, rows, ROWS_PER_GROUP):
        yield min(ROWS_PER_GROUP, rows - start)


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    Path(temporary).replace(path)
