"""Norms and softmax that compute in at least fp32 whatever they are given.

Model code holds no dtype casts: under autocast these ops receive bf16, compute in fp32 and give
bf16 back; fp64 stays fp64. Each is one node of a captured graph, and row i of its output depends on
row i of its input only.
"""

# A fake and a setup function have their op's whole signature, used or not.
# ruff: noqa: ARG001

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rankloom.ops.rows import as_rows, empty_rows, from_rows, memory_order, row_chunks


def rms_norm_fp32(x: Tensor, weight: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Scale each row to a root mean square of one, then by `weight`.

    Args:
        x: (..., D).
        weight: (D,). Scale of each column.
        eps: Added to the mean square, so that a zero row stays zero.

    Returns:
        (..., D) in the dtype and memory order of `x`.
    """
    y: Tensor = _rms_norm(x, weight, eps)[0]
    return y


def layer_norm_fp32(x: Tensor, weight: Tensor, bias: Tensor, *, eps: float = 1e-5) -> Tensor:
    """Bring each row to mean zero and variance one, then scale and shift its columns.

    Args:
        x: (..., D).
        weight: (D,). Scale of each column.
        bias: (D,). Shift of each column.
        eps: Added to the variance.

    Returns:
        (..., D) in the dtype and memory order of `x`.
    """
    y: Tensor = _layer_norm(x, weight, bias, eps)[0]
    return y


def softmax_fp32(x: Tensor, dim: int = -1) -> Tensor:
    """Give the softmax over `dim`, in the dtype of `x`.

    Args:
        x: (...). A dimension that is wholly -inf gives NaN, as in torch; mask with a finite value.
        dim: Dimension that sums to one.
    """
    y: Tensor = _softmax(x, dim)
    return y


def _wide(*tensors: Tensor) -> torch.dtype:
    """Give the dtype to compute in: at least fp32."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def _num_rows(x: Tensor) -> int:
    return math.prod(x.shape[:-1])


@torch.library.custom_op("rankloom::rms_norm", mutates_args=())
def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    y = empty_rows(x)
    order = memory_order(x)
    rows, out = as_rows(x, order), as_rows(y, order)
    wide = _wide(x, weight)
    scale = rows.new_empty((rows.shape[0], 1), dtype=wide)
    gain = weight.to(wide)
    for piece in row_chunks(rows):
        part = rows[piece].to(wide)
        norm = torch.linalg.vector_norm(part, dim=1, keepdim=True)
        norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        scale[piece] = norm
        if wide == x.dtype:
            torch.mul(part, norm, out=out[piece]).mul_(gain)
        else:
            out[piece] = (part * norm).mul_(gain)
    return y, scale


@_rms_norm.register_fake
def _(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return empty_rows(x), x.new_empty((_num_rows(x), 1), dtype=_wide(x, weight))


@torch.library.custom_op("rankloom::rms_norm_backward", mutates_args=())
def _rms_norm_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    grad_x = empty_rows(x)
    order = memory_order(x)
    rows, grads, out = as_rows(x, order), as_rows(gradient, order), as_rows(grad_x, order)
    wide = _wide(x, weight)
    gain = weight.to(wide)
    grad_weight = torch.zeros_like(gain)
    for piece in row_chunks(rows):
        part, grad, r = rows[piece].to(wide), grads[piece].to(wide), scale[piece]
        product = grad * part
        grad_weight.addmv_(product.T, r[:, 0])
        # d/dx of x r w with r = (mean(x^2) + eps)^(-1/2).
        # With `out`, because autocast would turn a plain product into bf16.
        slope = torch.mv(product, gain, out=torch.empty_like(r[:, 0]))[:, None]
        slope.mul_(r**3).div_(-x.shape[-1])
        target = out[piece] if wide == x.dtype else product
        torch.mul(grad, gain, out=target).mul_(r).addcmul_(part, slope)
        if wide != x.dtype:
            out[piece] = target
    return grad_x, grad_weight.to(weight.dtype)


@_rms_norm_backward.register_fake
def _(gradient: Tensor, x: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    return empty_rows(x), torch.empty_like(weight)


def _setup_rms_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight, output[1])
    ctx.mark_non_differentiable(output[1])


def _differentiate_rms_norm(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor, Tensor, None]:
    return (*_rms_norm_backward(gradient, *ctx.saved_tensors), None)


_rms_norm.register_autograd(_differentiate_rms_norm, setup_context=_setup_rms_norm)


@torch.library.custom_op("rankloom::layer_norm", mutates_args=())
def _layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    order = memory_order(x)
    wide = _wide(x, weight, bias)
    result, mean, scale = torch.native_layer_norm(
        as_rows(x, order).to(wide), [x.shape[-1]], weight.to(wide), bias.to(wide), eps
    )
    return from_rows(result.to(x.dtype), order, x), mean, scale


@_layer_norm.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    statistic = x.new_empty((_num_rows(x), 1), dtype=_wide(x, weight, bias))
    return empty_rows(x), statistic, torch.empty_like(statistic)


@torch.library.custom_op("rankloom::layer_norm_backward", mutates_args=())
def _layer_norm_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    order = memory_order(x)
    wide = _wide(x, weight, bias)
    grad_x, grad_weight, grad_bias = torch.ops.aten.native_layer_norm_backward(
        as_rows(gradient, order).to(wide),
        as_rows(x, order).to(wide),
        [x.shape[-1]],
        mean,
        scale,
        weight.to(wide),
        bias.to(wide),
        [True, True, True],
    )
    grad_x = from_rows(grad_x.to(x.dtype), order, x)
    return grad_x, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype)


@_layer_norm_backward.register_fake
def _(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return empty_rows(x), torch.empty_like(weight), torch.empty_like(bias)


def _setup_layer_norm(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, _ = inputs
    ctx.save_for_backward(x, weight, bias, output[1], output[2])
    ctx.mark_non_differentiable(output[1], output[2])


def _differentiate_layer_norm(
    ctx: Any, gradient: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, None]:
    return (*_layer_norm_backward(gradient, *ctx.saved_tensors), None)


_layer_norm.register_autograd(_differentiate_layer_norm, setup_context=_setup_layer_norm)


@torch.library.custom_op("rankloom::softmax", mutates_args=())
def _softmax(x: Tensor, dim: int) -> Tensor:
    return torch.softmax(x.to(_wide(x)), dim).to(x.dtype).contiguous()


@_softmax.register_fake
def _(x: Tensor, dim: int) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op("rankloom::softmax_backward", mutates_args=())
def _softmax_backward(gradient: Tensor, y: Tensor, dim: int) -> Tensor:
    wide = _wide(y)
    grad = torch.ops.aten._softmax_backward_data(  # noqa: SLF001
        gradient.to(wide), y.to(wide), dim, wide
    )
    return grad.to(y.dtype).contiguous()


@_softmax_backward.register_fake
def _(gradient: Tensor, y: Tensor, dim: int) -> Tensor:
    return torch.empty_like(y, memory_format=torch.contiguous_format)


def _setup_softmax(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(output)
    ctx.dim = inputs[1]


def _differentiate_softmax(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    return _softmax_backward(gradient, ctx.saved_tensors[0], ctx.dim), None


_softmax.register_autograd(_differentiate_softmax, setup_context=_setup_softmax)
