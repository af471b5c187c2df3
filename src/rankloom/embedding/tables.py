"""Tables of one width in one weight, stored by logical name.

A table never has a dense gradient: what is looked up is a leaf, and its gradient goes to a sparse
optimizer that touches only the rows used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from rankloom.config import Config


class TableConfig(Config):
    """What may differ from table to table."""

    embedding_dim: PositiveInt | None = None
    """Width; default: the model's."""
    init_std: PositiveFloat | None = None
    """Deviation of the initial values; default: the model's."""


class Lookup(NamedTuple):
    """What one step looked up in one group of tables."""

    tables: FusedTables
    """The group."""
    rows: Tensor
    """(V,) int64. Rows of the group's weight, repeats included."""
    vectors: Tensor
    """(V, D). What was found there; a leaf whose gradient the sparse optimizer reads."""


class FusedTables(nn.Module):
    """Tables of one width, one below the other in one weight.

    Args:
        sizes: Table -> num_embeddings, in order.
        dim: Their width.
        init_std: Table -> deviation of its initial values.
        generator: Source of the initial values; without one the weight has neither values nor
            memory, until it is set to what a file holds.

    Example:
        >>> tables = FusedTables(
        ...     {"user": 3, "item": 5}, 4, init_std={}, generator=torch.Generator()
        ... )
        >>> tables.table("item").shape
        torch.Size([5, 4])
    """

    weight: Tensor

    def __init__(
        self,
        sizes: Mapping[str, int],
        dim: int,
        *,
        init_std: Mapping[str, float],
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.sizes = dict(sizes)
        self.offsets: dict[str, int] = {}
        total = 0
        for name, size in self.sizes.items():
            self.offsets[name] = total
            total += size
        # A buffer and no parameter: no optimizer or clipping must ever see it as dense.
        device = "cpu" if generator is not None else "meta"
        self.register_buffer("weight", torch.empty(total, dim, device=device), persistent=False)
        for name in self.sizes if generator is not None else ():
            self.table(name).normal_(std=init_std.get(name, 0.01), generator=generator)

    def table(self, name: str) -> Tensor:
        """Give one table's (num_embeddings, D) rows, as a view that may be written."""
        return self.rows_of(name, self.weight)

    def rows_of(self, name: str, values: Tensor) -> Tensor:
        """Give one table's part of a tensor with one entry per row of the whole group."""
        return values.narrow(0, self.offsets[name], self.sizes[name])

    def look_up(self, ids: Mapping[str, Tensor], tables: Mapping[str, str]) -> Lookup:
        """Look up all ids at once.

        Args:
            ids: Key -> (V_i,) int64 rows of that key's table.
            tables: Key -> table.

        Returns:
            The vectors of all keys, one key after the other.
        """
        rows = torch.cat([value + self.offsets[tables[key]] for key, value in ids.items()])
        return self.at_rows(rows)

    def at_rows(self, rows: Tensor) -> Lookup:
        """Look up rows of the whole group."""
        with torch.no_grad():
            vectors = self.vectors_of(rows)
        if torch.is_grad_enabled():
            vectors.requires_grad_()
        return Lookup(self, rows, vectors)

    def vectors_of(self, rows: Tensor) -> Tensor:
        """Give (V, D) values of rows of the whole group."""
        return F.embedding(rows, self.weight)

    def extra_repr(self) -> str:
        """Name the tables in `print(model)`."""
        return f"dim={self.dim}, tables={self.sizes}"
