"""See a tensor as rows of its last dimension in the order they lie in memory, without a copy.

Per-token layers give tensors of shape (B, T, D) whose memory is ordered (T, B, D), because that is
what a batched matmul writes. Ops that work on rows of width D need not care about the order.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

CHUNK_ELEMENTS = 1 << 20
"""Elements of a piece on CPU: small enough that a piece's temporaries stay in the last cache and
are handed out again without page faults, large enough that starting threads costs little."""


def memory_order(x: Tensor) -> tuple[int, ...]:
    """Give the dimensions from the slowest to the fastest, the last one staying last."""
    strides = x.stride()
    return (*sorted(range(x.dim() - 1), key=lambda dim: -strides[dim]), x.dim() - 1)


def as_rows(x: Tensor, order: tuple[int, ...]) -> Tensor:
    """View `x` as (rows, width) in the given order of dimensions; copy only if it must.

    Args:
        x: (..., width).
        order: What `memory_order` gave for the tensor that decides.
    """
    return x.permute(order).reshape(-1, x.shape[-1])


def empty_rows(like: Tensor, *, width: int | None = None) -> Tensor:
    """Allocate a tensor in the order of the rows of `like`, each row contiguous.

    `torch.empty_like` is not the same: it keeps a last dimension that is not the fastest.

    Args:
        like: (..., width).
        width: Width of the new rows, if another.
    """
    order = memory_order(like)
    shape = [like.shape[dim] for dim in order]
    shape[-1] = shape[-1] if width is None else width
    return like.new_empty(shape).permute([order.index(dim) for dim in range(like.dim())])


def from_rows(rows: Tensor, order: tuple[int, ...], like: Tensor) -> Tensor:
    """Undo `as_rows`: view rows as a tensor of the shape of `like`, whose order was given."""
    shape = [like.shape[dim] for dim in order]
    return rows.view(shape).permute([order.index(dim) for dim in range(like.dim())])


def row_chunks(rows: Tensor) -> Iterator[slice]:
    """Cut rows into pieces that stay in cache; one piece where there is no such cache.

    Args:
        rows: (rows, width). Only its shape and device are read.
    """
    count, width = rows.shape
    step = max(1, CHUNK_ELEMENTS // max(1, width)) if rows.device.type == "cpu" else max(1, count)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
