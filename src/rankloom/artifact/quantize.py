"""Weights of a program in int8: W8A16, one symmetric scale for each output of a product.

    y = x W^T  ~  x (q * s)^T,   q = round(W / s),  s = max |W| / 127 along the inputs

Activations stay as they are. For one user a program reads each weight once for a single row: its
time is that of reading them, so that a quarter of the bytes may be a quarter of the time. Whether
it is depends on the machine (`int8_products`); the smaller file is certain.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from rankloom.hoist import Program
from rankloom.hoist.call import aten, ours
from rankloom.ops.int8 import quantize

MIN_WEIGHTS = 4096
"""A smaller weight stays as it is: it fits into a cache."""

_INPUT_DIM: dict[Any, dict[int, int]] = {
    aten.linear.default: {1: 1},
    aten.mm.default: {0: 1, 1: 0},
    aten.addmm.default: {1: 1, 2: 0},
    aten.bmm.default: {0: 2, 1: 1},
    aten.baddbmm.default: {1: 2, 2: 1},
    aten.matmul.default: {0: -1, 1: -2},
}
"""Product -> place of a factor -> the factor's dimension that is summed over."""


def quantize_weights(program: Program) -> tuple[Program, dict[str, Tensor]]:
    """Write the weights of a program's products in int8.

    Args:
        program: Is left as it is.

    Returns:
        A program that dequantizes them where they are used, and the new constants by name; those
        that are not used any more are gone from it.
    """
    graph = fx.Graph()
    graph.output(graph.graph_copy(program.module.graph, {}))
    constants = dict(program.module.named_buffers())
    made: dict[str, Tensor] = {}
    for node in list(graph.nodes):
        if node.op != "get_attr":
            continue
        name = str(node.target)
        dim = _summed_dim(node, constants[name])
        if dim is None:
            continue
        values, scale = quantize(constants.pop(name), dim)
        made |= {f"{name}__int8": values, f"{name}__scale": scale}
        with graph.inserting_before(node):
            factors = [graph.get_attr(f"{name}__int8"), graph.get_attr(f"{name}__scale")]
            weight = graph.call_function(ours.dequantize.default, tuple(factors))
        weight.meta = dict(node.meta)
        node.replace_all_uses_with(weight)
        graph.erase_node(node)
    holder = torch.nn.Module()
    for name, value in {**constants, **made}.items():
        holder.register_buffer(name, value)
    return Program(fx.GraphModule(holder, graph), program.inputs, program.outputs), made


def dequantized(program: Program) -> Program:
    """Compute the weights of a program in advance.

    Args:
        program: Is left as it is.
    """
    graph = fx.Graph()
    graph.output(graph.graph_copy(program.module.graph, {}))
    holder = torch.nn.Module()
    for name, child in program.module.named_children():
        holder.add_module(name, child)
    constants = dict(program.module.named_buffers(recurse=False))
    for name, value in constants.items():
        holder.register_buffer(name, value)
    for number, node in enumerate(list(graph.nodes)):
        if node.target is not ours.dequantize.default:
            continue
        values, scale = (constants[str(one.target)] for one in node.args)
        if node.users:
            holder.register_buffer(f"weight_{number}", values * scale)
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.get_attr(f"weight_{number}"))
        graph.erase_node(node)
    for node in list(graph.nodes):
        if node.op == "get_attr" and not node.users:
            graph.erase_node(node)
    # A graph module takes over the constants that the graph names, and no others.
    return Program(fx.GraphModule(holder, graph), program.inputs, program.outputs)


def _summed_dim(node: fx.Node, weight: Tensor) -> int | None:
    """Give the dimension of a weight that all its products sum over; none, if it stays as it is."""
    if not weight.is_floating_point() or weight.dim() < 2 or weight.numel() < MIN_WEIGHTS:
        return None
    dims = {
        _summed_by(user, place)
        for user in node.users
        for place, one in enumerate(_factors(user))
        if one is node
    }
    return dims.pop() if len(dims) == 1 else None


def _factors(user: fx.Node) -> list[Any]:
    if user.target is aten.einsum.default:
        return list(user.args[1])  # type: ignore[arg-type]
    return list(user.args)


def _summed_by(user: fx.Node, place: int) -> int | None:
    if user.target is aten.einsum.default:
        inputs, _, output = str(user.args[0]).replace(" ", "").partition("->")
        letters = inputs.split(",")[place]
        summed = [at for at, letter in enumerate(letters) if letter not in output]
        return summed[0] if len(summed) == 1 else None
    return _INPUT_DIM.get(user.target, {}).get(place)
