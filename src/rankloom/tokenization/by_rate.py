"""What tokenizations share: put tokens in the order of their rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from rankloom.layers.protocols import Inputs, Tokens
from rankloom.schema import Rate

TOKEN_RATES = (Rate.USER, Rate.REQUEST, Rate.CANDIDATE)
"""Rates of tokens, in their order; what is constant is computed with the user."""


def token_rate(rate: Rate) -> Rate:
    """Give the rate of the token tensor that a value of `rate` goes to."""
    return max(rate, Rate.USER)


def assemble(inputs: Inputs, make: Mapping[Rate, Callable[[], Tensor]], dim: int) -> Tokens:
    """Make the tokens of each rate, with an empty tensor where there is none.

    Args:
        inputs: At rows; one of its features gives batch size, dtype and device.
        make: Rate -> function that gives (B, T_rate, dim); rates without tokens are left out.
        dim: Width of a token.
    """
    like = next(iter(inputs.features.values()))
    empty = like.new_zeros(like.shape[0], 0, dim)
    return Tokens(*(make[rate]() if rate in make else empty for rate in TOKEN_RATES))
