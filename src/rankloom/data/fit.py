"""Fitting on the training log: one pass in bounded memory gives vocabularies and statistics.

Keys are counted where they stand: a user's once per line, so in a grouped log once per request, and
a history's events each time the history is listed, events beyond `max_length` included.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rankloom.data.decode import decode_numbers, fill_default
from rankloom.data.files import FileNames, check_files, read_lines
from rankloom.data.raw import Origin, RawColumn
from rankloom.data.statistics import Moments, Quantiles, Statistics
from rankloom.data.transforms import Transforms, statistics_of
from rankloom.data.uses import Layout, is_list_type
from rankloom.data.vocabulary import VocabularyBuilder
from rankloom.schema import DenseFeature, IdColumn, QuantileEncoding, Schema

MAX_SAMPLE = 1_000_000
"""Values of a column that quantiles are taken of; with fewer in the log, all."""

Report = Callable[[int, int], None]
"""Called with the lines done and the lines in all."""


def fit_transforms(
    files: FileNames,
    schema: Schema,
    *,
    layout: Layout = "flat",
    report: Report | None = None,
    seed: int = 0,
) -> Transforms:
    """Fit what a schema needs, in one pass over the training files.

    Args:
        files: Paths or glob patterns of the training log.
        schema: Says which columns need a vocabulary or statistics; only those are read.
        layout: How the log is stored.
        report: Told of the progress after each chunk.
        seed: Of the sample that quantiles are taken of.

    Raises:
        DataError: A file cannot be read, or holds a value that is not allowed.
        SchemaError: Columns are missing or of the wrong type.
    """
    log = check_files(files, schema, layout=layout, with_labels=False, training=True)
    fitters: list[_KeyFitter | _NumberFitter] = [
        *_vocabulary_fitters(schema),
        *_statistics_fitters(schema, seed),
    ]
    columns = list(dict.fromkeys(fitter.column for fitter in fitters))
    done = 0
    for batch, origin in read_lines(log.segments() if columns else [], columns):
        for fitter in fitters:
            fitter.add(_values(batch.column(fitter.column), fitter.column, origin))
        done += len(batch)
        if report is not None:
            report(done, log.num_lines)
    builders = {f.at.table: f.builder for f in fitters if isinstance(f, _KeyFitter)}
    return Transforms(
        {table: builder.build() for table, builder in builders.items()},
        {f.name: f.finish() for f in fitters if isinstance(f, _NumberFitter)},
    )


@dataclass
class _KeyFitter:
    """Adds one column's keys to its table's builder."""

    at: IdColumn
    builder: VocabularyBuilder

    @property
    def column(self) -> str:
        return self.at.column

    def add(self, raw: RawColumn) -> None:
        # The default stands for null, so it is seen as often as null is.
        self.builder.add(fill_default(raw, self.at.source.default).array)


@dataclass
class _NumberFitter:
    """Follows one dense feature's values."""

    name: str
    feature: DenseFeature
    accumulator: RunningMoments | Sample

    @property
    def column(self) -> str:
        return self.feature.column or self.name

    def add(self, raw: RawColumn) -> None:
        # Missing values without a default are for training to refuse, not for fitting.
        values = decode_numbers(raw, default=self.feature.default, keep_missing=True)
        self.accumulator.add(values[~np.isnan(values)])

    def finish(self) -> Statistics:
        if isinstance(self.accumulator, RunningMoments):
            return self.accumulator.finish()
        assert isinstance(self.feature.encode, QuantileEncoding)
        return self.accumulator.quantiles(self.feature.encode.num_buckets)


def _vocabulary_fitters(schema: Schema) -> list[_KeyFitter]:
    tables = schema.tables()
    builders = {
        table: VocabularyBuilder(
            source.vocabulary.min_count,
            max_size=source.vocabulary.max_size,
            name=f"table {table!r}",
        )
        for table, source in tables.items()
        if source.vocabulary is not None
    }
    return [
        _KeyFitter(at, builders[at.table]) for at in schema.id_columns() if at.table in builders
    ]


def _statistics_fitters(schema: Schema, seed: int) -> list[_NumberFitter]:
    fitters = []
    for name, feature in schema.dense.items():
        needed = statistics_of(feature.encode)
        if needed is Moments:
            fitters.append(_NumberFitter(name, feature, RunningMoments()))
        elif needed is Quantiles:
            # By name, so that adding a feature leaves the others' samples as they were.
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            fitters.append(_NumberFitter(name, feature, Sample(MAX_SAMPLE, rng)))
    return fitters


def _values(array: pa.Array, name: str, origin: Origin) -> RawColumn:
    """Open all lists around a column's values."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    raw = RawColumn(name, array, origin)
    while is_list_type(raw.array.type):
        _, raw = raw.lists()
    return raw


class RunningMoments:
    """Mean and deviation, added up block by block (Chan et al.'s update, no cancellation)."""

    def __init__(self) -> None:
        self._count, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Take in a block of (n,) values without NaN."""
        if not len(values):
            return
        block = values.astype(np.float64)
        mean = float(block.mean())
        squares = float(np.square(block - mean).sum())
        count = self._count + len(block)
        shift = mean - self._mean
        self._squares += squares + shift * shift * self._count * len(block) / count
        self._mean += shift * len(block) / count
        self._count = count

    def finish(self) -> Moments:
        """Give the moments; mean 0 and deviation 1 when there was no value."""
        deviation = (self._squares / max(self._count, 1)) ** 0.5
        return Moments(self._mean, deviation if deviation > 0 else 1.0)


class Sample:
    """A uniform sample without replacement of a stream; all of it while it is small enough.

    Each value draws a random key, and those with the smallest keys stay. So the sample does not
    depend on how the stream is cut into blocks.

    Args:
        max_size: Values kept.
        rng: Draws the keys.
    """

    def __init__(self, max_size: int, rng: np.random.Generator) -> None:
        self._max_size = max_size
        self._rng = rng
        self._values = [np.empty(0, np.float32)]
        self._keys = [np.empty(0)]
        self._held = 0
        self._largest_key = 1.0

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Take in a block of (n,) values without NaN."""
        keys = self._rng.random(len(values))
        stays = keys < self._largest_key
        self._values.append(values[stays])
        self._keys.append(keys[stays])
        self._held += len(self._values[-1])
        if self._held > 2 * self._max_size:
            self._shrink()

    def _shrink(self) -> None:
        values, keys = np.concatenate(self._values), np.concatenate(self._keys)
        if len(keys) > self._max_size:
            smallest = np.argpartition(keys, self._max_size - 1)[: self._max_size]
            values, keys = values[smallest], keys[smallest]
            self._largest_key = float(keys.max())
        self._values, self._keys, self._held = [values], [keys], len(values)

    def values(self) -> npt.NDArray[np.float32]:
        """Give the sample, in no particular order."""
        self._shrink()
        return self._values[0]

    def quantiles(self, num_buckets: int) -> Quantiles:
        """Give the boundaries of buckets with equal shares; all 0 when there was no value."""
        values = self.values()
        if not len(values):
            return Quantiles((0.0,) * (num_buckets - 1))
        shares = np.arange(1, num_buckets) / num_buckets
        # An observed value, not one between two: exact in float32, and stable for counts.
        boundaries = np.quantile(values, shares, method="higher")
        return Quantiles(tuple(float(boundary) for boundary in boundaries))
