"""One attention for long histories: a description of what is seen, never a tensor of it.

`attend` for a history's own events, `read` for candidates over a history. Both go over tiles and
compute them again in the backward pass. `reference.py` is the definition, for small histories.
"""

from rankloom.ops.attention import flops
from rankloom.ops.attention.attend import attend
from rankloom.ops.attention.bias import Bias, time_buckets
from rankloom.ops.attention.jagged import attend_jagged
from rankloom.ops.attention.mask import Mask, Weighting
from rankloom.ops.attention.read import read
from rankloom.ops.attention.rows import last_rows

__all__ = [
    "Bias",
    "Mask",
    "Weighting",
    "attend",
    "attend_jagged",
    "last_rows",
    "read",
    "time_buckets",
]
