"""Product-key memory: each row searches, and reads, by itself; keys and values are constants."""

from __future__ import annotations

from typing import Any

from rankloom.hoist.call import Call
from rankloom.hoist.capture import refusal
from rankloom.hoist.rewriter import Rewriter
from rankloom.hoist.rules.reductions import along_last
from rankloom.hoist.values import Value
from rankloom.schema import Rate


def search(r: Rewriter, call: Call) -> Any:
    """Search at the rate of the queries."""
    _check(call, call.args[1:3])
    return along_last(r, call)


def read(r: Rewriter, call: Call) -> Any:
    """Read at the rate of the slots and their weights."""
    _check(call, call.args[2:])
    return along_last(r, call)


def _check(call: Call, held: tuple[Value, ...]) -> None:
    if any(one.rate != Rate.CONSTANT for one in held):
        raise refusal(call.node, "looks up in a memory that is no constant")
