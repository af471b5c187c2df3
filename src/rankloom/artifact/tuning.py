"""What a quantized artifact leaves to the machine it runs on: chosen by measuring."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor

from rankloom.artifact.int8_products import has_packed_products, with_packed_products
from rankloom.artifact.quantize import dequantized
from rankloom.hoist import Program, Programs
from rankloom.hoist.call import ours
from rankloom.ops.device import autocast_for, has_bf16_units, synchronize
from rankloom.schema import Rate

REPEATS = 5


@dataclass(frozen=True)
class Choice:
    """How one program runs here."""

    program: str
    """`user` or `candidate`."""
    chosen: str
    """The fastest way."""
    seconds: dict[str, float]
    """Way -> seconds of one run; empty where there was nothing to choose."""

    def __str__(self) -> str:
        times = ", ".join(f"{way} {1e3 * seconds:.2f} ms" for way, seconds in self.seconds.items())
        return f"{self.program} program: {self.chosen}" + (f" ({times})" if times else "")


class InBf16(Program):
    """A program whose products run in bf16.

    Args:
        program: Is shared.
        device: Where it runs.
    """

    def __init__(self, program: Program, device: torch.device) -> None:
        super().__init__(program.module, program.inputs, program.outputs)
        self._device = device

    def forward(self, values: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run on tensors by name; results are as wide as without."""
        with autocast_for("bf16", self._device):
            return tuple(result.float() for result in super().forward(values))


def candidate_in_bf16(programs: Programs, device: torch.device) -> Programs:
    """Let the candidate program run in bf16."""
    by_rate = {
        **programs.by_rate,
        Rate.CANDIDATE: InBf16(programs.by_rate[Rate.CANDIDATE], device),
    }
    return Programs(by_rate, InBf16(programs.one_request, device))


def ways_of_user_program(program: Program, device: torch.device) -> dict[str, Program]:
    """Give the ways in which a user program with weights in int8 can run on a device."""
    ways = {"float": dequantized(program)}
    if has_packed_products(device):
        ways["packed"] = with_packed_products(program)
    return ways


def has_int8_weights(program: Program | None) -> bool:
    """Whether a program, as it was read, dequantizes weights."""
    return program is not None and any(
        node.target is ours.dequantize.default for node in program.module.graph.nodes
    )


def tune(
    programs: Programs,
    inputs: Mapping[str, Tensor] | None,
    *,
    may_use_bf16: bool,
    device: torch.device,
) -> tuple[Programs, list[Choice]]:
    """Choose how the programs run.

    Args:
        programs: As they were read.
        inputs: Of one request to measure with; without, nothing is measured and fp32 is taken.
        may_use_bf16: Whether the artifact allows the candidate program to run in bf16.
        device: Where.

    Returns:
        Programs that can run, and what was chosen.
    """
    choices = []
    user = programs.by_rate.get(Rate.USER)
    if user is not None and has_int8_weights(user):
        ways = ways_of_user_program(user, device) if inputs else {"float": dequantized(user)}
        runs = {way: _run(program, inputs or {}) for way, program in ways.items()}
        choice = _choose("user", runs, device)
        choices.append(choice)
        programs = replace(programs, by_rate={**programs.by_rate, Rate.USER: ways[choice.chosen]})
    # Where bf16 is emulated there is nothing to measure: it is hundreds of times slower.
    if may_use_bf16 and inputs and has_bf16_units(device):
        both = {"fp32": programs, "bf16": candidate_in_bf16(programs, device)}
        with torch.inference_mode():
            state = programs.user_state(inputs)
            state |= programs.request_state(inputs, state)
        runs = {way: _results(one, inputs, state) for way, one in both.items()}
        choice = _choose("candidate", runs, device)
        choices.append(choice)
        programs = both[choice.chosen]
    return programs, choices


def _run(program: Program, inputs: Mapping[str, Tensor]) -> Callable[[], object]:
    return lambda: program(inputs)


def _results(
    programs: Programs, inputs: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> Callable[[], object]:
    return lambda: programs.results(inputs, state)


def _choose(program: str, runs: Mapping[str, Callable[[], object]], device: torch.device) -> Choice:
    if len(runs) == 1:
        return Choice(program, next(iter(runs)), {})
    seconds: dict[str, list[float]] = {way: [] for way in runs}
    with torch.inference_mode():
        for repeat in range(REPEATS + 1):
            for way, run in runs.items():
                start = time.perf_counter()
                run()
                synchronize(device)
                if repeat:
                    seconds[way].append(time.perf_counter() - start)
    found = {way: median(times) for way, times in seconds.items()}
    return Choice(program, min(found, key=found.__getitem__), found)
