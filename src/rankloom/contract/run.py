"""Run the contract on one architecture."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rankloom.config import apply_overrides
from rankloom.contract.assertions import ASSERTIONS, SLOW_ASSERTIONS
from rankloom.contract.subject import Subject


@dataclass(frozen=True)
class Outcome:
    """How one assertion went."""

    name: str
    """What was asserted."""
    error: Exception | None
    """Why it failed; none when it holds."""


def check_architecture(
    target: str,
    overrides: Mapping[str, Any] | Iterable[str] = (),
    *,
    slow: bool = False,
) -> Iterator[Outcome]:
    """Assert the contract, one outcome at a time.

    Args:
        target: A registered name, or `package.module:Class`.
        overrides: Values of its config: `{"num_layers": 3}` or texts `num_layers=3`.
        slow: Whether to assert what takes more than some seconds too.

    Raises:
        ConfigError: The architecture cannot be found, or refuses its config.
    """
    subject = Subject.of(target, apply_overrides({}, overrides))
    assertions = {**ASSERTIONS, **(SLOW_ASSERTIONS if slow else {})}
    for name, holds in assertions.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                holds(subject)
        except Exception as error:  # noqa: BLE001 (whatever a user's code raises is a failure)
            yield Outcome(name, error)
        else:
            yield Outcome(name, None)
