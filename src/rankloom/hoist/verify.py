"""The proof: hoisted equals plain, and nothing that is held for a user depends on a candidate.

Shapes: R requests, B rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

from rankloom.errors import HoistError
from rankloom.hoist.capture import Capture, inputs_by_path
from rankloom.hoist.hoist import Hoisted
from rankloom.layers.protocols import Inputs
from rankloom.schema import Rate


def in_fp64(inputs: Inputs) -> Inputs:
    """Give inputs with every float tensor in fp64, where hoisted and plain agree to 1e-10."""
    result: Inputs = tree_map(
        lambda one: one.double() if isinstance(one, Tensor) and one.is_floating_point() else one,
        inputs,
    )
    return result


def largest_error(network: nn.Module, hoisted: Hoisted, batches: Iterable[Inputs]) -> float:
    """Give the largest |a - b| / max(1, |b|) of hoisted and plain logits.

    Args:
        network: The plain network, in the mode in which it was hoisted.
        hoisted: Its programs.
        batches: Inputs to compare them on.
    """
    errors = []
    with torch.no_grad():
        for inputs in batches:
            plain, divided = network(inputs).logits, hoisted(inputs).logits
            for task, expected in plain.items():
                difference = (divided[task] - expected).abs()
                errors.append((difference / expected.abs().clamp(min=1)).max())
    # Unlike Python's, torch's maximum of numbers with a NaN is NaN.
    return float(torch.stack(errors).max())


def check_equal(
    network: nn.Module, hoisted: Hoisted, batches: Iterable[Inputs], *, tolerance: float
) -> float:
    """Check that hoisted and plain scores agree.

    Args:
        network: The plain network, in the mode in which it was hoisted.
        hoisted: Its programs.
        batches: Inputs to compare them on.
        tolerance: Of |a - b| / max(1, |b|).

    Returns:
        The largest error.

    Raises:
        HoistError: It is above the tolerance.
    """
    error = largest_error(network, hoisted, batches)
    # Written so that NaN fails.
    if not error <= tolerance:
        raise HoistError(
            f"hoist: the programs do not give the plain network's scores. Got an error of "
            f"{error:.3g}, allowed are {tolerance:.3g}. An operation's rule is wrong: report it "
            "with the model; scoring without hoisting is correct."
        )
    return error


def check_border(network: nn.Module, hoisted: Hoisted, inputs: Inputs) -> list[str]:
    """Check, in the plain graph, that what is held for a user or request has no candidate in it.

    No such value may have a gradient path from a candidate's input, nor change when the candidates
    do.

    Args:
        network: The plain network.
        hoisted: Its programs; they name the values.
        inputs: With float candidate features; requests of several rows.

    Returns:
        The names of the values, nodes of the plain graph.

    Raises:
        HoistError: One does; all such are named.
    """
    captured = hoisted.captured
    values = dict(inputs_by_path(inputs))
    of_items = [path for path, rate in captured.rates.items() if rate == Rate.CANDIDATE]
    leaves = {
        path: values[path].detach().clone().requires_grad_()
        for path in of_items
        if values[path].is_floating_point()
    }
    first = _plain_values(captured, network, {**values, **leaves}, hoisted.border)
    # Another candidate in every row, of the same request.
    other = {path: values[path].flip(0) + 1 for path in leaves}
    second = _plain_values(captured, network, {**values, **other}, hoisted.border)
    leaking = []
    for name, value in first.items():
        if not torch.equal(value, second[name]):
            leaking.append(name)
        elif value.requires_grad:
            found = torch.autograd.grad(
                value.sum(), list(leaves.values()), retain_graph=True, allow_unused=True
            )
            leaking += [name] if any(one is not None for one in found) else []
    if leaking:
        raise HoistError(
            f"hoist: values that are held for a user depend on candidates. Got "
            f"{', '.join(leaking)}. An operation's row rule is wrong: report it with the model."
        )
    return sorted(first)


def _plain_values(
    captured: Capture, network: nn.Module, values: Mapping[str, Tensor], names: Iterable[str]
) -> dict[str, Any]:
    """Run the plain graph and keep some of its nodes."""
    wanted = set(names)
    kept: dict[str, Any] = {}

    class _Keeping(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            if n.name in wanted:
                kept[n.name] = result
            return result

    arguments = captured.arguments(network, values)
    _Keeping(fx.GraphModule(nn.Module(), captured.graph)).run(*arguments)
    return kept
