"""Divisors, for messages that name the nearest value that works."""

from __future__ import annotations


def divisors(number: int) -> tuple[int, ...]:
    """Give all divisors of a positive number, ascending."""
    return tuple(one for one in range(1, number + 1) if number % one == 0)


def nearest_divisors(number: int, wanted: int, *, count: int = 3) -> tuple[int, ...]:
    """Give the divisors of `number` that are nearest to `wanted`, ascending."""
    nearest = sorted(divisors(number), key=lambda one: abs(one - wanted))[:count]
    return tuple(sorted(nearest))


def nearest_multiples(number: int, wanted: int) -> tuple[int, ...]:
    """Give the positive multiples of `number` around `wanted`, ascending."""
    below = wanted // number * number
    return tuple(one for one in (below, below + number) if one > 0)
