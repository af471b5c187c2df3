"""What a log means: features with side and rate, roles, tasks. No torch here."""

from rankloom.schema.features import (
    AnyFeature,
    DenseFeature,
    Feature,
    IdSource,
    LinearEncoding,
    LogEncoding,
    QuantileEncoding,
    SequenceColumn,
    SequenceFeature,
    SparseFeature,
    VectorFeature,
    VocabularyConfig,
)
from rankloom.schema.labels import Expression, parse_expression
from rankloom.schema.rates import RATE_OF_SIDE, Rate, Side
from rankloom.schema.schema import IdColumn, Schema
from rankloom.schema.tasks import AnyTask, BinaryTask, PositiveTask, Roles, Task

__all__ = [
    "RATE_OF_SIDE",
    "AnyFeature",
    "AnyTask",
    "BinaryTask",
    "DenseFeature",
    "Expression",
    "Feature",
    "IdColumn",
    "IdSource",
    "LinearEncoding",
    "LogEncoding",
    "PositiveTask",
    "QuantileEncoding",
    "Rate",
    "Roles",
    "Schema",
    "SequenceColumn",
    "SequenceFeature",
    "Side",
    "SparseFeature",
    "Task",
    "VectorFeature",
    "VocabularyConfig",
    "parse_expression",
]
