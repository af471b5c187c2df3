"""Launching the kernels of `kernels/attention.py` on tensors.

Shapes: B histories, H heads, M rows, L events, d width of queries and keys, dv width of values.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from rankloom.ops.kernels.attention import (
    events_backward_kernel,
    forward_kernel,
    rows_backward_kernel,
)

BLOCK_ROWS, BLOCK_EVENTS = 64, 64
NUM_WARPS = 4


class Pattern(NamedTuple):
    """What is seen and how it is weighed, in the kernels' numbers."""

    is_softmax: bool
    causal: bool
    window: int | None
    prefix: int
    full_rows: int
    reads: bool
    """Whether rows stand behind the history, rather than being its newest events."""
    scale: float
    divisor: float


class Operands(NamedTuple):
    """Tensors of both passes."""

    query: Tensor
    """(B, H, M, d)."""
    key: Tensor
    """(B, H, L, d)."""
    value: Tensor
    """(B, H, L, dv)."""
    lengths: Tensor
    """(B,) int64, in [0, L]."""
    row_seconds: Tensor | None
    """(B, M)."""
    event_seconds: Tensor | None
    """(B, L)."""
    positions: Tensor | None
    """(H or 1, P)."""
    times: Tensor | None
    """(H or 1, C)."""


def launch_forward(operands: Operands, pattern: Pattern) -> tuple[Tensor, Tensor]:
    """Give (B, H, M, dv) in the dtype of the query, and (B, H, M) logarithms of sums.

    The logarithm is +inf for a row that sees nothing, and of size 0 for SiLU.
    """
    o = _contiguous(operands)
    batch, heads, rows, _ = o.query.shape
    width = o.value.shape[3]
    out = o.query.new_empty((batch, rows, heads, width)).transpose(1, 2)
    log_sum = o.query.new_empty(
        (batch, heads, rows) if pattern.is_softmax else (0,), dtype=torch.float32
    )
    if out.numel():
        forward_kernel[_grid(rows, BLOCK_ROWS, o)](
            *o[:3], out, log_sum, *_optional(o), *_numbers(o, out, pattern), **_options(o, pattern)
        )
    return out, log_sum


def launch_backward(
    gradient: Tensor, log_sum: Tensor, delta: Tensor, operands: Operands, pattern: Pattern
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Give the gradients of query, key, value and of the tables.

    Args:
        gradient: (B, H, M, dv). Of the result; zero for rows that see nothing.
        log_sum: (B, H, M) float32. Of the whole softmax; +inf for rows that see nothing.
        delta: (B, H, M) float32. Sum of gradient * result.
        operands: Of the forward pass.
        pattern: Likewise.
    """
    o = _contiguous(operands)
    # Gradients come in any layout, expanded ones among them.
    gradient = gradient.to(o.query.dtype).contiguous()
    log_sum, delta = log_sum.contiguous(), delta.contiguous()
    given = [torch.zeros(x.shape, dtype=x.dtype, device=x.device) for x in o[:3]]
    tables = [
        None if x is None else torch.zeros(x.shape, dtype=torch.float32, device=x.device)
        for x in (o.positions, o.times)
    ]
    common = (*o[:3], gradient, log_sum, delta, *_optional(o))
    numbers, options = _numbers(o, gradient, pattern), _options(o, pattern)
    if o.query.numel() and o.key.numel():
        grad_tables = [given[0] if x is None else x for x in tables]
        rows, events = o.query.shape[2], o.key.shape[2]
        rows_backward_kernel[_grid(rows, BLOCK_ROWS, o)](
            *common, given[0], *grad_tables, *numbers, **options
        )
        events_backward_kernel[_grid(events, BLOCK_EVENTS, o)](
            *common, given[1], given[2], *numbers, **options
        )
    return given[0], given[1], given[2], tables[0], tables[1]


def _contiguous(operands: Operands) -> Operands:
    """Make the last dimension contiguous, tables and times wholly so, and lengths int32."""
    wide = [x if x.stride(3) == 1 else x.contiguous() for x in operands[:3]]
    rest = [None if x is None else x.contiguous() for x in operands[4:]]
    lengths = operands.lengths.to(torch.int32).contiguous()
    return Operands(wide[0], wide[1], wide[2], lengths, *rest)


def _optional(o: Operands) -> list[Tensor]:
    """Give lengths, times and tables; the query stands for what there is not."""
    return [o.query if x is None else x for x in o[3:]]


def _numbers(o: Operands, out: Tensor, pattern: Pattern) -> list[Any]:
    """Give strides and sizes in the order of the kernels' arguments."""
    strides = [size for x in (o.query, o.key, o.value, out) for size in x.stride()[:3]]
    tables = (o.positions, o.times)
    per_head = [0 if x is None or len(x) == 1 else x.stride(0) for x in tables]
    sizes = [
        o.query.shape[1], o.query.shape[2], o.key.shape[2], o.query.shape[3], o.value.shape[3],
    ]  # fmt: skip
    entries = [1 if x is None else x.shape[1] for x in tables]
    mask = [pattern.window or 0, pattern.prefix, pattern.full_rows]
    return [*strides, *per_head, *sizes, *entries, *mask, pattern.scale, pattern.divisor]


def _options(o: Operands, pattern: Pattern) -> dict[str, Any]:
    return {
        "SOFTMAX": pattern.is_softmax,
        "CAUSAL": pattern.causal,
        "WINDOWED": pattern.window is not None,
        "READS": pattern.reads,
        "HAS_POSITIONS": o.positions is not None,
        "HAS_TIMES": o.times is not None and o.event_seconds is not None,
        "BLOCK_M": BLOCK_ROWS,
        "BLOCK_N": BLOCK_EVENTS,
        # A product needs 16 of each dimension.
        "BLOCK_D": max(16, triton.next_power_of_2(o.query.shape[3])),
        "BLOCK_DV": max(16, triton.next_power_of_2(o.value.shape[3])),
        "num_warps": NUM_WARPS,
    }


def _grid(count: int, block: int, o: Operands) -> tuple[int, int]:
    return triton.cdiv(count, block), o.query.shape[0] * o.query.shape[1]
