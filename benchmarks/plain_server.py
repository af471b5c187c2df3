"""A plain server: the same server around the network as it is written.

    python -m benchmarks.plain_server ARTIFACT CONFIG

A request's history is encoded once; all else is computed for every row, the user's columns repeated
beside each candidate. HTTP, decoding, deadlines and rejection are those of `rankloom serve`. The
weights are the run's that the artifact was made of, which stands beside it as `run`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rankloom.api import load_result
from rankloom.config import Config
from rankloom.data.columns import Block
from rankloom.data.tensors import to_batch
from rankloom.layers.protocols import Inputs, run_layers
from rankloom.models.network import Network
from rankloom.serving import compute, loaded
from rankloom.serving.config import load_serve_config
from rankloom.serving.engine import Engine, Prepared, Slice, UserState
from rankloom.serving.parts import Parts
from rankloom.serving.supervisor import Supervisor


class PlainEngine(Engine):
    """Scores whole requests with the network; it divides nothing by rate and keeps nothing."""

    network: Network

    @classmethod
    def load(cls, folder: Path, *, device: Literal["auto", "cpu", "cuda"] = "cpu") -> Engine:
        """Load the artifact's tables and the run's network."""
        cls.network = load_result(folder.parent / "run").model.network.eval()
        return super().load(folder, device=device)

    def user_state(self, parts: Parts) -> UserState:
        """Compute nothing ahead."""
        del parts
        return UserState({})

    def prepare(self, parts: Parts, state: UserState) -> Prepared:
        """Look up and encode all columns, and encode the history."""
        del state
        with torch.inference_mode():
            columns = {**parts.user, **parts.request}
            offsets = np.array([0, parts.num_rows])
            batch = to_batch(
                Block(requests=columns, rows=dict(parts.rows), row_offsets=offsets, num_requests=1)
            )
            inputs = self.ranker.embedder(batch).inputs
            return _Whole({}, {}, parts.num_rows, inputs, read_once(self.network, inputs))

    def logits(self, slices: Sequence[Slice]) -> list[dict[str, Tensor]]:
        """Score one whole request."""
        (one,) = slices
        assert isinstance(one.request, _Whole)
        assert (one.start, one.stop) == (0, one.request.num_rows)
        with torch.inference_mode():
            return [dict(flat_logits(self.network, one.request.inputs, one.request.read))]


@dataclass(frozen=True)
class _Whole(Prepared):
    """A request whose rows are not told apart from what they share."""

    inputs: Inputs
    read: Mapping[str, Tensor]
    """History -> what the network reads of it."""


def read_once(network: Network, inputs: Inputs) -> dict[str, Tensor]:
    """Encode and read one request's histories, which must need no candidate: name -> (1, D)."""
    read = {}
    for name, history in inputs.sequences.items():
        encoder: Any = network.encoders[f"history_{name}"]
        assert not encoder.reads_candidate
        state = encoder.encode(history.events, history.mask, history.times)
        read[name] = encoder.read(state, None, inputs).flatten(1)
    return read


def flat_logits(
    network: Network, inputs: Inputs, read: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """Score one request's rows, each with all that belongs to it: task -> (N,)."""
    num_rows = len(inputs.request_index)
    features = {
        name: value.expand(num_rows, *value.shape[1:])
        for name, value in {**inputs.features, **read}.items()
    }
    rows = inputs._replace(features=features, sequences={})
    logits: Mapping[str, Tensor] = network.head(
        run_layers(network.interaction, network.tokenization(rows)), rows
    )
    return logits


class PlainSupervisor(Supervisor):
    """A server's processes, the one that computes being this module."""

    def _start(
        self, module: str, settings: Config, descriptors: Sequence[int]
    ) -> subprocess.Popen[bytes]:
        ours = "benchmarks.plain_server" if module == compute.__name__ else module
        return super()._start(ours, settings, descriptors)


def main() -> None:
    """Supervise, or compute when the supervisor started this."""
    if sys.argv[1].isdigit():
        setattr(loaded, Engine.__name__, PlainEngine)
        compute.main()
        return
    artifact, config = sys.argv[1:]
    settings = load_serve_config(Path(config), ["port=0"])
    PlainSupervisor(Path(artifact), settings, report=lambda line: print(line, flush=True)).run()


if __name__ == "__main__":
    main()
