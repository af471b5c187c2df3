"""From rows to the places of their requests, and back, in a network's own code.

Between the two, a request is the row: its candidates may be mixed, requests may not.
"""

from __future__ import annotations

from rankloom.hoist.call import Call, ours
from rankloom.hoist.capture import refusal
from rankloom.hoist.rewriter import Rewriter
from rankloom.hoist.values import Rows, Whole
from rankloom.schema import Rate


def to_slots(r: Rewriter, call: Call) -> Whole:
    """Put each request's rows side by side; whatever its rate, a value is then a candidate's."""
    value, slots = call.args
    if slots != "slots" or value.rows != Rows(0):
        raise refusal(call.node, "places other values than rows, or by other places than slots")
    places = Whole(r.crossing("slots"), Rate.CANDIDATE, None, ())
    return r.emit(ours.to_slots.default, r.at_rows(value), places, shape=call.shape, rows=call.rows)


def from_slots(r: Rewriter, call: Call) -> Whole:
    """Take rows out of their requests' places."""
    value, slot_of_row = call.args
    if slot_of_row != "slot_of_row" or value.rows != Rows(0):
        raise refusal(call.node, "takes other values than what stands in the places of requests")
    places = Whole(r.crossing("slot_of_row"), Rate.CANDIDATE, None, ())
    return r.emit(
        ours.from_slots.default, r.at_rows(value), places, shape=call.shape, rows=call.rows
    )
