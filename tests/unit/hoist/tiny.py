"""Tiny networks with one feature or two of each rate, and what they cost at each rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from rankloom.hoist import Hoisted, Options, hoist
from rankloom.layers.protocols import FeatureLayout, Inputs, Layout, Output
from rankloom.ops import expand
from rankloom.schema import Rate

RATES = {"u": Rate.USER, "r": Rate.REQUEST, "c": Rate.CANDIDATE}
"""A feature's first letter tells its rate."""
Shapes = Mapping[str, tuple[int, ...]]
INDEX = (0, 0, 0, 1, 2, 2)


class Tiny(nn.Module):
    """A network whose body is a function of features at rows.

    Args:
        body: Feature tensors -> (B,) or (B, ...) results.
        shapes: Feature -> its shape without rows.
        weights: Name -> shape of a parameter, given to the body as `w`.
    """

    def __init__(
        self, body: Callable[..., Tensor], shapes: Shapes, weights: Shapes | None = None
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.body, self.shapes = body, dict(shapes)
        self.w = nn.ParameterDict(
            {
                name: nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
                for name, shape in (weights or {}).items()
            }
        )
        features = {
            name: FeatureLayout(width=shape[-1], rate=RATES[name[0]])
            for name, shape in shapes.items()
        }
        self.layout = Layout(features=features, tasks=("t",))

    def forward(self, inputs: Inputs) -> Output:
        rows = {
            name: value if RATES[name[0]] == Rate.CANDIDATE else expand(value, inputs.request_index)
            for name, value in inputs.features.items()
        }
        values = {**rows, "w": self.w} if self.w else rows
        return Output({"t": self.body(**values)}, {})

    def inputs(self, index: tuple[int, ...] = INDEX, seed: int = 0) -> Inputs:
        """Draw features for the given requests of rows."""
        generator = torch.Generator().manual_seed(seed)
        features = {}
        for name, shape in self.shapes.items():
            count = len(index) if RATES[name[0]] == Rate.CANDIDATE else index[-1] + 1
            features[name] = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
        return Inputs(features, {}, {}, torch.tensor(index))


def hoisted_equals_plain(network: Tiny, options: Options | None = None) -> Hoisted:
    """Hoist a tiny network; compare it with the plain one on several and on one request."""
    network.train(False)
    hoisted = hoist(network, network.inputs(), options)
    for index in (INDEX, (0,) * 5, (0,), (0, 1, 1, 1, 1, 1, 1, 2, 3)):
        inputs = network.inputs(index, seed=1)
        with torch.no_grad():
            assert_close(
                hoisted(inputs).logits["t"],
                network(inputs).logits["t"],
                rtol=1e-12,
                atol=1e-12,
            )
    return hoisted


def flops(hoisted: Hoisted, network: Tiny, *, num_candidates: int) -> dict[Rate, int]:
    """Count the FLOPs of each program for one request."""
    inputs = network.inputs((0,) * num_candidates)
    counted = {}
    values: dict[str, Tensor] = {}
    runs: dict[Rate, Callable[[], Any]] = {
        Rate.USER: lambda: hoisted.user_state(inputs),
        Rate.REQUEST: lambda: hoisted.request_state(inputs, values),
        Rate.CANDIDATE: lambda: hoisted.score(inputs, values),
    }
    for rate, run in runs.items():
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            result = run()
        values.update(result if isinstance(result, dict) else {})
        counted[rate] = counter.get_total_flops()
    return counted
