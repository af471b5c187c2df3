"""What the attention ops have in common: their options, and the form of what they give.

Shapes: B histories, H heads, M rows, L events, dv width of values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rankloom.errors import ConfigError
from rankloom.ops.attention.bias import Bias
from rankloom.ops.attention.blocked import Gradients
from rankloom.ops.attention.mask import Weighting


def check_bias(bias: Bias, *, where: str) -> None:
    """Check that a table of times comes with times.

    Raises:
        ConfigError: It does not.
    """
    if bias.times is not None and bias.seconds is None:
        raise ConfigError(f"{where}: a table of times needs `seconds`. Got none. Give them.")


def weighting_of(kind: str, scale: float, divisor: float) -> Weighting:
    """Give the weighting that an op's plain arguments say.

    Raises:
        ConfigError: They are none.
    """
    return Weighting(kind=kind, scale=scale, divisor=divisor)  # type: ignore[arg-type]


def without_autocast(x: Tensor) -> torch.autocast:
    """Compute in the dtypes at hand: autocast would turn fp32 products into bf16 ones."""
    return torch.autocast(x.device.type, enabled=False)


def real_lengths(lengths: Tensor | None, key: Tensor) -> Tensor:
    """Give the real events of each history, never more than there are places."""
    num_events = key.shape[2]
    if lengths is None:
        return torch.full((len(key),), num_events, device=key.device)
    return lengths.clamp(0, num_events)


def padding_rows(lengths: Tensor, num_rows: int) -> Tensor:
    """Give (B, M) bool: True where a row stands for no event."""
    return torch.arange(num_rows, device=lengths.device) >= lengths[:, None]


def finished(
    out: Tensor, log_sum: Tensor, dtype: torch.dtype, padding: Tensor
) -> tuple[Tensor, Tensor]:
    """Clear padding, and lay the result out as (B, M, H, dv), which is what follows wants.

    A row that sees nothing gets a sum of +inf: its weights, made again, are zeros.
    """
    laid_out = out.new_empty(
        (out.shape[0], out.shape[2], out.shape[1], out.shape[3]), dtype=dtype
    ).transpose(1, 2)
    laid_out.copy_(out).masked_fill_(padding[:, None, :, None], 0.0)
    if log_sum.numel():
        log_sum = log_sum.masked_fill(padding[:, None] | (log_sum == -torch.inf), torch.inf)
    return laid_out, log_sum.contiguous()


def delta_of(gradient: Tensor, out: Tensor) -> Tensor:
    """Give (B, H, M): the sum of gradient * out, in at least fp32."""
    wide = torch.promote_types(out.dtype, torch.float32)
    return (gradient.to(wide) * out.to(wide)).sum(dim=3)


def typed(
    given: Gradients,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    positions: Tensor | None,
    times: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Give gradients in their operands' dtypes; an empty one for a table that there is not."""
    operands = (query, key, value, positions, times)
    return tuple(  # type: ignore[return-value]
        query.new_empty(0) if one is None or grad is None else grad.to(one.dtype).contiguous()
        for one, grad in zip(operands, given, strict=True)
    )


def fake_result(query: Tensor, value: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Give what attention's outputs look like."""
    batch, heads, rows, _ = query.shape
    out = query.new_empty((batch, rows, heads, value.shape[3])).transpose(1, 2)
    shape = (batch, heads, rows) if kind == "softmax" else (0,)
    return out, query.new_empty(shape, dtype=torch.promote_types(query.dtype, torch.float32))


def fake_gradients(
    query: Tensor, key: Tensor, value: Tensor, positions: Tensor | None, times: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Give what the gradients look like."""
    operands = (query, key, value, positions, times)
    return tuple(  # type: ignore[return-value]
        query.new_empty(0) if one is None else one.new_empty(one.shape) for one in operands
    )
