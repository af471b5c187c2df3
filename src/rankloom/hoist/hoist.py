"""`hoist`: a network in, programs by rate out, equal to the network.

    hoisted = hoist(network, example)
    output = hoisted(inputs)              # the same logits
    state = hoisted.user_state(inputs)    # once a user

Shapes: R requests, B rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_unflatten

from rankloom.hoist.capture import Capture, capture, inputs_by_path
from rankloom.hoist.decisions import Decision, Options
from rankloom.hoist.program import (
    Program,
    Programs,
    StateTensor,
    count_requests,
    divide,
    for_one_request,
    whole_program,
    with_slots,
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
    programs: Programs
    """What is computed at each rate."""
    state: list[StateTensor]
    """What crosses between them."""
    border: list[str]
    """Nodes of the plain graph that are computed once for a user or request, and used for rows."""

    @property
    def tasks(self) -> list[str]:
        """The tasks in the order of the candidate program's results."""
        count = self.captured.outputs.num_leaves
        output: Output = tree_unflatten(list(range(count)), self.captured.outputs)
        by_place: dict[Any, str] = {place: task for task, place in output.logits.items()}
        return [by_place[place] for place in range(count)]

    def programs_for_one_request(self) -> dict[Rate, Program]:
        """Give the programs that score one request."""
        return {**self.programs.by_rate, Rate.CANDIDATE: self.programs.one_request}

    def user_state(self, inputs: Inputs) -> dict[str, Tensor]:
        """Compute what depends on the user alone, at R rows."""
        return self.programs.user_state(inputs_by_path(inputs))

    def request_state(self, inputs: Inputs, user_state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute what depends on user and request, at R rows."""
        return self.programs.request_state(inputs_by_path(inputs), user_state)

    def score(self, inputs: Inputs, state: dict[str, Tensor]) -> Output:
        """Score every row, given user and request state."""
        return _output(self.captured, self.programs.results(inputs_by_path(inputs), state))

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
        num_requests = count_requests(inputs.request_index)
        values = with_slots(self.program, inputs_by_path(inputs), num_requests)
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
    by_rate, state = divide(rewriter.graph, network)
    programs = Programs(by_rate, for_one_request(by_rate[Rate.CANDIDATE]))
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


def _output(captured: Capture, results: tuple[Tensor, ...]) -> Output:
    output: Output = tree_unflatten(list(results), captured.outputs)
    return output
