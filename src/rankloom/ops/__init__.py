"""Pure tensor functions and the custom ops of RankLoom.

Importing this package registers every `rankloom::` op, which is all that an exported program needs.
"""

from rankloom.ops.attention import (
    Bias,
    Mask,
    Weighting,
    attend,
    attend_jagged,
    last_rows,
    read,
)
from rankloom.ops.dropout import cheap_dropout, dropped_levels
from rankloom.ops.expand import expand
from rankloom.ops.gating import swiglu
from rankloom.ops.int8 import dequantize, quantize
from rankloom.ops.low_rank import extend_low_rank, low_rank
from rankloom.ops.memory import memory_read, product_key_search
from rankloom.ops.mixing import mix, revert
from rankloom.ops.precision import layer_norm_fp32, rms_norm_fp32, softmax_fp32
from rankloom.ops.slots import from_slots, to_slots

__all__ = [
    "Bias",
    "Mask",
    "Weighting",
    "attend",
    "attend_jagged",
    "cheap_dropout",
    "dequantize",
    "dropped_levels",
    "expand",
    "extend_low_rank",
    "from_slots",
    "last_rows",
    "layer_norm_fp32",
    "low_rank",
    "memory_read",
    "mix",
    "product_key_search",
    "quantize",
    "read",
    "revert",
    "rms_norm_fp32",
    "softmax_fp32",
    "swiglu",
    "to_slots",
]
