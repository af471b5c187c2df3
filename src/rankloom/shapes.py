"""The legend of dimension letters, the same in every file.

A tensor whose layout changes inside a function carries its letters as a suffix: `x_BTD`.
"""

from __future__ import annotations

LETTERS = {
    "B": "rows: one user x one candidate",
    "R": "requests in a batch",
    "N": "candidates of a request",
    "F": "features",
    "T": "tokens",
    "D": "width of a token, or of the concatenated features",
    "L": "history length",
    "M": "layers",
    "V": "total jagged values",
    "H": "heads, or slices a token is cut into by mixing",
    "E": "experts",
    "K": "tasks",
    "C": "codebook size",
}
