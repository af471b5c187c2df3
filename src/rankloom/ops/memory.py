"""Product-key memory: finding slots by two lists of keys, and reading rows of a large table.

Of S row keys and S column keys each pair is a slot's key, so that S * S slots are searched for the
price of 2 S products (Lample et al., "Large Memory Layers with Product Keys", NeurIPS 2019,
arXiv:1907.05242, section 3.1). Neither all scores of a batch nor the rows that it reads are ever
held side by side: a search keeps pieces in cache, a read sums rows as it meets them, and both
backward passes sum by slot. Rows of the results depend on the same rows of query, slots or weights.

Shapes: ... rows, in any dimensions; S sub-keys of an axis, of width h; K slots; D width of a slot;
U different slots.
"""

# A fake and a setup function have their op's whole signature, used or not.
# ruff: noqa: ARG001

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from rankloom.ops.rows import row_chunks
from rankloom.ops.segment import group_ids

HEAP_RATIO = 64
"""Of this many times the numbers that are wanted, torch selects by a heap, up to 3x faster than
among somewhat fewer."""


def product_key_search(
    query: Tensor, row_keys: Tensor, column_keys: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Find the `k` of all S * S slots whose keys have the largest products with a query.

    Slot i * S + j scores row_keys[i] . query[:h] + column_keys[j] . query[h:]. A pair of the r-th
    best row and the c-th best column has r * c - 1 pairs before it, so that only those of
    r * c <= k are compared. Of equal sums the one with the better row is first, then the one with
    the better column; of equal rows or columns, the first.

    Args:
        query: (..., 2h).
        row_keys: (S, h).
        column_keys: (S, h).
        k: K, at most S.

    Returns:
        scores: (..., K), best first, in at least fp32: lower precision would change their order.
        slots: (..., K) int64.
    """
    found: tuple[Tensor, Tensor] = _search(query, row_keys, column_keys, k)
    return found


def memory_read(slots: Tensor, weights: Tensor, table: Tensor) -> Tensor:
    """Sum rows of a table by weight, without holding them side by side.

    The table's gradient is sparse: it holds the rows that were read with a weight other than zero,
    each once.

    Args:
        slots: (..., K) int64. Rows of the table.
        weights: (..., K).
        table: (S * S, D).

    Returns:
        (..., D) in the dtype of the table.
    """
    values: Tensor = _read(slots, weights, table)
    return values


@torch.library.custom_op("rankloom::product_key_search", mutates_args=())
def _search(query: Tensor, row_keys: Tensor, column_keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    dtype, size = _score_dtype(query), len(row_keys)
    flat = query.reshape(-1, query.shape[-1])
    scores = flat.new_empty((len(flat), k), dtype=dtype)
    slots = flat.new_empty((len(flat), k), dtype=torch.int64)
    row_keys, column_keys = row_keys.to(dtype).t(), column_keys.to(dtype).t()
    rank_of_row, rank_of_column = _pairs(k, query.device)
    # Autocast would reach the products in here.
    with torch.autocast(query.device.type, enabled=False):
        # Pieces of the scores, which are as wide as the keys are many.
        for piece in row_chunks(flat[:, :1].expand(-1, size)):
            of_row, of_column = flat[piece].to(dtype).chunk(2, dim=1)
            row_scores, rows = _largest(of_row @ row_keys, k)
            column_scores, columns = _largest(of_column @ column_keys, k)
            sums = row_scores.index_select(1, rank_of_row)
            sums += column_scores.index_select(1, rank_of_column)
            scores[piece], pair = _largest(sums, k)
            row, column = rows.gather(1, rank_of_row[pair]), columns.gather(1, rank_of_column[pair])
            slots[piece] = row * size + column
    return scores.view(*query.shape[:-1], k), slots.view(*query.shape[:-1], k)


@_search.register_fake
def _(query: Tensor, row_keys: Tensor, column_keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    shape = (*query.shape[:-1], k)
    scores = query.new_empty(shape, dtype=_score_dtype(query))
    return scores, query.new_empty(shape, dtype=torch.int64)


def _score_dtype(query: Tensor) -> torch.dtype:
    return torch.promote_types(query.dtype, torch.float32)


def _pairs(k: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Give the ranks, from 0, of the rows and columns whose pairs may be among the best `k`."""
    pairs = [(row, column) for row in range(k) for column in range(k // (row + 1))]
    rows, columns = torch.tensor(pairs, device=device).unbind(1)
    return rows, columns


def _largest(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Give each row's `k` largest, and their places; of equal ones the first comes first."""
    if x.device.type != "cpu":
        values, places = x.sort(dim=1, descending=True, stable=True)
        return values[:, :k], places[:, :k]
    # Selecting is 5x faster than sorting, but leaves the order of equal values open.
    count = min(k + 1, x.shape[1])
    missing = HEAP_RATIO * count - x.shape[1]
    near_enough = 0 < missing <= x.shape[1]
    wide = F.pad(x, (0, missing), value=-torch.inf) if near_enough else x
    values, places = wide.topk(count)
    tied = (values[:, 1:] == values[:, :-1]).any(dim=1).nonzero().squeeze(1)
    if len(tied):
        in_order = x[tied].sort(dim=1, descending=True, stable=True).indices
        places[tied] = in_order[:, : places.shape[1]]
    return values[:, :k], places[:, :k]


@torch.library.custom_op("rankloom::product_key_search_backward", mutates_args=())
def _search_backward(
    gradient: Tensor, slots: Tensor, query: Tensor, row_keys: Tensor, column_keys: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    k, dtype = slots.shape[-1], gradient.dtype
    gradient, slots = gradient.reshape(-1, k), slots.reshape(-1, k)
    halves = query.reshape(-1, query.shape[-1]).to(dtype).chunk(2, dim=1)
    grad_halves, grad_keys = [], []
    chosen = (slots.div(len(row_keys), rounding_mode="floor"), slots.remainder(len(row_keys)))
    for which, keys, half in zip(chosen, (row_keys, column_keys), halves, strict=True):
        grad_halves.append(_weighted_sum(which, gradient, keys.to(dtype)))
        used, sums = _sum_by_slot(half, which, gradient)
        grad_keys.append(torch.zeros_like(keys).index_copy_(0, used, sums.to(keys.dtype)))
    grad_query = torch.cat(grad_halves, dim=1).to(query.dtype).view(query.shape)
    return grad_query, grad_keys[0], grad_keys[1]


@_search_backward.register_fake
def _(
    gradient: Tensor, slots: Tensor, query: Tensor, row_keys: Tensor, column_keys: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    grad_query = torch.empty_like(query, memory_format=torch.contiguous_format)
    return grad_query, torch.empty_like(row_keys), torch.empty_like(column_keys)


def _setup_search(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1], *inputs[:3])
    ctx.mark_non_differentiable(output[1])


def _differentiate_search(ctx: Any, gradient: Tensor, _: Any) -> tuple[Any, ...]:
    return (*_search_backward(gradient, *ctx.saved_tensors), None)


_search.register_autograd(_differentiate_search, setup_context=_setup_search)


@torch.library.custom_op("rankloom::memory_read", mutates_args=())
def _read(slots: Tensor, weights: Tensor, table: Tensor) -> Tensor:
    k = slots.shape[-1]
    sums = _weighted_sum(slots.reshape(-1, k), weights.reshape(-1, k).to(table.dtype), table)
    return sums.view(*slots.shape[:-1], table.shape[1])


@_read.register_fake
def _(slots: Tensor, weights: Tensor, table: Tensor) -> Tensor:
    return table.new_empty((*slots.shape[:-1], table.shape[1]))


def _weighted_sum(slots_NK: Tensor, weights_NK: Tensor, table: Tensor) -> Tensor:
    """Give (N, D). One pass over the rows; gathering them first took 8x as long on a CPU."""
    return F.embedding_bag(slots_NK, table, mode="sum", per_sample_weights=weights_NK)


def _sum_by_slot(x_ND: Tensor, slots_NK: Tensor, weights_NK: Tensor) -> tuple[Tensor, Tensor]:
    """Give each slot that is used, and the sum of `weights[n, k] * x[n]` over its places.

    Returns:
        (U,) int64, ascending; (U, D).
    """
    weights = weights_NK.flatten()
    used = weights.nonzero().squeeze(1)
    slots, order, first = group_ids(slots_NK.flatten()[used])
    place = used[order]
    row = place.div(slots_NK.shape[1], rounding_mode="floor")
    sums = F.embedding_bag(row, x_ND, first, mode="sum", per_sample_weights=weights[place])
    return slots, sums


@torch.library.custom_op("rankloom::memory_weights_backward", mutates_args=())
def _weights_backward(gradient: Tensor, slots: Tensor, table: Tensor) -> Tensor:
    k = slots.shape[-1]
    gradient = gradient.reshape(-1, table.shape[1]).contiguous()
    row = torch.arange(len(gradient), device=slots.device)
    products: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(  # noqa: SLF001
        gradient, table, slots.flatten(), row * k, row.repeat_interleave(k), 0
    )
    return products.view(slots.shape)


@_weights_backward.register_fake
def _(gradient: Tensor, slots: Tensor, table: Tensor) -> Tensor:
    return gradient.new_empty(slots.shape)


@torch.library.custom_op("rankloom::memory_table_backward", mutates_args=())
def _table_backward(gradient: Tensor, slots: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    k, dim = slots.shape[-1], gradient.shape[-1]
    weights = weights.reshape(-1, k).to(gradient.dtype)
    return _sum_by_slot(gradient.reshape(-1, dim).contiguous(), slots.reshape(-1, k), weights)


@_table_backward.register_fake
def _(gradient: Tensor, slots: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    count = torch.library.get_ctx().new_dynamic_size()
    return slots.new_empty((count,)), gradient.new_empty((count, gradient.shape[-1]))


def _setup_read(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate_read(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    slots, weights, table = ctx.saved_tensors
    grad_weights = grad_table = None
    if ctx.needs_input_grad[1]:
        grad_weights = _weights_backward(gradient, slots, table).to(weights.dtype)
    if ctx.needs_input_grad[2]:
        rows, sums = _table_backward(gradient, slots, weights)
        grad_table = torch.sparse_coo_tensor(
            rows[None], sums, table.shape, is_coalesced=True, check_invariants=False
        )
    return None, grad_weights, grad_table


_read.register_autograd(_differentiate_read, setup_context=_setup_read)


@register_flop_formula(torch.ops.rankloom.product_key_search)
def _search_flops(
    query: torch.Size, row_keys: torch.Size, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    return 2 * math.prod(query) * row_keys[0]


@register_flop_formula(torch.ops.rankloom.product_key_search_backward)
def _search_backward_flops(
    gradient: torch.Size, slots: torch.Size, query: torch.Size, *args: Any, **kwargs: Any
) -> int:
    # The query's gradient and the keys', of the chosen keys only.
    return 4 * math.prod(slots) * query[-1]


@register_flop_formula(torch.ops.rankloom.memory_read)
def _read_flops(
    slots: torch.Size, weights: torch.Size, table: torch.Size, *args: Any, **kwargs: Any
) -> int:
    return 2 * math.prod(slots) * table[1]


@register_flop_formula(
    [torch.ops.rankloom.memory_weights_backward, torch.ops.rankloom.memory_table_backward]
)
def _read_backward_flops(gradient: torch.Size, slots: torch.Size, *args: Any, **kwargs: Any) -> int:
    return 2 * math.prod(slots) * gradient[-1]
