"""An artifact at work in the compute process: a user's state once, candidates in any pieces.

A user's state is always computed alone (R = 1), so that one kept is to the bit the one that would
be computed. Candidates of several requests may share a run of the candidate program, and those of
one request may be divided over several; both change the last bits of a score, as the order of sums
in a matrix product depends on its size.

Shapes: R requests, B rows, N candidates.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rankloom.artifact.fit import rate_of_input
from rankloom.artifact.golden import GoldenRequest, read_golden
from rankloom.artifact.ranker import Ranker, load
from rankloom.data.batch import Batch, join_batches
from rankloom.data.columns import Block, Column, Key, Plain
from rankloom.data.tensors import to_batch
from rankloom.hoist.capture import CROSSINGS
from rankloom.schema import Rate
from rankloom.serving.parts import Parts, take_apart
from rankloom.serving.scheduling.work import Timing

Tensors = Mapping[str, Tensor]
_DEFAULT_MULTIPLE = 8
MEASURED_SIZES = (8, 64, 512)
"""Candidates of requests that are timed when an artifact is loaded."""
MEASURED_TURNS, MEASURED_S = 4, 2.0
"""How often, and in how much time, whichever is over first."""


@dataclass(frozen=True)
class UserState:
    """What depends on a user alone."""

    values: Tensors
    """Name -> tensor of one request: what the user program made, and the user's inputs that later
    programs read themselves."""

    @cached_property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(one.numel() * one.element_size() for one in self.values.values())


@dataclass(frozen=True)
class Prepared:
    """A request that its candidates can be scored of."""

    shared: Tensors
    """Name -> tensor of one request: user state, request state and inputs."""
    rows: Tensors
    """Path of an input -> (N, ...)."""
    num_rows: int
    """N."""


class Slice(NamedTuple):
    """Some of a request's candidates."""

    request: Prepared
    start: int
    stop: int


