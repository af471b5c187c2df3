"""The contract for a history encoder whose config decides whether it reads the candidate."""

from __future__ import annotations

import pytest

from rankloom.contract import ASSERTIONS, Subject


@pytest.mark.parametrize("assertion", ASSERTIONS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_transformer_by_its_newest_event(assertion: str) -> None:
    values = {"read": "newest", "dim": 16}
    ASSERTIONS[assertion](Subject.in_slot("sequence", "transformer", values))
