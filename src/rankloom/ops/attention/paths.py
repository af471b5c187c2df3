"""Which path computes an attention: kernels on a GPU that has Triton, else tiles.

The kernels have not run on a GPU yet. So a process trusts them only after they have
equalled the tiles on a small problem, forward and backward, on its own device; if they do not, it
says so once and goes on with the tiles, which run on any device.

Shapes: B histories, H heads, M rows, L events, d width of queries and keys, dv width of values.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rankloom.ops.attention.bias import Bias
from rankloom.ops.attention.blocked import (
    Gradients,
    Piece,
    backward,
    forward,
    history_pieces,
    reading_pieces,
)
from rankloom.ops.attention.mask import Mask, Weighting
from rankloom.ops.attention.outputs import delta_of, finished, padding_rows

if TYPE_CHECKING:
    from rankloom.ops.kernels.attention_launch import Operands, Pattern

logger = logging.getLogger(__name__)
KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Problem:
    """What rows see of which histories, and how they weigh it."""

    mask: Mask | None
    """Of a history's own events; None: rows stand behind the history and see all of it."""
    weighting: Weighting
    lengths: Tensor
    """(B,) int64, in [0, L]."""
    seconds: Tensor | None
    """(B, L)."""
    bias: Bias
    """Its tables; times are `seconds`."""

    def pieces(self, query: Tensor, key: Tensor) -> list[Piece]:
        """Divide it."""
        sizes = {"num_rows": query.shape[2], "num_events": key.shape[2]}
        if self.mask is None:
            return reading_pieces(lengths=self.lengths, seconds=self.seconds, **sizes)
        return history_pieces(self.mask, lengths=self.lengths, seconds=self.seconds, **sizes)


def run_forward(
    query: Tensor, key: Tensor, value: Tensor, problem: Problem
) -> tuple[Tensor, Tensor]:
    """Give results (B, H, M, dv) and logarithms of sums (B, H, M), as `blocked.forward` does."""
    if _has_kernels(query, key, value):
        return kernel_forward(query, key, value, problem)
    return forward(
        query,
        key,
        value,
        pieces=problem.pieces(query, key),
        bias=problem.bias,
        weighting=problem.weighting,
    )


def run_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    log_sum: Tensor,
    delta: Tensor,
    problem: Problem,
) -> Gradients:
    """Differentiate, as `blocked.backward` does."""
    if _has_kernels(query, key, value):
        return kernel_backward(gradient, query, key, value, log_sum, delta, problem)
    return backward(
        gradient,
        query,
        key,
        value,
        log_sum=log_sum,
        delta=delta,
        pieces=problem.pieces(query, key),
        bias=problem.bias,
        weighting=problem.weighting,
    )


def kernel_forward(
    query: Tensor, key: Tensor, value: Tensor, problem: Problem
) -> tuple[Tensor, Tensor]:
    """Compute `run_forward` by kernels."""
    from rankloom.ops.kernels.attention_launch import launch_forward

    return launch_forward(*_launched(query, key, value, problem))


def kernel_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_sum: Tensor,
    delta: Tensor,
    problem: Problem,
) -> Gradients:
    """Compute `run_backward` by kernels."""
    from rankloom.ops.kernels.attention_launch import launch_backward

    operands, pattern = _launched(query, key, value, problem)
    return Gradients(*launch_backward(gradient, log_sum, delta, operands, pattern))


def _launched(
    query: Tensor, key: Tensor, value: Tensor, problem: Problem
) -> tuple[Operands, Pattern]:
    from rankloom.ops.kernels.attention_launch import Operands, Pattern

    seconds = problem.pieces(query, key)[0].seconds
    rows, events = (None, None) if seconds is None else seconds
    mask = Mask(causal=False) if problem.mask is None else problem.mask
    mask = mask.within(query.shape[2], key.shape[2])
    pattern = Pattern(
        is_softmax=problem.weighting.kind == "softmax",
        causal=mask.causal,
        window=mask.window,
        prefix=mask.prefix,
        full_rows=mask.full_rows,
        reads=problem.mask is None,
        scale=problem.weighting.scale,
        divisor=problem.weighting.divisor,
    )
    tables = problem.bias.positions, problem.bias.times
    return Operands(query, key, value, problem.lengths, rows, events, *tables), pattern


def _has_kernels(query: Tensor, key: Tensor, value: Tensor) -> bool:
    is_one_type = query.dtype == key.dtype == value.dtype and query.dtype in KERNEL_DTYPES
    return query.device.type == "cuda" and is_one_type and _are_right(query.device)


@cache
def _are_right(device: torch.device) -> bool:
    """Compare the kernels with the tiles once on a device."""
    if find_spec("triton") is None:
        logger.warning("attention: Triton is not installed; tiles are used, which are slower.")
        return False
    try:
        worst = largest_difference(device)
    except Exception as error:  # noqa: BLE001 (a compiler's errors are of any type)
        logger.warning("attention: kernels do not run here (%s); tiles are used.", error)
        return False
    if not worst < 1e-3:  # a NaN is no smaller
        logger.warning("attention: kernels are off by %g here; tiles are used.", worst)
        return False
    return True


def largest_difference(device: torch.device) -> float:
    """Give how far kernels and tiles are apart on small problems, results and gradients."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    length, rows = 150, 40
    lengths = torch.tensor([length, 70, 0], device=device)
    seconds = torch.arange(length, device=device).square().expand(3, -1)
    bias = Bias(draw(2, 20), draw(1, 8))
    query, key, value = (draw(3, 2, count, 16) for count in (rows, length, length))
    gradient, worst = draw(3, 2, rows, 16), 0.0
    for mask in (Mask(), Mask(window=9, prefix=5, full_rows=4), None):
        for kind, divisor in (("softmax", 1.0), ("silu", 10.0)):
            weighting = Weighting(kind=kind, scale=0.25, divisor=divisor)  # type: ignore[arg-type]
            problem = Problem(mask, weighting, lengths, seconds, bias)
            pairs = zip(
                _both_passes(query, key, value, gradient, problem, is_by_kernels=True),
                _both_passes(query, key, value, gradient, problem, is_by_kernels=False),
                strict=True,
            )
            worst = max(worst, *(float((one - other).abs().max()) for one, other in pairs))
    return worst


def _both_passes(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gradient: Tensor,
    problem: Problem,
    *,
    is_by_kernels: bool,
) -> list[Tensor]:
    """Give the result and the gradients, on one path."""
    pieces, rows = problem.pieces(query, key), query.shape[2]
    if is_by_kernels:
        out, log_sum = kernel_forward(query, key, value, problem)
    else:
        out, log_sum = forward(
            query, key, value, pieces=pieces, bias=problem.bias, weighting=problem.weighting
        )
    seen = problem.lengths if problem.mask is not None else rows * (problem.lengths > 0)
    out, log_sum = finished(out, log_sum, query.dtype, padding_rows(seen, rows))
    gradient = gradient.masked_fill(padding_rows(seen, rows)[:, None, :, None], 0.0)
    delta = delta_of(gradient, out)
    if is_by_kernels:
        given = kernel_backward(gradient, query, key, value, log_sum, delta, problem)
    else:
        given = backward(
            gradient,
            query,
            key,
            value,
            log_sum=log_sum,
            delta=delta,
            pieces=pieces,
            bias=problem.bias,
            weighting=problem.weighting,
        )
    return [out, *(one for one in given if one is not None)]
