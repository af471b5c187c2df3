"""What looks wrong in a log, as lines a person can act on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Severity = Literal["error", "warning", "note"]
"""error: a training would fail, or measure something that is not there when the model serves.
warning: quality or memory is lost. note: worth knowing."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that looks wrong."""

    severity: Severity
    """How bad it is."""
    check: str
    """Which check found it, such as `leak`; for scripts."""
    where: str
    """The column or file."""
    problem: str
    """What is wrong, without the full stop."""
    got: str
    """What was seen, without the full stop."""
    advice: str
    """What to do, as a sentence."""

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}. Got {self.got}. {self.advice}"


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Put the worst first; those of one severity stay in order."""
    order = get_args(Severity)
    return sorted(findings, key=lambda one: order.index(one.severity))


def share(part: float, whole: float) -> str:
    """Write a share such as `12.5 %`; what is not zero is never written as zero."""
    percent = 100 * part / whole if whole else 0.0
    if 0 < percent < 0.1:
        return f"{percent:.2g} %"
    return f"{percent:.1f} %"
