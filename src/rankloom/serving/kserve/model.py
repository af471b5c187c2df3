"""The served model in the protocol's words: which tensors it takes and gives."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from rankloom.data.request import PLACES, TIME_PLACES
from rankloom.schema import (
    DenseFeature,
    Feature,
    IdColumn,
    IdSource,
    QuantileEncoding,
    Schema,
    SequenceFeature,
    SparseFeature,
    VectorFeature,
)
from rankloom.serving.request import Served

VERSION_DIGITS = 12
BLENDED = "blended"
ORDER = "order"
OFFSETS = "/offsets"
"""Ends the name of the tensor that says which values of a column belong to which candidate."""

PREFIXES = ("user/", "context/", "candidates/")
"""Begin the names of inputs."""

Form = Literal["one", "list", "vector"]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How one feature reads a column."""

    form: Form
    """What stands for a user, a context or a candidate."""
    datatype: str
    """What its tensor usually has."""
    also_accepts: str = ""
    """A datatype that may be the right one instead: the schema does not know."""
    allows_null: bool
    """Whether something stands for none."""
    dim: int = -1
    """Width of a vector."""


_TIME = Reading(form="one", datatype="INT64", allows_null=False)
_UNKNOWN = Reading(form="one", datatype="INT64", also_accepts="BYTES", allows_null=False)
"""Of a column that is read, but by no feature."""


@dataclass(frozen=True)
class Input:
    """A column that is read."""

    place: str
    """`user`, `context` or `candidates`."""
    column: str
    """Its name in the log."""
    reading: Reading
    """How it is read; of several features, as the first does."""
    is_optional: bool
    """Whether it may be left out."""

    @property
    def name(self) -> str:
        """Of its tensor."""
        return f"{self.place}/{self.column}"

    @cached_property
    def is_ragged(self) -> bool:
        """Whether a second tensor says which values belong to which candidate."""
        return self.place == "candidates" and self.reading.form == "list"

    @cached_property
    def shape(self) -> list[int]:
        """Of its tensor; -1 where any length will do."""
        each = {"one": [], "list": [-1], "vector": [self.reading.dim]}[self.reading.form]
        if self.place == "candidates":
            return [-1] if self.is_ragged else [-1, *each]
        return each or [1]

    def metadata(self) -> Iterator[dict[str, Any]]:
        """Describe its tensors."""
        parameters: dict[str, Any] = {"optional": self.is_optional}
        if self.reading.also_accepts:
            parameters["also_accepts"] = self.reading.also_accepts
        datatype = self.reading.datatype
        yield _tensor(self.name, datatype, self.shape) | {"parameters": parameters}
        if self.is_ragged:
            of_offsets = _tensor(self.name + OFFSETS, "INT64", [-1])
            yield of_offsets | {"parameters": {"optional": self.is_optional}}


class Model:
    """What is served, as tensors.

    Args:
        served: The artifact.
        stored: Tensors, such as `user/age`, that the server finds by itself where they are left
            out.
    """

    def __init__(self, served: Served, *, stored: Collection[str] = ()) -> None:
        self.name = served.name
        self.digest = served.digest
        self.inputs: Mapping[str, Input] = {one.name: one for one in _inputs_of(served, stored)}
        """Name of the tensor -> column."""
        self.fillable = [
            one for name, one in self.inputs.items() if one.is_optional and name not in stored
        ]
        """The columns that are None where they are left out."""
        self.outputs = tuple(output_names(served.schema.tasks))
        """Names of the tensors."""
        self._tensors = {name: (one, False) for name, one in self.inputs.items()}
        for name, one in self.inputs.items():
            if one.is_ragged:
                self._tensors.setdefault(name + OFFSETS, (one, True))
        time = served.schema.roles.event_time
        if time is not None:
            # It may stand at either of two places, whichever metadata tells.
            for one in [Input(place, time, _TIME, is_optional=True) for place in TIME_PLACES]:
                self._tensors.setdefault(one.name, (one, False))

    def find(self, name: str) -> tuple[Input, bool] | None:
        """Find what a tensor belongs to, if anything reads it.

        Returns:
            one: The column.
            is_offsets: Whether the tensor says how the column is cut, and does not hold its values.
        """
        return self._tensors.get(name)

    @property
    def version(self) -> str:
        """What clients may ask for."""
        return version_of(self.digest)

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """What the protocol tells of it."""
        outputs = [_tensor(name, "FP64", [-1]) for name in self.outputs if name != ORDER]
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": "rankloom",
            "inputs": [tensor for one in self.inputs.values() for tensor in one.metadata()],
            "outputs": [*outputs, _tensor(ORDER, "INT64", [-1])],
        }


