"""The compiler: finds what is computed per user, per request and per candidate, and splits it."""

from rankloom.hoist.hoist import Hoisted, HoistedNetwork, hoist
from rankloom.hoist.program import Program, StateTensor
from rankloom.hoist.rewriter import Decision, Options

__all__ = [
    "Decision",
    "Hoisted",
    "HoistedNetwork",
    "Options",
    "Program",
    "StateTensor",
    "hoist",
]
