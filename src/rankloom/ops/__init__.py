"""Pure tensor functions and the custom ops of RankLoom.

Importing this package registers every `rankloom::` op, which is all that an exported program needs.
"""

from rankloom.ops.dropout import cheap_dropout, dropped_levels
from rankloom.ops.expand import expand
from rankloom.ops.gating import swiglu
from rankloom.ops.int8 import dequantize, quantize
from rankloom.ops.mixing import mix, revert
from rankloom.ops.precision import layer_norm_fp32, rms_norm_fp32, softmax_fp32
from rankloom.ops.slots import from_slots, to_slots

__all__ = [
    "cheap_dropout",
    "dequantize",
    "dropped_levels",
    "expand",
    "from_slots",
    "layer_norm_fp32",
    "mix",
    "quantize",
    "revert",
    "rms_norm_fp32",
    "softmax_fp32",
    "swiglu",
    "to_slots",
]
