"""The contract can fail: each double breaks one promise, and the assertion on it says so."""

from __future__ import annotations

import pytest

from rankloom.contract import ASSERTIONS, Subject

DOUBLES = {
    "MixesRows": [
        "scores rows independently",
        "scores candidates apart",
        "is the same hoisted",
    ],
    "HasIdleParameter": ["moves every parameter", "has the parameters of its cost line"],
    "Overflows": ["gives a finite logit per row and task"],
    "IgnoresItsGenerator": ["depends on its seed alone"],
    "IsLinear": ["learns a cross"],
    "BranchesOnData": ["exports", "is the same hoisted"],
    "HidesState": ["keeps its outputs through a state dict"],
    "SeesPadding": ["does not see padding"],
}


@pytest.mark.parametrize(("double", "assertion"), [(d, a) for d, m in DOUBLES.items() for a in m])
def test_flaw_is_caught(double: str, assertion: str) -> None:
    assert not holds(assertion, Subject.of(f"tests.contract.doubles:{double}"))


@pytest.mark.parametrize("assertion", ASSERTIONS)
def test_sound_double_passes(assertion: str) -> None:
    assert holds(assertion, Subject.of("tests.contract.doubles:Sound"))


def holds(assertion: str, subject: Subject) -> bool:
    try:
        ASSERTIONS[assertion](subject)
    except Exception:  # noqa: BLE001 (an export fails with whatever torch raises)
        return False
    return True
