"""Linear layers, batched products, matmul and einsum, each as a product of letters."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rankloom.hoist.call import Call, aten
from rankloom.hoist.capture import refusal
from rankloom.hoist.rewriter import Rewriter
from rankloom.hoist.rules.products import divide, product_of
from rankloom.hoist.rules.slicing import cut
from rankloom.hoist.values import Parts, Rows, Shape, Sum, Value, Whole, is_one
from rankloom.schema import Rate


def linear(r: Rewriter, call: Call) -> Value:
    """`x W^T + b`."""
    x, weight = call.args[:2]
    bias = call.args[2] if len(call.args) > 2 else call.kwargs.get("bias")
    batch = string.ascii_lowercase[: len(x.shape) - 1]
    product = product_of(
        call, (batch + "I", "OI"), batch + "O", _maker(aten.linear.default), (x, weight)
    )
    return _with_bias(r, divide(r, product, (x, weight)), bias)


def bmm(r: Rewriter, call: Call) -> Value:
    """`a b` for each pair of matrices."""
    return divide(
        r, product_of(call, ("tni", "tio"), "tno", _maker(aten.bmm.default), call.args), call.args
    )


def baddbmm(r: Rewriter, call: Call) -> Value:
    """`bias + a b` for each pair of matrices."""
    bias, *operands = call.args[:3]
    if len(call.args) > 3 or any(call.kwargs.get(key, 1) != 1 for key in ("alpha", "beta")):
        raise refusal(call.node, "scales its operands, which no rule covers")
    product = product_of(call, ("tni", "tio"), "tno", _maker(aten.bmm.default), operands)
    return _with_bias(r, divide(r, product, operands), bias)


def matmul(r: Rewriter, call: Call) -> Value:
    """`a @ b` with two dimensions or more, broadcast over those before the last two."""
    a, b = call.args
    if min(len(a.shape), len(b.shape)) < 2:
        return _vector_product(r, call)
    names = string.ascii_lowercase
    ndim = max(len(a.shape), len(b.shape)) - 2
    batch = names[:ndim]

    def own(value: Value, other: Value, last: str) -> str:
        letters = list(batch[ndim - (len(value.shape) - 2) :])
        for place, letter in enumerate(letters):
            from_end = len(letters) - place + 2
            is_broadcast = len(other.shape) >= from_end and not is_one(other.shape[-from_end])
            if is_one(value.shape[place]) and is_broadcast:
                letters[place] = letter.upper()  # of size one, hence a letter of its own
        return "".join(letters) + last

    letters = (own(a, b, "yi"), own(b, a, "iz"))
    product = product_of(call, letters, batch + "yz", _maker(aten.matmul.default), call.args)
    return divide(r, product, call.args)


def _vector_product(r: Rewriter, call: Call) -> Value:
    a, b = (r.whole(one) for one in call.args)
    if any(one.rows is not None and one.rows.dim == len(one.shape) - 1 for one in (a, b)):
        raise refusal(call.node, "sums over rows")
    a, b = (r.widen(one) for one in r.join([a, b]))
    return r.emit(call.node.target, a, b, shape=call.shape, rows=call.rows)


def mm(r: Rewriter, call: Call) -> Value:
    """`a b`."""
    return divide(
        r, product_of(call, ("ni", "io"), "no", _maker(aten.mm.default), call.args), call.args
    )


def addmm(r: Rewriter, call: Call) -> Value:
    """`bias + a b`."""
    bias, *operands = call.args[:3]
    if any(call.kwargs.get(key, 1) != 1 for key in ("alpha", "beta")):
        raise refusal(call.node, "scales its operands, which no rule covers")
    product = product_of(call, ("ni", "io"), "no", _maker(aten.mm.default), operands)
    return _with_bias(r, divide(r, product, operands), bias)


def einsum(r: Rewriter, call: Call) -> Value:
    """A product of one operand or more, as its equation says."""
    equation, operands = call.args[0].replace(" ", ""), call.args[1]
    left, _, out = equation.partition("->")
    letters = tuple(left.split(","))
    if "." in equation or "->" not in equation or any(len(set(one)) < len(one) for one in letters):
        raise refusal(call.node, "is an einsum without '->', with '...' or with a letter twice")

    def make(r: Rewriter, wholes: Sequence[Whole], shape: Shape, rows: Rows | None) -> Whole:
        return r.emit(aten.einsum.default, equation, list(wholes), shape=shape, rows=rows)

    return divide(r, product_of(call, letters, out, make, operands), operands)


def _maker(target: Any) -> Callable[[Rewriter, Sequence[Whole], Shape, Rows | None], Whole]:
    return lambda r, wholes, shape, rows: r.emit(target, *wholes, shape=shape, rows=rows)


def _with_bias(r: Rewriter, value: Value, bias: Any) -> Value:
    """Add a bias to the term of the lowest rate, where it is added least often."""
    if bias is None:
        return value
    if isinstance(value, Parts):
        parts = []
        for part, start, stop in value.pieces():
            own = value.dim - (len(value.shape) - len(bias.shape))
            is_cut = own >= 0 and not is_one(bias.shape[own])
            piece = cut(r, bias, own, start, stop) if is_cut else bias
            parts.append(_with_bias(r, part, piece))
        return Parts(value.dim, tuple(parts), value.rows, value.shape)  # type: ignore[arg-type]
    if isinstance(value, Sum):
        lowest = min(range(len(value.terms)), key=lambda n: value.terms[n].rate)
        terms = list(value.terms)
        terms[lowest] = _biased(r, terms[lowest], bias)
        return Sum(tuple(terms), value.rows, value.shape)
    return _biased(r, value, bias)


def _biased(r: Rewriter, whole: Whole, bias: Value) -> Whole:
    """Fuse the bias into the product where there is such an operation."""
    product, added = whole.node, r.whole(bias)
    target, args = None, product.args
    is_constant, ndim = added.rate == Rate.CONSTANT, len(added.shape)
    is_alike = is_constant or (added.rate == whole.rate and ndim == len(whole.shape))
    if not product.users:
        if product.target is aten.linear.default and is_constant and ndim == 1:
            target, args = aten.linear.default, (*args, added.node)
        elif product.target is aten.bmm.default and is_alike and not whole.narrow_dims:
            target, args = aten.baddbmm.default, (added.node, *args)
    if target is None:
        left, right = r.join([whole, added])
        return r.emit(aten.add.Tensor, left, right, shape=whole.shape, rows=whole.rows)
    node = r.add(target, args, {}, whole.rate)
    r.graph.erase_node(product)
    return replace(whole, node=node)
