"""Tables in int8 with one scale a row, a quarter of the memory; for scoring only.

    q = round(x / s),  s = max |x| / 127  for each row;  x ~ q * s

so that no value is off by more than s / 2.

Shapes: V looked-up rows, D width.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from rankloom.embedding.tables import FusedTables
from rankloom.ops.int8 import quantize


class Int8Tables(FusedTables):
    """Tables of one width in int8.

    Args:
        tables: Give names, sizes and width.
        weight: (num_embeddings of all, D) int8.
        scale: (num_embeddings of all,) float32.
    """

    scale: Tensor

    def __init__(self, tables: FusedTables, weight: Tensor, scale: Tensor) -> None:
        super().__init__(tables.sizes, tables.dim, init_std={}, generator=None)
        self.weight = weight
        self.register_buffer("scale", scale, persistent=False)

    def vectors_of(self, rows: Tensor) -> Tensor:
        """Give (V, D) values of rows of the whole group."""
        return F.embedding(rows, self.weight) * self.scale[rows].unsqueeze(1)


def quantize_rows(table: Tensor) -> tuple[Tensor, Tensor]:
    """Give a (num_embeddings, D) table in int8, and its (num_embeddings,) scales."""
    values, scale = quantize(table, dim=1)
    return values, scale.squeeze(1)
