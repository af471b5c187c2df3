"""`hoist`: a network in, programs by rate out, equal to the network.

    hoisted = hoist(network, example)
    output = hoisted(inputs)              # the same logits
    state = hoisted.user_state(inputs)    # once a user

Shapes: R requests, B rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_unflatten

from rankloom.data.batch import make_slots
from rankloom.hoist.capture import Capture, capture, inputs_by_path
from rankloom.hoist.decisions import Decision, Options
from rankloom.hoist.program import (
    Program,
    StateTensor,
    divide,
    for_one_request,
    whole_program,
)
from rankloom.hoist.rewriter import Rewriter
from rankloom.hoist.rules import LAST_DIM_ONLY, RULES
from rankloom.layers.protocols import Inputs, Output
from rankloom.schema import Rate


@dataclass
class Hoisted:
    """A network divided by rate."""

    captured: Capture
    """The plain graph."""
    decisions: list[Decision]
    """Where products could be divided, and whether they were."""
    programs: dict[Rate, Program]
    """Rate -> program; a rate that computes nothing has none."""
    state: list[StateTensor]
    """What crosses between them."""
    border: list[str]
    """Nodes of the plain graph that are computed once for a user or request, and used for rows."""
    one_request: Program = field(init=False)
    """The candidate program for batches of one request."""

    def __post_init__(self) -> None:
        self.one_request = for_one_request(self.programs[Rate.CANDIDATE])

    def programs_for_one_request(self) -> dict[Rate, Program]:
        """Give the programs that score one request."""
        return {**self.programs, Rate.CANDIDATE: self.one_request}

    def user_state(self, inputs: Inputs) -> dict[str, Tensor]:
        """Compute what depends on the user alone, at R rows."""
        return _run(self.programs.get(Rate.USER), dict(inputs_by_path(inputs)))

    def request_state(self, inputs: Inputs, user_state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute what depends on user and request, at R rows."""
        values = {**inputs_by_path(inputs), **user_state}
        return _run(self.programs.get(Rate.REQUEST), values)

    def score(self, inputs: Inputs, state: dict[str, Tensor]) -> Output:
        """Score every row, given user and request state."""
        values = {**inputs_by_path(inputs), **state}
        program = self.programs[Rate.CANDIDATE]
        num_requests = _num_requests(inputs)
        if num_requests == 1:
            program = self.one_request
        _add_slots(program, values, num_requests)
        return _output(self.captured, program(values))

    def __call__(self, inputs: Inputs) -> Output:
        """Score every row."""
        user = self.user_state(inputs)
        return self.score(inputs, {**user, **self.request_state(inputs, user)})


class HoistedNetwork(nn.Module):
    """A network whose user and request values are computed once for each request, in training too.

    Its parameters are the plain network's own.

    Args:
        network: The plain network, in the mode that is captured.
        example: At least two requests, and more rows than requests.
        options: How to rewrite.
    """

    def __init__(self, network: nn.Module, example: Inputs, options: Options | None = None) -> None:
        super().__init__()
        self.captured, rewriter = _rewrite(network, example, options)
        self.program = whole_program(rewriter.graph, network)

    def forward(self, inputs: Inputs) -> Output:
        """Score every row."""
        values = dict(inputs_by_path(inputs))
        _add_slots(self.program, values, _num_requests(inputs))
        return _output(self.captured, self.program(values))


def hoist(network: nn.Module, example: Inputs, options: Options | None = None) -> Hoisted:
    """Divide a network by rate.

    Args:
        network: In evaluation mode; it has a `layout`, which knows the inputs' rates.
        example: At least two requests, and more rows than requests.
        options: How to rewrite.

    Raises:
        HoistError: The network cannot be captured, or mixes rows; the node and its source line are
            named.
    """
    captured, rewriter = _rewrite(network, example, options)
    programs, state = divide(rewriter.graph, network)
    return Hoisted(captured, rewriter.decisions, programs, state, rewriter.border())


def _rewrite(
    network: nn.Module, example: Inputs, options: Options | None
) -> tuple[Capture, Rewriter]:
    layout: Any = network.layout
    captured = capture(network, example, layout)
    rewriter = Rewriter(captured, RULES, LAST_DIM_ONLY, options or Options())
    outputs = [rewriter.at_rows(value) for value in rewriter.run()]
    rewriter.graph.output(tuple(one.node for one in outputs))
    rewriter.graph.eliminate_dead_code()
    return captured, rewriter


def _run(program: Program | None, values: dict[str, Tensor]) -> dict[str, Tensor]:
    if program is None:
        return {}
    return dict(zip(program.outputs, program(values), strict=True))


def _num_requests(inputs: Inputs) -> int:
    """Count requests by the last one that a row names; rows are in the order of requests."""
    return int(inputs.request_index[-1]) + 1


def _add_slots(program: Program, values: dict[str, Tensor], num_requests: int) -> None:
    if "slots" in program.inputs and values.get("slots") is None:
        slots, place = make_slots(values["request_index"], num_requests)
        values["slots"], values["slot_of_row"] = slots, place


def _output(captured: Capture, results: tuple[Tensor, ...]) -> Output:
    output: Output = tree_unflatten(list(results), captured.outputs)
    return output
