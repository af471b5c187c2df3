"""Sides and rates: where a value comes from, and how often it must be computed."""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

Side = Literal["user", "context", "item", "cross"]
"""Where a feature comes from."""


class Rate(IntEnum):
    """How often a value must be computed; a value takes the highest rate of what it is made of."""

    CONSTANT = 0
    USER = 1
    REQUEST = 2
    CANDIDATE = 3


RATE_OF_SIDE: dict[Side, Rate] = {
    "user": Rate.USER,
    "context": Rate.REQUEST,
    "item": Rate.CANDIDATE,
    "cross": Rate.CANDIDATE,
}
