"""Counting floating-point operations, attention on the CPU among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)


def _attention(
    query: Sequence[int],
    key: Sequence[int],
    value: Sequence[int],
    *_args: Any,
    **_kwargs: Any,
) -> int:
    """Count attention as torch counts it on a GPU: all pairs, those that causality hides too."""
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(
    gradient: Sequence[int],
    query: Sequence[int],
    key: Sequence[int],
    value: Sequence[int],
    *_args: Any,
    **_kwargs: Any,
) -> int:
    """Count its backward pass likewise: five products, the scores once more among them."""
    return int(sdpa_backward_flop_count(gradient, query, key, value))


# torch has no formulas for them, and would count them as nothing.
_aten = torch.ops.aten
_FORMULAS = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,  # noqa: SLF001
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,  # noqa: SLF001
}


def flop_counter() -> FlopCounterMode:
    """Give a counter of the operations that run within it; a multiply-add counts as two.

    Example:
        >>> with flop_counter() as counter:
        ...     _ = torch.ones(2, 3) @ torch.ones(3, 4)
        >>> counter.get_total_flops()
        48
    """
    return FlopCounterMode(display=False, custom_mapping=_FORMULAS)
