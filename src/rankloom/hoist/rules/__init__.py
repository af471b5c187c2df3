"""What is known of each operation: operation -> the rule that rewrites it.

An operation that is not here is refused: it may mix rows.
"""

from __future__ import annotations

from typing import Any

from rankloom.hoist.call import aten, ours
from rankloom.hoist.rewriter import Rule
from rankloom.hoist.rules.attention import (
    ATTENTION,
    attend,
    attention,
    last_rows,
    read_history,
)
from rankloom.hoist.rules.contractions import addmm, baddbmm, bmm, einsum, linear, matmul, mm
from rankloom.hoist.rules.memory import read, search
from rankloom.hoist.rules.pointwise import pointwise
from rankloom.hoist.rules.reductions import (
    along,
    along_all_but_first,
    along_last,
    batch_norm,
    embedding,
    layer_norm,
    recurrent,
    total,
)
from rankloom.hoist.rules.shapes import (
    concatenate,
    create,
    expand,
    permute,
    reshape,
    select,
    slice_,
    split,
    spread,
    stack,
    unbind,
)
from rankloom.hoist.rules.slots import from_slots, to_slots

_POINTWISE = """
    abs add.Scalar add.Tensor addcdiv addcmul alias bitwise_and.Tensor bitwise_not
    bitwise_or.Tensor clamp clamp.Tensor clamp_max clamp_min clone contiguous cos detach detach_
    div.Scalar div.Tensor div.Tensor_mode dropout elu eq.Scalar eq.Tensor erf exp expm1 floor
    full_like ge.Scalar ge.Tensor gelu gt.Scalar gt.Tensor hardsigmoid hardswish hardtanh
    isfinite isinf isnan le.Scalar le.Tensor leaky_relu lift_fresh_copy log log1p log2
    log_sigmoid logical_and logical_not logical_or logical_xor lt.Scalar lt.Tensor
    masked_fill.Scalar masked_fill.Tensor maximum minimum mish mul.Scalar mul.Tensor nan_to_num
    ne.Scalar ne.Tensor neg ones_like pow.Scalar pow.Tensor_Scalar pow.Tensor_Tensor reciprocal
    relu relu6 remainder.Scalar remainder.Tensor round rsqrt rsub.Scalar rsub.Tensor selu
    sigmoid sign silu sin softplus sqrt square sub.Scalar sub.Tensor tan tanh to.dtype trunc
    where.ScalarOther where.ScalarSelf where.self zeros_like
"""
_ALONG = """
    softmax.int log_softmax.int _softmax _log_softmax cumsum cumprod logsumexp amax amin argmax
    argmin prod.dim_int any.dim all.dim flip gather glu index_select sort max.dim min.dim
"""
_RESHAPE = """
    view reshape _unsafe_view flatten.using_ints unflatten.int squeeze squeeze.dim squeeze.dims
    unsqueeze
"""


def _operation(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(aten, packet), overload or "default")


LAST_DIM_ONLY = frozenset({aten.linear.default, *(_operation(name) for name in _POINTWISE.split())})
"""Operations that treat all but the last dimension of an operand alike."""
RULES: dict[Any, Rule] = {
    **{_operation(name): pointwise for name in _POINTWISE.split()},
    **{_operation(name): along(1) for name in _ALONG.split()},
    **{_operation(name): reshape for name in _RESHAPE.split()},
    **{_operation(name): permute for name in ("permute", "transpose.int", "t", "movedim.int")},
    **{_operation(name): total for name in ("sum.dim_IntList", "mean.dim")},
    **{_operation(name): create for name in ("new_zeros", "new_ones", "new_full", "zeros", "ones")},
    **{_operation(name): split for name in ("split.Tensor", "split_with_sizes", "chunk")},
    aten.addmm.default: addmm,
    aten.baddbmm.default: baddbmm,
    aten.batch_norm.default: batch_norm,
    aten.bmm.default: bmm,
    aten.cat.default: concatenate,
    aten.einsum.default: einsum,
    aten.expand.default: expand,
    aten.layer_norm.default: layer_norm,
    aten.linear.default: linear,
    aten.matmul.default: matmul,
    aten.mm.default: mm,
    aten.rms_norm.default: layer_norm,
    aten.select.int: select,
    aten.slice.Tensor: slice_,
    aten.stack.default: stack,
    aten.unbind.int: unbind,
    ATTENTION: attention,
    aten.full.default: create,
    aten.conv1d.default: along_all_but_first,
    aten.embedding.default: embedding,
    aten.gru.input: recurrent,
    aten.lstm.input: recurrent,
    aten.topk.default: along(2),
    aten.tril.default: along_all_but_first,
    aten.triu.default: along_all_but_first,
    ours.attend.default: attend,
    ours.dropout.default: along_last,
    ours.expand.default: spread,
    ours.from_slots.default: from_slots,
    ours.last_rows.default: last_rows,
    ours.layer_norm.default: along_last,
    ours.read.default: read_history,
    ours.memory_read.default: read,
    ours.product_key_search.default: search,
    ours.low_rank.default: along_all_but_first,
    ours.rms_norm.default: along_last,
    ours.softmax.default: along(1),
    ours.swiglu.default: along_last,
    ours.to_slots.default: to_slots,
}