def version_of(digest: str) -> str:
    """Give the version by which clients know an artifact."""
    return digest[:VERSION_DIGITS]


def output_names(tasks: Collection[str]) -> list[str]:
    """Name all outputs, a task's with a prefix: a task may well be called `order`."""
    return [*(f"scores/{task}" for task in tasks), BLENDED, ORDER]


def _tensor(name: str, datatype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape}


def _inputs_of(served: Served, stored: Collection[str]) -> Iterator[Input]:
    readings: dict[tuple[str, str], list[Reading]] = {}
    for place, column, reading in _readings(served.schema):
        readings.setdefault((place, column), []).append(reading)
    for place, columns in served.columns.items():
        for column in columns:
            found = readings.get((place, column), [_UNKNOWN])
            is_optional = f"{place}/{column}" in stored or all(one.allows_null for one in found)
            yield Input(place, column, found[0], is_optional)


def _readings(schema: Schema) -> Iterator[tuple[str, str, Reading]]:
    """Go through what each feature reads: place, column, how."""
    tables = schema.tables()
    for at in schema.id_columns():
        if at.feature not in schema.training_only:
            feature = schema.features[at.feature]
            yield PLACES[feature.side], at.column, _of_ids(at, feature, tables.get(at.table))
    for name, feature in schema.features.items():
        if name not in schema.training_only:
            for column, reading in _of_numbers(name, feature):
                yield PLACES[feature.side], column, reading
    if schema.roles.event_time is not None:
        for place in TIME_PLACES:
            yield place, schema.roles.event_time, _TIME


def _of_ids(at: IdColumn, feature: Feature, definition: IdSource | None) -> Reading:
    is_sequence = isinstance(feature, SequenceFeature)
    has_several = is_sequence or (isinstance(feature, SparseFeature) and feature.pooling)
    are_rows = definition is not None and definition.num_embeddings is not None
    default = at.source.default
    # Keys of a vocabulary, and what is hashed, are numbers or texts: only a default shows which.
    is_known = are_rows or default is not None
    return Reading(
        form="list" if has_several else "one",
        datatype="BYTES" if isinstance(default, str) else "INT64",
        also_accepts="" if is_known else "BYTES",
        # No history is an empty one.
        allows_null=is_sequence or not are_rows or default is not None,
    )


def _of_numbers(name: str, feature: Feature) -> Iterator[tuple[str, Reading]]:
    """Go through the columns of a feature that hold no ids."""
    column = feature.column or name
    if isinstance(feature, SparseFeature) and feature.weights:
        yield feature.weights, Reading(form="list", datatype="FP32", allows_null=True)
    elif isinstance(feature, DenseFeature):
        has_default = feature.default is not None or isinstance(feature.encode, QuantileEncoding)
        yield column, Reading(form="one", datatype="FP32", allows_null=has_default)
    elif isinstance(feature, VectorFeature):
        has_default = feature.default is not None
        reading = Reading(form="vector", datatype="FP32", allows_null=has_default, dim=feature.dim)
        yield column, reading
    elif isinstance(feature, SequenceFeature):
        if feature.time:
            yield feature.time, Reading(form="list", datatype="INT64", allows_null=True)
        if feature.first_event:
            yield feature.first_event, Reading(form="one", datatype="INT64", allows_null=False)
