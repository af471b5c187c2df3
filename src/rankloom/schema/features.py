"""The four kinds of features and how each becomes ids or numbers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from rankloom.config import Config, OneOf
from rankloom.config.problems import either, problem
from rankloom.schema.rates import RATE_OF_SIDE, Rate, Side


class VocabularyConfig(Config):
    """Ids by a vocabulary counted in the training log: row 0 missing, row 1 unknown, then keys."""

    min_count: PositiveInt = 1
    """Occurrences a key needs; rarer keys share the row of the unknown."""
    max_size: PositiveInt | None = None
    """Most keys kept, the most frequent first; without one, all."""


class IdSource(Config):
    """How raw values become rows of a table: at most one of three ways.

    A feature that only names a `table` takes the way of the feature that defines it; a table that
    `model.embedding.unified` keeps needs none.
    """

    table: str | None = None
    """Name of the table; features that name the same one share it. Default: the feature's name."""
    num_embeddings: PositiveInt | None = None
    """The values are rows already: whole numbers from 0 to this, excluded."""
    vocabulary: VocabularyConfig | None = None
    """Rows by a vocabulary of the values seen in training."""
    hash_buckets: PositiveInt | None = None
    """Rows by a stable hash of the value, over this many rows (one more is for missing)."""
    default: Annotated[int | str | None, either("a whole number or a text")] = None
    """Value that stands for null. Without one, null is row 0 of a vocabulary or a hashed table,
    and an error where the values are rows already."""

    @model_validator(mode="after")
    def _one_way(self) -> IdSource:
        ways = [
            name
            for name in ("num_embeddings", "vocabulary", "hash_buckets")
            if getattr(self, name) is not None
        ]
        if len(ways) > 1:
            raise problem(f"{' and '.join(ways)} exclude each other. Keep one.")
        return self

    @property
    def defines_table(self) -> bool:
        """Whether this says how values become rows, rather than following another feature."""
        ways = (self.num_embeddings, self.vocabulary, self.hash_buckets)
        return any(way is not None for way in ways)


class Feature(Config):
    """What every feature states."""

    side: Side
    """Where it comes from: user, context, item or cross."""
    column: str | None = None
    """Column of the log. Default: the feature's name."""

    @property
    def rate(self) -> Rate:
        """How often it must be computed."""
        return RATE_OF_SIDE[self.side]


class SparseTrainingOnly(Config):
    """What stands for a value that is known only afterwards, such as a position."""

    serving_default: Annotated[int | str | None, either("a whole number or a text")]
    """Id that evaluation, prediction and serving take in place of any value; null for missing."""


class SparseFeature(Feature, IdSource):
    """One id or several."""

    kind: Literal["sparse"] = "sparse"
    """Chooses this kind."""
    pooling: Literal["sum", "mean"] | None = None
    """How several ids become one vector; without one, a row has exactly one id."""
    weights: str | None = None
    """Column with one weight per id; only with `pooling`."""
    training_only: SparseTrainingOnly | None = None
    """Take the log's value in training only; without pooling."""

    @model_validator(mode="after")
    def _fits_its_pooling(self) -> SparseFeature:
        if self.weights is not None and self.pooling is None:
            raise problem("weights need several ids. Set pooling: sum or mean.")
        if self.training_only is not None and self.pooling is not None:
            raise problem("training_only needs exactly one id. Leave pooling out.")
        return self


class LinearEncoding(Config):
    """The number itself, standardized by the training log's mean and deviation."""

    kind: Literal["linear"] = "linear"
    """Chooses this kind."""
    standardize: bool = True
    """Subtract the training mean and divide by the training deviation."""


class LogEncoding(Config):
    """sign(x) * log(1 + |x|), for counts and prices."""

    kind: Literal["log"] = "log"
    """Chooses this kind."""


class QuantileEncoding(Config):
    """An embedding of the bucket the number falls in; buckets hold equal shares of the log."""

    kind: Literal["quantile"] = "quantile"
    """Chooses this kind."""
    num_buckets: Annotated[int, Field(ge=2)] = 16
    """Buckets; 16 or more for a skewed column. One more row is for missing values."""


Encoding = Annotated[
    LinearEncoding | LogEncoding | QuantileEncoding,
    OneOf(LinearEncoding, LogEncoding, QuantileEncoding),
]


class DenseTrainingOnly(Config):
    """What stands for a value that is known only afterwards, such as a position."""

    serving_default: float | None
    """Number that evaluation, prediction and serving take in place of any; null for missing."""


class DenseFeature(Feature):
    """One number."""

    kind: Literal["dense"] = "dense"
    """Chooses this kind."""
    encode: Encoding = LinearEncoding()
    """How the number becomes a vector: linear, log or quantile."""
    default: float | None = None
    """Value that stands for null and NaN. Without one they are an error, except with quantile
    buckets, where they have a row of their own."""
    training_only: DenseTrainingOnly | None = None
    """Take the log's value in training only."""


class VectorFeature(Feature):
    """A precomputed embedding."""

    kind: Literal["vector"] = "vector"
    """Chooses this kind."""
    dim: PositiveInt
    """Its width."""
    default: Literal["zeros"] | None = None
    """What stands for null: `zeros`, or an error."""


class SequenceColumn(IdSource):
    """One id column of a sequence; its values are aligned with the other columns'."""

    column: str | None = None
    """Column of the log. Default: `<sequence>_<name>`."""


class SequenceFeature(Feature):
    """Ordered events, the newest last: several aligned columns of lists."""

    kind: Literal["sequence"] = "sequence"
    """Chooses this kind."""
    columns: Annotated[dict[str, SequenceColumn], Field(min_length=1)]
    """The id columns of an event."""
    max_length: PositiveInt = 200
    """Newest events kept; older ones are dropped."""
    time: str | None = None
    """Column with the events' times in whole seconds; gives the gaps between events."""
    first_event: str | None = None
    """Column with the absolute number of the first listed event. Default: 0 for every row."""

    @property
    def default(self) -> tuple[()]:
        """A null history is an empty one."""
        return ()


AnyFeature = Annotated[
    SparseFeature | DenseFeature | SequenceFeature | VectorFeature,
    OneOf(SparseFeature, DenseFeature, SequenceFeature, VectorFeature),
]
