"""torch's own attention kernel on the CPU, where it is exact: 1.3 to 1.7 times as fast as ours.

Its public form cannot be differentiated within an op, nor does it give the logarithm of the sums;
the operation below it does both. Where a torch has none, our own tiles compute the same.

Shapes: B histories, H heads, M rows, L events, d width of queries, keys and values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rankloom.ops.attention.mask import Weighting

_FORWARD = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
_BACKWARD = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", None)


def can_flash(query: Tensor, key: Tensor, value: Tensor, weighting: Weighting) -> bool:
    """Whether the kernel takes these operands."""
    is_alike = query.dtype == key.dtype == value.dtype and query.shape[3] == value.shape[3]
    is_here = query.device.type == "cpu" and _FORWARD is not None and _BACKWARD is not None
    is_any = query.numel() > 0 and key.numel() > 0
    return weighting.kind == "softmax" and is_here and is_alike and is_any


def flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weighting: Weighting,
    *,
    is_causal: bool,
    added: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Give the weighted values (B, H, M, d) and the logarithms of the sums (B, H, M).

    Args:
        query: (B, H, M, d).
        key: (B, H, L, d).
        value: (B, H, L, d).
        weighting: Of which only the scale is read.
        is_causal: Whether row t sees events up to t.
        added: (B, 1, 1, L). Added to the scores of each event.
    """
    assert _FORWARD is not None
    out, log_sum = _FORWARD(
        query, key, value, 0.0, is_causal, attn_mask=added, scale=weighting.scale
    )
    return out, log_sum


def flash_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    out: Tensor,
    log_sum: Tensor,
    weighting: Weighting,
) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiate a causal `flash`: give the gradients of query, key and value."""
    assert _BACKWARD is not None
    given: tuple[Tensor, Tensor, Tensor] = _BACKWARD(
        gradient, query, key, value, out, log_sum, 0.0, True, scale=weighting.scale
    )
    return given
