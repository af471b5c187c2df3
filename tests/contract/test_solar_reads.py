"""The contract for SOLAR's other read, and for candidates that attend to each other."""

from __future__ import annotations

from typing import Any

import pytest

from rankloom.contract import ASSERTIONS, Subject

VARIANTS: dict[str, dict[str, Any]] = {
    "exact": {"read": "exact_at_low_rank", "recency": "seconds", "rank": 4},
    "set": {"candidates": "set", "rank": 4},
}


@pytest.mark.parametrize("assertion", ASSERTIONS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_solar(variant: str, assertion: str) -> None:
    ASSERTIONS[assertion](Subject.in_slot("sequence", "solar", {"dim": 16, **VARIANTS[variant]}))
