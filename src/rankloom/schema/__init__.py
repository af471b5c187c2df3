"""What a log means: features with side and rate, roles, tasks. No torch here."""

from rankloom.schema.features import (
    AnyFeature,
    DenseFeature,
    DenseTrainingOnly,
    Feature,
    IdSource,
    LinearEncoding,
    LogEncoding,
    QuantileEncoding,
    SequenceColumn,
    SequenceFeature,
    SparseFeature,
    SparseTrainingOnly,
    VectorFeature,
    VocabularyConfig,
)
from rankloom.schema.labels import Expression, parse_expression
from rankloom.schema.rates import RATE_OF_SIDE, Rate, Side
from rankloom.schema.schema import IdColumn, Schema
from rankloom.schema.tasks import AnyTask, BinaryTask, PositiveTask, Roles, Share, Task
from rankloom.schema.unified import UNIFIED, UnifiedConfig

__all__ = [
    "RATE_OF_SIDE",
    "UNIFIED",
    "AnyFeature",
    "AnyTask",
    "BinaryTask",
    "DenseFeature",
    "DenseTrainingOnly",
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
    "Share",
    "Side",
    "SparseFeature",
    "SparseTrainingOnly",
    "Task",
    "UnifiedConfig",
    "VectorFeature",
    "VocabularyConfig",
    "parse_expression",
]
