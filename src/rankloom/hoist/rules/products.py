"""A product divided by rate.

A product over a concatenation is the sum of the products over its parts, each with its columns of
the weight (MaRI, arXiv:2602.23105): `[u, i] W = u W_u + i W_i`, and the first needs no candidate.
A product that keeps the concatenated dimension is computed part by part, with the part's share of
the weights. Products with a user's keys or values take a request's candidates together.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from torch import fx

from rankloom.hoist.call import Call, aten, ours
from rankloom.hoist.capture import refusal
from rankloom.hoist.decisions import ELEMENT_COST, Decision, module_of, typical
from rankloom.hoist.rewriter import Rewriter
from rankloom.hoist.rules.slicing import cut, resized
from rankloom.hoist.values import Parts, Rows, Shape, Sum, Value, Whole, is_at_rows, is_one
from rankloom.schema import Rate

REPEATED_SHARE = 4
"""A request's matrix is repeated for each row if that has so many times fewer elements than the
product."""


@dataclass(frozen=True)
class Product:
    """A product in the letters of einsum."""

    letters: tuple[str, ...]
    """Of each operand."""
    out: str
    """Of the result."""
    make: Callable[[Rewriter, Sequence[Whole], Shape, Rows | None], Whole]
    """Emits it for whole operands of one rate."""
    row: str | None
    """The letter that counts rows."""
    node: fx.Node
    """Of the plain graph."""

    @property
    def contracted(self) -> set[str]:
        """Letters that are summed over."""
        return set("".join(self.letters)) - set(self.out)


def product_of(
    call: Call,
    letters: tuple[str, ...],
    out: str,
    make: Any,
    operands: Sequence[Value],
) -> Product:
    """Find the letter of the rows, and refuse a product that sums over them or pairs them."""
    found = {
        own[value.rows.dim]
        for own, value in zip(letters, operands, strict=True)
        if value.rows is not None
    }
    if len(found) > 1:
        raise refusal(call.node, "pairs the rows of its operands")
    row = next(iter(found), None)
    if row is not None and row not in out:
        raise refusal(call.node, "sums over rows")
    return Product(letters, out, make, row, call.node)


def divide(r: Rewriter, product: Product, operands: Sequence[Value]) -> Value:
    """Compute a product at the lowest rates that its operands allow."""
    for number, value in enumerate(operands):
        if isinstance(value, Parts):
            letter = product.letters[number][value.dim]
            if letter in product.out:
                return _part_by_part(r, product, operands, number, letter)
            divided = _divide_columns(r, product, operands, number, letter)
            if divided is not None:
                return divided
        elif isinstance(value, Sum):
            divided = _divide_terms(r, product, operands, number)
            if divided is not None:
                return divided
    return _carry_out(r, product, [r.whole(value) for value in operands])


def _part_by_part(
    r: Rewriter, product: Product, operands: Sequence[Value], number: int, letter: str
) -> Value:
    """Compute each part's share of a dimension that the product keeps."""
    divided = operands[number]
    assert isinstance(divided, Parts)
    results = []
    for part, start, stop in divided.pieces():
        chosen = _cut_operands(r, product, operands, letter, start, stop)
        chosen[number] = part
        result = divide(r, product, chosen)
        results.append(r.whole(result) if isinstance(result, Parts) else result)
    shape, rows = _result(product, operands)
    return Parts(product.out.index(letter), tuple(results), rows, shape)


def _divide_columns(
    r: Rewriter, product: Product, operands: Sequence[Value], number: int, letter: str
) -> Value | None:
    """Divide the dimension that is summed over by rate; None where that does not pay."""
    divided = operands[number]
    assert isinstance(divided, Parts)
    groups = _group_columns(r, divided)
    if len(groups) < 2:
        return None
    plain = _flops(r, product, operands)
    costs = [
        plain * sum(b - a for _, a, b in g) / divided.bounds[-1] * _held(r, g[0][0], divided)
        for g in groups
    ]
    if not _pays(
        r, product, plain, list(zip(costs, (g[0][0].rate for g in groups), strict=True)), operands
    ):
        return None
    terms: list[Whole] = []
    for group in groups:
        for columns in _bundles(r, group):
            wholes = [whole for whole, _, _ in columns]
            shape = resized(divided.shape, divided.dim, sum(b - a for _, a, b in columns))
            first = _cat(r, wholes, divided.dim, shape, divided.rows)
            chosen = list(operands)
            for other, value in enumerate(operands):
                if other != number and letter in product.letters[other]:
                    dim = product.letters[other].index(letter)
                    pieces = [r.whole(cut(r, value, dim, a, b)) for _, a, b in columns]
                    own = resized(value.shape, dim, shape[divided.dim])
                    chosen[other] = _cat(r, pieces, dim, own, value.rows)
            chosen[number] = first
            result = divide(r, product, chosen)
            terms += _whole_terms(r, result)
    shape, rows = _result(product, operands)
    return Sum(tuple(replace(term, shape=shape, rows=rows) for term in terms), rows, shape)


