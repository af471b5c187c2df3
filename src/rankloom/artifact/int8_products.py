"""How a machine multiplies by weights that a file holds in int8: found by measuring.

- `float`: dequantized once, when the artifact is loaded; the products are ordinary ones.
- `packed`: the int8 values are kept as fp16, in which whole numbers up to 2048 are exact, in the
  layout of fbgemm's kernels, which widen them in registers; the scale multiplies the result. Half
  the bytes of fp32, and the same numbers as `float` up to the order of sums. On processors that
  torch has these kernels for (x86 with F16C).

Shapes: T products side by side, R rows, K inputs, N outputs.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, fx, nn

from rankloom.artifact.quantize import dequantized
from rankloom.hoist import Program
from rankloom.hoist.call import aten, ours

_WEIGHT_PLACE: dict[Any, int] = {
    aten.linear.default: 1,
    aten.bmm.default: 1,
    aten.baddbmm.default: 2,
}
"""Product -> place of its weight: what can be packed."""


def has_packed_products(device: torch.device) -> bool:
    """Whether torch can multiply by packed weights on this machine."""
    if device.type != "cpu" or not {"x86", "fbgemm"} & set(
        torch.backends.quantized.supported_engines
    ):
        return False
    try:
        PackedProduct(torch.ones(1, 8, 8, dtype=torch.int8), torch.ones(1, 8, 1))(torch.ones(1, 8))
    except (RuntimeError, AttributeError):
        return False
    return True


class PackedProduct(nn.Module):
    """Multiplies by int8 weights held in fp16.

    Args:
        values: (T, N, K) int8.
        scale: (T, N, 1) float32.
    """

    scale: Tensor

    def __init__(self, values: Tensor, scale: Tensor) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own deprecation of quantized tensors
            self._packed = [
                torch.ops.quantized.linear_prepack_fp16(one.float().contiguous(), None)
                for one in values
            ]
        self.register_buffer("scale", scale.transpose(1, 2).contiguous(), persistent=False)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Give the products.

        Args:
            x: (..., K) for one product, (T, R, K) for several.
            bias: (N,), or (T, 1, N).

        Returns:
            (..., N), or (T, R, N).
        """
        multiply = torch.ops.quantized.linear_dynamic_fp16
        if len(self._packed) == 1:
            y = multiply(x, self._packed[0]) * self.scale[0, 0]
        else:
            parts = [multiply(one, packed) for one, packed in zip(x, self._packed, strict=True)]
            y = torch.stack(parts) * self.scale
        return y if bias is None else y + bias


def with_packed_products(program: Program) -> Program:
    """Replace the products by weights in int8; what has no such product is dequantized.

    Args:
        program: Read from a file; it is left as it is.
    """
    graph = fx.Graph()
    graph.output(graph.graph_copy(program.module.graph, {}))
    holder = nn.Module()
    constants = dict(program.module.named_buffers())
    for name, value in constants.items():
        holder.register_buffer(name, value)
    for number, node in enumerate(list(graph.nodes)):
        if node.target is not ours.dequantize.default:
            continue
        values, scale = (constants[str(one.target)] for one in node.args)
        if any(not _is_product(user, node, values, scale) for user in node.users):
            continue
        name = f"product_{number}"
        holder.add_module(name, _packed(values, scale))
        for user in list(node.users):
            x, bias = _operands(user)
            with graph.inserting_before(user):
                made = graph.call_module(name, (x, bias))
            user.replace_all_uses_with(made)
            graph.erase_node(user)
    return dequantized(Program(fx.GraphModule(holder, graph), program.inputs, program.outputs))


def _is_product(user: fx.Node, node: fx.Node, values: Tensor, scale: Tensor) -> bool:
    """Whether a node is used as the weight of a product that sums over what shares a scale."""
    place = _WEIGHT_PLACE.get(user.target)
    if place is None or user.args[place] is not node or user.kwargs:
        return False
    summed = -1 if user.target is aten.linear.default else -2
    is_alone = [one is node for one in user.all_input_nodes].count(True) == 1
    return is_alone and scale.shape[summed] == 1 and values.dim() == (2 if summed == -1 else 3)


def _packed(values: Tensor, scale: Tensor) -> PackedProduct:
    if values.dim() == 2:
        return PackedProduct(values.unsqueeze(0), scale.unsqueeze(0))
    return PackedProduct(values.transpose(1, 2), scale.transpose(1, 2))


def _operands(user: fx.Node) -> tuple[Any, Any]:
    """Give what a product multiplies, and its bias."""
    if user.target is aten.baddbmm.default:
        return user.args[1], user.args[0]
    return user.args[0], user.args[2] if len(user.args) > 2 else None
