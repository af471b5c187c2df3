"""The principal directions of a history, as few rows that stand for all of its events.

For events H (L, d) and its singular values s_1 >= s_2 >= ... with right singular vectors v_i, the
principal interests are c_i = s_i v_i: r rows with C^T C = H^T H where the rank of H is at most r,
and the closest such rows where it is higher. They come from an eigendecomposition of H^T H, which
reads the events once, needs no random matrix and is exact. Of 1,000 events of width 32, 64 and 128
it took 0.1, 0.3 and 1.2 ms on one core; a randomised range finder with one power iteration, which
reads them four times, took 0.3 to 0.7, 0.3 to 1.1 and 0.5 to 1.5 ms for ranks from 8 to 32.

H = U S V^T is not differentiated as such: the slope of v_i holds 1 / (s_i^2 - s_j^2), which has no
bound. U and V are taken for constants instead, so that c_i = u_i^T H moves with the events that it
is made of. That is the true slope but for how interests of one history turn into each other.

Shapes: B histories, L events, d width of an event, r interests.
"""

# A fake and a setup function have their op's whole signature, used or not.
# ruff: noqa: ARG001

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

EIGEN_FLOPS = 9
"""Of an eigendecomposition with its vectors, times the cube of the width (Golub and Van Loan,
"Matrix Computations", section 8.3)."""


def low_rank(events: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factorise histories by their directions of most energy, in at least fp32.

    Signs are arbitrary, and so are the directions within interests of equal length: what is made of
    them should not depend on it.

    Args:
        events: (B, L, d). Zero where padded, which changes nothing.
        rank: r, at most d.

    Returns:
        interests: (B, r, d) in the dtype of `events`, longest first. Zero but for rounding beyond
            the rank of a history. NaN for a history that is not finite.
        axes: (B, r, d). Their directions, orthonormal also where the interest is zero. Constants:
            no gradient flows through them.
    """
    interests, axes = _low_rank(events, rank)
    return interests, axes


def extend_low_rank(interests: Tensor, events: Tensor) -> tuple[Tensor, Tensor]:
    """Factorise a history that has grown, from the interests that stood for it and the new events.

    That is one step of Frequent Directions (Liberty, KDD 2013) without its shrinking. It equals
    `low_rank` of all events where nothing was dropped from the older ones, which is where their
    rank is at most r; else the older ones count without what was dropped.

    Args:
        interests: (B, r, d). Of the older events.
        events: (B, L, d). The new ones; zero where padded.

    Returns:
        interests: (B, r, d).
        axes: (B, r, d).
    """
    return low_rank(torch.cat((interests, events), dim=1), interests.shape[1])


@torch.library.custom_op("rankloom::low_rank", mutates_args=())
def _low_rank(events: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    # Autocast would turn the product into bf16.
    with torch.autocast(events.device.type, enabled=False):
        wide = events.to(torch.promote_types(events.dtype, torch.float32))
        energy = torch.bmm(wide.mT, wide)
        is_finite = energy.isfinite().all(dim=2).all(dim=1)[:, None, None]
        # One bad history must not fail the others.
        values, vectors = torch.linalg.eigh(energy.masked_fill(~is_finite, 0.0))
    # From the smallest to the largest, in columns.
    axes = vectors[:, :, -rank:].flip(2).mT
    lengths = values[:, -rank:].flip(1).clamp(min=0).sqrt()
    interests = (axes * lengths[:, :, None]).masked_fill(~is_finite, torch.nan)
    return interests.to(events.dtype).contiguous(), axes.to(events.dtype).contiguous()


@_low_rank.register_fake
def _(events: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    shape = (events.shape[0], rank, events.shape[2])
    return events.new_empty(shape), events.new_empty(shape)


@torch.library.custom_op("rankloom::low_rank_backward", mutates_args=())
def _low_rank_backward(gradient: Tensor, events: Tensor, interests: Tensor, axes: Tensor) -> Tensor:
    # d c_i = u_i^T d H with u_i = H v_i / s_i, so that d H = H sum_i v_i (d c_i)^T / s_i.
    with torch.autocast(events.device.type, enabled=False):
        wide = torch.promote_types(events.dtype, torch.float32)
        lengths = torch.linalg.vector_norm(interests, dim=2, keepdim=True, dtype=wide)
        # Below that an interest is what rounding has left, and belongs to no event.
        noise = lengths[:, :1] * (events.shape[2] * torch.finfo(wide).eps) ** 0.5
        scaled = torch.where(lengths > noise, gradient.to(wide) / lengths, 0.0)
        turned = torch.bmm(axes.to(wide).mT, scaled)
        return torch.bmm(events.to(wide), turned).to(events.dtype)


@_low_rank_backward.register_fake
def _(gradient: Tensor, events: Tensor, interests: Tensor, axes: Tensor) -> Tensor:
    return events.new_empty(events.shape)


def _setup(ctx: Any, inputs: tuple[Tensor, int], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[0], *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor, None]:
    return _low_rank_backward(gradient, *ctx.saved_tensors), None


_low_rank.register_autograd(_differentiate, setup_context=_setup)


@register_flop_formula(torch.ops.rankloom.low_rank)
def _count(events: tuple[int, int, int], *_args: Any, **_kwargs: Any) -> int:
    count, length, width = events
    return count * (2 * length * width**2 + EIGEN_FLOPS * width**3)


@register_flop_formula(torch.ops.rankloom.low_rank_backward)
def _count_backward(
    gradient: tuple[int, int, int], events: tuple[int, int, int], *_args: Any, **_kwargs: Any
) -> int:
    count, length, width = events
    return 2 * count * width**2 * (length + gradient[1])
