"""Product-key memory: a large table of which each query reads the rows whose keys fit it best.

Paper: Lample et al., "Large Memory Layers with Product Keys", NeurIPS 2019, arXiv:1907.05242.
Layer: y = sum_i w_i V[i] over the K best slots i, w = softmax of their scores (eqs. 1-3).
Differs from the paper: one head; layer norm on queries and on keys; weights may fade (below).

Shapes: ... rows, in any dimensions; M slots; S = sqrt(M) sub-keys of an axis, of width h; K slots
that are read; D width of a slot.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from rankloom.layers.init import normal_
from rankloom.layers.norm import LayerNorm
from rankloom.ops import memory_read, product_key_search, softmax_fp32

VALUE_STD = 0.02
"""Of the initial rows of the table."""
TINY = 1e-20
Weights = Literal["fading", "softmax"]
"""Of the slots that are read: their softmax, or that less what the best slot that is not read would
have, and scaled to one again. Where a query moves from one slot to another, a softmax jumps by the
difference of their values, however little the query moved: of 100,000 reads, 4 changed by a fifth
of a value when the query's last bit did. What fades in from zero changes as little as the query, so
that programs that sum in another order, or in fewer bits, give the same scores."""


class Found(NamedTuple):
    """What a search found."""

    slots: Tensor
    """(..., K) int64. Best first; of n * S + m, n is the row key and m the column key."""
    weights: Tensor
    """(..., K). Their sum is one, or zero where all scores are equal and weights fade."""


class MemoryTable(nn.Module):
    """The values of a memory's slots, of which a step reads and changes few.

    The gradient is sparse and holds only rows that were read: it is for the optimizer of embedding
    tables, which knows this one by its name, and the dense optimizer must never see it.

    Args:
        name: Logical name, such as `history/memory`.
        num_slots: M.
        dim: D.
        generator: Source of the initial values.
    """

    num_reads: Tensor

    def __init__(self, name: str, num_slots: int, dim: int, *, generator: Generator) -> None:
        super().__init__()
        self.name, self.dim = name, dim
        self.sizes, self.offsets = {name: num_slots}, {name: 0}
        self.weight = nn.Parameter(torch.empty(num_slots, dim))
        normal_(self.weight, std=VALUE_STD, generator=generator)
        # Kept in checkpoints, so that a resumed training logs what it would have.
        self.register_buffer("num_reads", torch.zeros(num_slots, dtype=torch.int64))

    def forward(self, found: Found) -> Tensor:
        """Give (..., D): the rows that were found, summed by weight."""
        return memory_read(found.slots, found.weights, self.weight)

    def rows_of(self, name: str, values: Tensor) -> Tensor:
        """Give the part of a tensor with one entry a row that belongs to a table: all of it."""
        assert name == self.name
        return values

    def count(self, slots: Tensor) -> None:
        """Count reads of (..., K) slots, for `usage`."""
        flat = slots.flatten()
        self.num_reads.index_add_(0, flat, torch.ones_like(flat))

    def usage(self) -> dict[str, float]:
        """Say how evenly slots were read since the last call; nothing if none was.

        Returns:
            used: Share of the slots that were read.
            entropy: Of the reads over slots; 1 if all slots are read equally often, 0 if only one.
        """
        read = self.num_reads[self.num_reads > 0]
        self.num_reads.zero_()
        if not len(read):
            return {}
        share = read / read.sum()
        num_slots = len(self.num_reads)
        entropy = -(share * share.log()).sum() / math.log(num_slots)
        return {"used": len(read) / num_slots, "entropy": float(entropy)}

    def extra_repr(self) -> str:
        """Name the table in `print(model)`."""
        return f"{self.name}, num_slots={len(self.weight)}, dim={self.dim}"


class ProductKeyMemory(nn.Module):
    """Finds the slots whose keys fit a query, and reads their values.

    A slot's key is a pair of a row key and a column key, so that finding the best of M slots costs
    2 sqrt(M) products. Gradients reach the values of the slots that were read, and the keys they
    were chosen by, and no others. The norms keep all keys, and all queries, of one size: without
    them the slots that are large by chance are read by every query, and alone are trained.

    Args:
        name: Of the table.
        num_slots: M, the square of a whole number.
        dim: D.
        key_dim: h.
        top_k: K, below sqrt(M).
        weights: Of the slots that are read.
        generator: Source of the initial values.

    Example:
        >>> memory = ProductKeyMemory(
        ...     "memory", num_slots=64, dim=4, key_dim=2, top_k=3, generator=torch.Generator()
        ... )
        >>> memory(torch.randn(5, 4)).shape
        torch.Size([5, 4])
    """

    def __init__(
        self,
        name: str,
        *,
        num_slots: int,
        dim: int,
        key_dim: int,
        top_k: int,
        weights: Weights = "fading",
        generator: Generator,
    ) -> None:
        super().__init__()
        self.top_k, self.weights = top_k, weights
        self.scale = 1 / math.sqrt(key_dim)
        self.query_norm = LayerNorm(2 * key_dim)
        self.row_keys = nn.Parameter(torch.empty(math.isqrt(num_slots), key_dim))
        self.column_keys = nn.Parameter(torch.empty(math.isqrt(num_slots), key_dim))
        for keys in (self.row_keys, self.column_keys):
            normal_(keys, std=1.0, generator=generator)
        self.table = MemoryTable(name, num_slots, dim, generator=generator)

    def forward(self, query: Tensor) -> Tensor:
        """Read (..., D) for (..., 2h) queries."""
        values: Tensor = self.table(self.search(query))
        return values

    def search(self, query: Tensor) -> Found:
        """Find the K best slots for each of (..., 2h) queries."""
        rows, columns = self.keys()
        does_fade = self.weights == "fading"
        k = self.top_k + does_fade
        scores, slots = product_key_search(self.query_norm(query), rows, columns, k)
        weights = softmax_fp32(scores * self.scale)
        if does_fade:
            above = weights[..., :-1] - weights[..., -1:]
            weights = above / above.sum(dim=-1, keepdim=True).clamp(min=TINY)
        return Found(slots[..., : self.top_k], weights)

    def keys(self) -> tuple[Tensor, Tensor]:
        """Give (S, h) row keys and column keys, normalised.

        Without a learned scale, which the query's norm has, or shift, which would change no weight.
        """
        shape = self.row_keys.shape[1:]
        return F.layer_norm(self.row_keys, shape), F.layer_norm(self.column_keys, shape)


def memory_problems(path: str, *, num_slots: int, top_k: int) -> list[str]:
    """Say what is wrong with a memory's sizes in a config.

    Args:
        path: Of the config.
        num_slots: M.
        top_k: K.
    """
    size = math.isqrt(num_slots)
    problems = []
    if size * size != num_slots:
        problems.append(
            f"{path}.num_slots: must be the square of a whole number. Got {num_slots}. Nearest "
            f"that work: {size**2}, {(size + 1) ** 2}."
        )
    if top_k >= size:
        problems.append(
            f"{path}.top_k: must be below the root of num_slots={num_slots}. Got {top_k}. Use "
            f"{max(1, size - 1)} or fewer, or more slots."
        )
    return problems


def memory_tables(network: nn.Module) -> list[MemoryTable]:
    """Find the memories' tables in a network."""
    return [module for module in network.modules() if isinstance(module, MemoryTable)]
