"""Every registered architecture against every assertion of the contract."""

from __future__ import annotations

import pytest

from rankloom.contract import ASSERTIONS, SLOW_ASSERTIONS, Subject
from rankloom.contract.subject import SLOTS

NAMES = [name for table in SLOTS.values() for name in table]


@pytest.mark.parametrize("assertion", ASSERTIONS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_architecture(name: str, assertion: str) -> None:
    ASSERTIONS[assertion](Subject.of(name))


@pytest.mark.slow
@pytest.mark.parametrize("assertion", SLOW_ASSERTIONS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_architecture_slowly(name: str, assertion: str) -> None:
    SLOW_ASSERTIONS[assertion](Subject.of(name))
