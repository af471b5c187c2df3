"""The compiler: finds what is computed per user, per request and per candidate, and splits it."""

from rankloom.hoist.decisions import Decision, Options
from rankloom.hoist.hoist import Hoisted, HoistedNetwork, hoist
from rankloom.hoist.program import Program, Programs, StateTensor

__all__ = [
    "Decision",
    "Hoisted",
    "HoistedNetwork",
    "Options",
    "Program",
    "Programs",
    "StateTensor",
    "hoist",
]
