"""Sums that are not carried out: a linear layer further down may still take them apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Number
from typing import Any

from rankloom.hoist.call import Call, aten
from rankloom.hoist.rewriter import Rewriter
from rankloom.hoist.values import VALUES, Parts, Rows, Shape, Sum, Value, Whole
from rankloom.schema import Rate


def add_up(r: Rewriter, terms: Sequence[Whole], shape: Shape, rows: Rows | None) -> Value:
    """Add terms of one rate and form; what differs stays a sum."""
    kept: list[Any] = []
    for term in terms:
        _add_term(r, kept, term)
    return kept[0] if len(kept) == 1 else Sum(tuple(kept), rows, shape)


def _add(r: Rewriter, call: Call, *, sign: int = 1) -> Value | None:
    """Keep a sum of values of different rates as it is."""
    if call.kwargs.get("alpha", 1) != 1 or any(isinstance(one, Parts) for one in call.args):
        return None
    shape, rows = call.shape, call.rows
    left, right = (_terms(r, one, shape, rows) for one in call.args)
    if sign < 0:
        right = [_negated(r, term) for term in right]
    return add_up(r, [*left, *right], shape, rows)


def _subtract(r: Rewriter, call: Call) -> Value | None:
    return _add(r, call, sign=-1)


def _terms(r: Rewriter, value: Any, shape: Shape, rows: Rows | None) -> list[Any]:
    """Give the terms, each with as many dimensions as the result; a number is itself."""
    if not isinstance(value, Whole | Sum):
        return [value]
    terms = []
    for term in value.terms if isinstance(value, Sum) else (value,):
        whole = term
        for _ in range(len(shape) - len(term.shape)):
            whole = r.emit(aten.unsqueeze.default, whole, 0, shape=(1, *whole.shape), rows=rows)
        terms.append(replace(whole, rows=rows, shape=shape))
    return terms


def _negated(r: Rewriter, term: Any) -> Any:
    if isinstance(term, Number):
        return -term  # type: ignore[operator]
    return r.emit(aten.neg.default, term, shape=term.shape, rows=term.rows)


def _add_term(r: Rewriter, terms: list[Any], term: Any) -> None:
    """Add a term to one of its own rate and form, a constant to any; else keep it by itself."""
    for number, other in enumerate(terms):
        if _is_constant(term) or _is_constant(other) or _is_alike(other, term):
            first, second = (term, other) if isinstance(other, Number) else (other, term)
            terms[number] = r.emit(
                aten.add.Tensor, first, second, shape=first.shape, rows=first.rows
            )
            return
    terms.append(term)


def _is_constant(term: Any) -> bool:
    return isinstance(term, Number) or term.rate == Rate.CONSTANT


def _is_alike(a: Whole, b: Whole) -> bool:
    return a.rate == b.rate and a.narrow_dims == b.narrow_dims


def _scale(r: Rewriter, call: Call) -> Value | None:
    """Scale each term of a sum by a number or a constant."""
    sums = [one for one in call.args if isinstance(one, Sum)]
    others = [one for one in call.args if isinstance(one, VALUES) and not isinstance(one, Sum)]
    is_scaled = len(sums) == 1 and all(
        isinstance(one, Whole) and one.rate == Rate.CONSTANT for one in others
    )
    if not is_scaled or len(sums[0].shape) != len(call.shape):
        return None
    if call.node.target is aten.div.Tensor and call.args[0] is not sums[0]:
        return None
    terms = []
    for term in sums[0].terms:
        operands = [term if one is sums[0] else one for one in call.args]
        terms.append(r.emit(call.node.target, *operands, shape=call.shape, rows=call.rows))
    return Sum(tuple(terms), call.rows, call.shape)


LINEAR: dict[Any, Callable[[Rewriter, Call], Value | None]] = {
    aten.add.Tensor: _add,
    aten.sub.Tensor: _subtract,
    aten.mul.Tensor: _scale,
    aten.div.Tensor: _scale,
    aten.neg.default: _scale,
}
"""Element-wise operations that keep a sum a sum."""