class Engine:
    """A loaded artifact, used by one thread.

    Args:
        ranker: The artifact.
        request_dims: State tensor -> the dimension that counts requests; none where there is none.
            Without that of each, requests never share a run.
        examples: Requests with values of the training log's types; at least one.
    """

    def __init__(
        self,
        ranker: Ranker,
        request_dims: Mapping[str, int | None],
        examples: Sequence[GoldenRequest],
    ) -> None:
        self.ranker, self.examples = ranker, tuple(examples)
        self.timings: tuple[Timing, ...] = ()
        """What work takes here, measured when it was loaded."""
        self.schema = ranker.schema
        self._request_dims = dict(request_dims)
        programs = ranker.programs
        later = [
            programs.by_rate.get(Rate.REQUEST),
            programs.by_rate[Rate.CANDIDATE],
            programs.one_request,
        ]
        layout = ranker.embedder.layout()
        self._carried = {
            name
            for program in later
            if program is not None
            for name in program.inputs
            if rate_of_input(name, layout) == Rate.USER
        }
        self.is_batchable = all(dim is not None for dim in self._request_dims.values())
        self.is_divisible = ranker.manifest.candidates == "independent"

    @classmethod
    def load(cls, folder: Path, *, device: Literal["auto", "cpu", "cuda"] = "cpu") -> Engine:
        """Load an artifact whose files were verified, and score its golden requests once.

        Raises:
            ArtifactError: It is damaged, or of another format.
        """
        ranker = load(folder, device=device, check=False)
        golden = read_golden(folder)
        batch = golden[0][0].batch(ranker)
        with torch.inference_mode():
            one, two = (_state(ranker, join_batches([batch] * count)) for count in (1, 2))
        dims = {}
        for name, value in one.items():
            longer = [d for d, size in enumerate(two[name].shape) if size == 2 * value.shape[d]]
            dims[name] = longer[0] if len(longer) == 1 and value.shape[longer[0]] == 1 else None
        engine = cls(ranker, dims, [request for request, _ in golden])
        # What is slow the first time is done before anybody waits for it.
        for request in engine.examples:
            engine.time(request)
        engine.timings = tuple(engine.measure())
        return engine

    def measure(self) -> list[Timing]:
        """Time requests of several sizes, made of the longest example's candidates."""
        example = max(self.examples, key=lambda one: one.num_candidates)
        requests = [example.of_size(size) for size in MEASURED_SIZES]
        timings: list[Timing] = []
        # In turns, so that a disturbance does not look like the cost of one size.
        for _ in range(MEASURED_TURNS):
            for one in requests:
                timings += self.time(one)
            if sum(one.seconds for one in timings) > MEASURED_S:
                break
        return timings

    def time(self, request: GoldenRequest) -> list[Timing]:
        """Score a request, and give what its user's state and its candidates took."""
        decoded = self.ranker.decoder.decode_block(
            request.user, request.candidates, request.context
        )
        parts = take_apart(decoded, self.schema)
        began_s = time.monotonic()
        state = self.user_state(parts)
        between_s = time.monotonic()
        prepared = self.prepare(parts, state)
        self.logits([Slice(prepared, 0, prepared.num_rows)])
        ended_s = time.monotonic()
        return [
            Timing(parts.num_events, 0, between_s - began_s),
            Timing(parts.num_events, parts.num_rows, ended_s - between_s),
        ]

    @property
    def digest(self) -> str:
        """The artifact's identity."""
        return self.ranker.digest

    def group_of(self, parts: Parts) -> Hashable:
        """Give what must be equal for two requests to share a run: lengths as they are padded."""
        multiples = self.ranker.embedder.length_multiple
        return tuple(
            -(-int(history.offsets[-1]) // multiples.get(name, _DEFAULT_MULTIPLE))
            for name, history in parts.histories().items()
        )

    def user_state(self, parts: Parts) -> UserState:
        """Compute what depends on a request's user alone."""
        with torch.inference_mode():
            inputs = self._inputs(parts.user, 1)
            made = self.ranker.programs.user_state(inputs)
            carried = {name: inputs[name] for name in self._carried}
        return UserState({name: _compact(one) for name, one in {**carried, **made}.items()})

    def prepare(self, parts: Parts, state: UserState) -> Prepared:
        """Look up and encode a request's candidates, and compute what depends on the request."""
        with torch.inference_mode():
            inputs = self._inputs(parts.request, 1)
            for (kind, name), column in parts.request.items():
                if kind == "age_newest" and isinstance(column, Plain):
                    age = torch.from_numpy(np.array(column.values)).to(self.ranker.device)
                    inputs[f"sequences/{name}/times/age_newest"] = age
            shared = {**state.values, **inputs}
            shared |= self.ranker.programs.request_state(shared, {})
            rows = self._inputs(parts.rows, parts.num_rows)
        return Prepared(shared, rows, parts.num_rows)

    def logits(self, slices: Sequence[Slice]) -> list[dict[str, Tensor]]:
        """Score some candidates of one or several requests in one run.

        Args:
            slices: Of different requests, of one group if there are several.

        Returns:
            For each slice: task -> (stop - start,) raw outputs.
        """
        counts = [one.stop - one.start for one in slices]
        with torch.inference_mode():
            rows = {
                name: _joined([one.request.rows[name][one.start : one.stop] for one in slices], 0)
                for name in slices[0].request.rows
            }
            shared = {
                name: _joined(
                    [one.request.shared[name] for one in slices], self._request_dims.get(name) or 0
                )
                for name in slices[0].request.shared
            }
            index = np.repeat(np.arange(len(slices)), counts)
            rows["request_index"] = torch.from_numpy(index).to(self.ranker.device)
            found = self.ranker.programs.results(rows, shared)
            tasks = self.ranker.manifest.outputs
            parts = [one.split(counts) for one in found]
        return [dict(zip(tasks, each, strict=True)) for each in zip(*parts, strict=True)]

    def scores(self, logits: Sequence[Tensors]) -> dict[str, npt.NDArray[np.float64]]:
        """Give a request's scores, task -> (N,), from the raw outputs of all its slices."""
        tasks = self.ranker.manifest.outputs
        whole = {task: _joined([one[task] for one in logits], 0) for task in tasks}
        return {task: one.numpy() for task, one in self.ranker.predictions(whole).items()}

    def _inputs(self, columns: Mapping[Key, Column], count: int) -> dict[str, Tensor]:
        """Look up and encode some columns, each of so many entries."""
        block = Block(requests=dict(columns), rows={}, row_offsets=None, num_requests=count)
        inputs = self.ranker.inputs(to_batch(block))
        return {name: value for name, value in inputs.items() if name not in CROSSINGS}


def _state(ranker: Ranker, batch: Batch) -> dict[str, Tensor]:
    """Compute user and request state of a batch."""
    inputs = ranker.inputs(batch)
    user = ranker.programs.user_state(inputs)
    return {**user, **ranker.programs.request_state(inputs, user)}


def _compact(value: Tensor) -> Tensor:
    """Give a tensor that keeps no more memory than its own: a view would keep all it is part of."""
    is_part = value.untyped_storage().nbytes() > value.numel() * value.element_size()
    return value.clone() if is_part else value


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
