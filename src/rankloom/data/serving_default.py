"""What stands for the values of a training-only feature outside training."""

from __future__ import annotations

import pyarrow as pa

from rankloom.data.columns import Array
from rankloom.data.decode import IdMapping, decode_numbers
from rankloom.data.id_rows import UNKNOWN_ROW
from rankloom.data.raw import Origin, RawColumn
from rankloom.errors import DataError, SchemaError
from rankloom.schema import DenseFeature, IdSource, QuantileEncoding, SparseFeature


def serving_value(
    name: str, feature: SparseFeature | DenseFeature, mapping: IdMapping | None
) -> tuple[str, Array]:
    """Decode a feature's serving default, as the log would be.

    Args:
        name: The feature's name.
        feature: Is training-only.
        mapping: How its ids become rows, if it has ids.

    Returns:
        The field of `Batch`, and the one entry for it: (1,) or (1, K).

    Raises:
        SchemaError: The default is no value that the feature can have.
    """
    assert feature.training_only is not None
    value = feature.training_only.serving_default
    if value is None:
        value = feature.default
    array = pa.nulls(1) if value is None else pa.array([value])
    raw = RawColumn("serving_default", array, Origin(f"schema.{name}.training_only"))
    where = f"schema.{name}.training_only.serving_default"
    try:
        if isinstance(feature, DenseFeature):
            keep_missing = isinstance(feature.encode, QuantileEncoding)
            raw = RawColumn(raw.name, array.cast(pa.float64()), raw.origin)
            return "numbers", decode_numbers(
                raw, default=feature.default, keep_missing=keep_missing
            )
        assert mapping is not None
        way = mapping.way
        if isinstance(value, str) and isinstance(way, IdSource) and way.num_embeddings:
            raise DataError("A row of a table is no text.")
        rows = mapping.rows(raw)
    except DataError:
        raise SchemaError(
            f"{where}: is no value that the feature can have. Got {value!r}. State one that the "
            "training log may hold."
        ) from None
    if mapping.vocabulary is not None and (rows == UNKNOWN_ROW).any():
        raise SchemaError(
            f"{where}: is not in the vocabulary of the training log, so that nothing is learned "
            f"of it. Got {value!r}. State a value that the log holds."
        )
    return "ids", rows
