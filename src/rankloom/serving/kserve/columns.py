"""From tensors to the columns of a user, its context and its candidates.

Shapes: N candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from rankloom.data.plain_lists import shown
from rankloom.errors import RequestError
from rankloom.serving.kserve.model import OFFSETS, Input, Model
from rankloom.serving.kserve.tensors import Tensor, TensorHead
from rankloom.serving.limits import Limits


@dataclass
class Columns:
    """Columns of one request."""

    user: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    candidates: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """What is wrong, a line each."""

    @property
    def places(self) -> dict[str, dict[str, Any]]:
        """Place -> its columns."""
        return {"user": self.user, "context": self.context, "candidates": self.candidates}


def check_length(head: TensorHead, one: Input, *, is_offsets: bool, limits: Limits) -> None:
    """Check how long a tensor is, before its values cost anything.

    Args:
        head: What the JSON says of it.
        one: Its column.
        is_offsets: Whether it says how the column is cut.
        limits: Of candidates and of events.

    Raises:
        RequestError: It is beyond a limit.
    """
    most, what = limits.events, "values"
    if is_offsets:
        most, what = limits.candidates + 1, "offsets"
    elif one.place == "candidates" and not one.is_ragged:
        most, what = limits.candidates, "candidates"
    if head.shape and head.shape[0] > most:
        raise RequestError(
            f"{head.where}: at most {most} {what} are allowed. Got {shown(head.shape[0])}. "
            "Send fewer."
        )


def columns_of(tensors: Mapping[str, Tensor], model: Model) -> Columns:
    """Give the columns that tensors hold; None for each input that is left out and may be.

    Args:
        tensors: Name -> tensor, each of which is read.
        model: What is read.
    """
    columns = Columns()
    places = columns.places
    for name, tensor in tensors.items():
        found = model.find(name)
        assert found is not None
        one, is_offsets = found
        try:
            if not is_offsets:
                offsets = tensors.get(name + OFFSETS)
                places[one.place][one.column] = _value(tensor, one, offsets)
            elif one.name not in tensors:
                raise RequestError(f"{tensor.where}: has no values. Send {one.name!r} too.")
        except RequestError as error:
            columns.problems.append(str(error))
    _fill(places, model)
    return columns


def _fill(places: Mapping[str, dict[str, Any]], model: Model) -> None:
    """Put None where an input is left out that may be."""
    count = next((len(one) for one in places["candidates"].values()), None)
    for one in model.fillable:
        given = places[one.place]
        if one.column in given:
            continue
        if one.place != "candidates":
            given[one.column] = None
        elif count is not None:
            given[one.column] = [None] * count


def _value(tensor: Tensor, one: Input, offsets: Tensor | None) -> Any:
    """Give a column's value: of candidates, a value for each.

    Raises:
        RequestError: The shape is not what the column has.
    """
    is_one = one.place != "candidates" and one.reading.form == "one"
    if len(tensor.shape) != len(one.shape) or (is_one and tensor.shape != [1]):
        hint = "Leave it out where there is none." if one.is_optional else "Reshape it."
        raise RequestError(
            f"{tensor.where}: its shape must be {one.shape}, -1 for any length. Got "
            f"{tensor.shape}. {hint}"
        )
    if is_one:
        return tensor.tolist()[0]
    if not one.is_ragged:
        return tensor.values
    if offsets is None:
        raise RequestError(
            f"{tensor.where}: has several values for each candidate. Got no {OFFSETS[1:]}. Send "
            f"{one.name + OFFSETS!r} too."
        )
    return _cut(tensor, offsets)


def _cut(tensor: Tensor, offsets: Tensor) -> list[list[Any]]:
    """Give N lists.

    Raises:
        RequestError: The offsets do not lead from the first value to the last.
    """
    bounds = offsets.values
    if not isinstance(bounds, np.ndarray) or bounds.dtype != np.int64 or bounds.ndim != 1:
        raise RequestError(f"{offsets.where}: must be INT64 of shape [N + 1]. Cast it.")
    is_right = len(bounds) > 0 and bounds[0] == 0 and bounds[-1] == tensor.shape[0]
    if not is_right or (bounds[1:] < bounds[:-1]).any():
        raise RequestError(
            f"{offsets.where}: must lead from 0 to the {tensor.shape[0]} values and never back. "
            f"Got {shown(bounds)}. Give where each candidate's values begin, and the end."
        )
    values = tensor.tolist()
    return [values[first:stop] for first, stop in pairwise(bounds.tolist())]