Columns = tuple[Whole, int, int]
"""A whole value, and the columns of the concatenation that it stands for."""


def _group_columns(r: Rewriter, divided: Parts) -> list[list[Columns]]:
    """Group the columns by rate and by narrow dimensions."""
    groups: dict[Any, list[Columns]] = {}
    for part, start, stop in divided.pieces():
        for term in part.terms if isinstance(part, Sum) else (part,):
            kept = tuple(dim for dim in term.narrow_dims if dim != divided.dim)
            wide = r.widen(term, dims=(divided.dim,))
            groups.setdefault((term.rate, kept), []).append((wide, start, stop))
    return [groups[key] for key in sorted(groups)]


def _bundles(r: Rewriter, group: list[Columns]) -> list[list[Columns]]:
    return [group] if r.options.layout == "neat" else [[one] for one in group]


def _held(r: Rewriter, whole: Whole, divided: Parts) -> float:
    """Give the share of a part's entries that are held, where it is narrow."""
    sizes = [typical(divided.shape[dim], r.capture.num_rows) for dim in whole.narrow_dims]
    return 1 / prod(sizes) if sizes else 1.0


def _divide_terms(
    r: Rewriter, product: Product, operands: Sequence[Value], number: int
) -> Value | None:
    """Divide over the terms of a sum; None where that does not pay."""
    divided = operands[number]
    assert isinstance(divided, Sum)
    plain = _flops(r, product, operands)
    costs = []
    for term in divided.terms:
        free = [d for d in term.narrow_dims if product.letters[number][d] in product.out]
        sizes = [typical(divided.shape[d], r.capture.num_rows) for d in free]
        costs.append((plain / prod(sizes), term.rate))
    if not _pays(r, product, plain, costs, operands):
        return None
    terms: list[Whole] = []
    for term in divided.terms:
        chosen = list(operands)
        chosen[number] = term
        terms += _whole_terms(r, divide(r, product, chosen))
    shape, rows = _result(product, operands)
    return Sum(tuple(replace(term, shape=shape, rows=rows) for term in terms), rows, shape)


def _whole_terms(r: Rewriter, value: Value) -> list[Whole]:
    return list(value.terms) if isinstance(value, Sum) else [r.whole(value)]


def _pays(
    r: Rewriter,
    product: Product,
    plain: float,
    costs: Sequence[tuple[float, Rate]],
    operands: Sequence[Value],
) -> bool:
    """Decide whether dividing a product pays for requests of `min_candidates` rows."""
    per_row = sum(cost for cost, rate in costs if is_at_rows(rate))
    per_request = sum(cost for cost, rate in costs if Rate.CONSTANT < rate < Rate.CANDIDATE)
    is_mixed = any(is_at_rows(rate) for _, rate in costs)
    shape, _ = _result(product, operands)
    elements = prod(typical(size, r.capture.num_rows) for size in shape)
    added = ELEMENT_COST * elements * (len(costs) - 1)
    number = r.options.min_candidates
    if is_mixed:
        does_pay = number * (plain - per_row - added) > per_request
    else:
        does_pay = any(rate != costs[0][1] for _, rate in costs)
    r.decisions.append(
        Decision(
            node=product.node.name,
            where=module_of(product.node),
            is_done=does_pay,
            flops_plain=plain,
            flops_row=per_row,
            flops_request=per_request,
        )
    )
    return does_pay


def _flops(r: Rewriter, product: Product, operands: Sequence[Value]) -> float:
    """Count a product's FLOPs for each row."""
    sizes: dict[str, int] = {}
    for own, value in zip(product.letters, operands, strict=True):
        for letter, size in zip(own, value.shape, strict=True):
            sizes[letter] = max(sizes.get(letter, 1), typical(size, r.capture.num_rows))
    return 2.0 * prod(sizes.values())


# Carrying out


