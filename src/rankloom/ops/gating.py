"""SwiGLU's element-wise half as one op, so that its temporaries stay in cache."""

# A fake and a setup function have their op's whole signature, used or not.
# ruff: noqa: ARG001

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rankloom.ops.rows import as_rows, empty_rows, memory_order, row_chunks


def swiglu(gate_up: Tensor) -> Tensor:
    """Give SiLU(gate) * up of a matrix product that holds both side by side.

    Args:
        gate_up: (..., 2 * F). Gates, then as many values.

    Returns:
        (..., F) in the memory order of `gate_up`.
    """
    y: Tensor = _swiglu(gate_up)
    return y


@torch.library.custom_op("rankloom::swiglu", mutates_args=())
def _swiglu(gate_up: Tensor) -> Tensor:
    order = memory_order(gate_up)
    gate, up = as_rows(gate_up, order).chunk(2, dim=1)
    y = empty_rows(gate_up, width=gate_up.shape[-1] // 2)
    out = as_rows(y, order)
    for piece in row_chunks(gate):
        torch.mul(torch.nn.functional.silu(gate[piece]), up[piece], out=out[piece])
    return y


@_swiglu.register_fake
def _(gate_up: Tensor) -> Tensor:
    return empty_rows(gate_up, width=gate_up.shape[-1] // 2)


@torch.library.custom_op("rankloom::swiglu_backward", mutates_args=())
def _swiglu_backward(gradient: Tensor, gate_up: Tensor) -> Tensor:
    result = empty_rows(gate_up)
    order = memory_order(gate_up)
    gate, up = as_rows(gate_up, order).chunk(2, dim=1)
    grad_gate, grad_up = as_rows(result, order).chunk(2, dim=1)
    grad = as_rows(gradient, order)
    for piece in row_chunks(gate):
        torch.mul(grad[piece], torch.nn.functional.silu(gate[piece]), out=grad_up[piece])
        torch.ops.aten.silu_backward.grad_input(
            grad[piece] * up[piece], gate[piece], grad_input=grad_gate[piece]
        )
    return result


@_swiglu_backward.register_fake
def _(gradient: Tensor, gate_up: Tensor) -> Tensor:
    return empty_rows(gate_up)


def _setup(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])


def _differentiate(ctx: Any, gradient: Tensor) -> Tensor:
    result: Tensor = _swiglu_backward(gradient, ctx.saved_tensors[0])
    return result


_swiglu.register_autograd(_differentiate, setup_context=_setup)