def _carry_out(r: Rewriter, product: Product, wholes: list[Whole]) -> Whole:
    """Emit the product for whole operands."""
    shape, rows = _result(product, wholes)
    counted = [one for one in wholes if one.rows is not None and one.rate != Rate.CONSTANT]
    levels = {is_at_rows(one.rate) for one in counted}
    keeps = set(product.out)
    ready = []
    for own, whole in zip(product.letters, wholes, strict=True):
        shared = [
            dim
            for dim in whole.narrow_dims
            if own[dim] not in keeps or sum(own[dim] in other for other in product.letters) > 1
        ]
        ready.append(r.widen(whole, dims=shared))
    near = next((one for one in ready if one.rows and not one.is_narrow(one.rows.dim)), None)
    if sum(one.rows is not None for one in ready) > 1:
        ready = [r.fill_rows(one, near) for one in ready]
    if len(levels) > 1:
        together = _by_request(r, product, ready, shape, rows)
        if together is not None:
            return together
        ready = r.join(ready)
    return product.make(r, ready, shape, rows)


def _by_request(
    r: Rewriter, product: Product, wholes: list[Whole], shape: Shape, rows: Rows | None
) -> Whole | None:
    """Multiply all candidates of a request with a matrix of the request, at once.

    `out[b] = a[b] m[request of b]` for a (B, ..., n, k) and m (R, ..., k, o) becomes one product of
    (R, ..., N n, k) and m: the matrix is not repeated for each row.
    """
    if len(wholes) != 2 or rows is None or product.row is None:
        return None
    at_rows = next(n for n, one in enumerate(wholes) if is_at_rows(one.rate))
    own, other = product.letters[at_rows], product.letters[1 - at_rows]
    free = [letter for letter in own if letter in product.out and letter not in other]
    if own[0] != product.row or other[0] != product.row or product.out[0] != product.row:
        return None
    if any(one.rows is None or one.rows.block != 1 for one in wholes) or len(free) > 1:
        return None
    # A matrix of the request that is small beside the result is better repeated: its product then
    # gives the rows in their order.
    held, made = (
        prod(typical(size, r.capture.num_rows) for size in of)
        for of in (wholes[1 - at_rows].shape, shape)
    )
    if REPEATED_SHARE * held <= made:
        return None
    slots = Whole(r.crossing("slots"), Rate.CANDIDATE, None, ())
    place = Whole(r.crossing("slot_of_row"), Rate.CANDIDATE, None, ())
    whole = wholes[at_rows]

    def step(target: Any, value: Any, *args: Any) -> Whole:
        return r.emit(target, value, *args, shape=(), rows=None)

    placed = step(ours.to_slots.default, whole, slots)
    equation = [own, own]
    equation[1 - at_rows] = other
    new = next(one for one in string.ascii_letters if one not in own + other + product.out)
    equation[at_rows] = own[0] + new + own[1:]
    out = product.out[0] + new + product.out[1:]
    operands: list[Whole] = list(wholes)
    operands[at_rows] = placed
    result = step(aten.einsum.default, f"{','.join(equation)}->{out}", operands)
    back = step(ours.from_slots.default, result, place)
    return replace(back, rate=Rate.CANDIDATE, shape=shape, rows=rows)


def _result(product: Product, operands: Sequence[Value]) -> tuple[Shape, Rows | None]:
    """Give shape and rows of a product."""
    sizes: dict[str, Any] = {}
    blocks = 1
    for own, value in zip(product.letters, operands, strict=True):
        for letter, size in zip(own, value.shape, strict=True):
            if letter not in sizes or is_one(sizes[letter]):
                sizes[letter] = size
        if value.rows is not None:
            blocks = value.rows.block
    rows = None if product.row is None else Rows(product.out.index(product.row), blocks)
    return tuple(sizes[letter] for letter in product.out), rows


def _cut_operands(
    r: Rewriter, product: Product, operands: Sequence[Value], letter: str, start: int, stop: int
) -> list[Value]:
    chosen = []
    for own, value in zip(product.letters, operands, strict=True):
        is_cut = letter in own and not is_one(value.shape[own.index(letter)])
        chosen.append(cut(r, value, own.index(letter), start, stop) if is_cut else value)
    return chosen


def _cat(r: Rewriter, wholes: Sequence[Whole], dim: int, shape: Shape, rows: Rows | None) -> Whole:
    if len(wholes) == 1:
        return replace(wholes[0], shape=shape, rows=rows)
    return r.emit(aten.cat.default, list(wholes), dim, shape=shape, rows=rows)
