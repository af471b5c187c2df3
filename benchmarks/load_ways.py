"""Servers for load: the ways to serve that `serving_load` and `serving_overload` compare.

- `plain`: the network as it is written, a history encoded once a request, all else over flat rows;
  first come, first served, what would be late is refused (`benchmarks.plain_server`);
- `hoisted`: `rankloom serve` without a cache of users' states;
- `no_scheduler`: `rankloom serve`, first come, first served, nothing refused, given up or cut;
- `fifo`: as `no_scheduler`, but what would be late is refused;
- `all`: `rankloom serve` as it is.

All keep so much time free before a deadline as an answer needs to be back at the client here.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from tests.integration.served import Server, running
from tests.integration.small import rankloom_command

from benchmarks.harness import ROOT
from benchmarks.open_loop import ask_open_loop
from rankloom.cli.main import ENVIRONMENT

ANSWER_MS = 2.5
"""From the end of the work until the client has it, on a machine that clients and server share."""
RESTING_S = 0.03
"""Processor time that all servers may take in a quarter of a second without being asked."""
_SIMPLE = {"order": "fifo", "batching": False, "max_micro_batch_ms": None, "booking": False}
WAYS: dict[str, dict[str, Any]] = {
    "plain": {"cache_bytes": 0, "scheduling": _SIMPLE},
    "hoisted": {"cache_bytes": 0},
    "no_scheduler": {"scheduling": {**_SIMPLE, "admission": "none", "drop": "never"}},
    "fifo": {"scheduling": _SIMPLE},
    "all": {},
}


class LoadedServer:
    """A server that runs.

    Args:
        server: Where it serves, and its supervisor.
    """

    def __init__(self, server: Server) -> None:
        self._pids = server.children()
        self.url = server.url

    def cpu_s(self) -> dict[str, float]:
        """Give the processor seconds that each process took so far."""
        ticks = os.sysconf("SC_CLK_TCK")
        found = {}
        for name, pid in self._pids.items():
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            found[name] = (int(fields[11]) + int(fields[12])) / ticks
        return found


class Variant(NamedTuple):
    """A way to serve, and how many requests find their user's state."""

    way: str
    hit_share: float

    @property
    def name(self) -> str:
        """Name it; the share is said where it matters."""
        keeps_states = WAYS[self.way].get("cache_bytes") != 0
        return f"{self.way} {self.hit_share:.0%} hits" if keeps_states else self.way


def compare_under_load(
    artifact: Path,
    variants: Sequence[Variant],
    plan: Mapping[str, Any],
    *,
    rates: Callable[[Mapping[str, Mapping[str, Any]]], Sequence[float]],
    threads: int,
) -> dict[str, Any]:
    """Ask all variants at one rate after the other, taking turns at each.

    All servers are there all the time, and at any moment one of them is asked: so a machine that is
    slower for some minutes is so for all of them. None is asked while another still computes.

    Args:
        artifact: To serve.
        variants: What is compared.
        plan: As `open_loop.Asker` takes it, with `warm_up` and `seconds`, without `hit_share`.
        rates: Gives the rates, from what was found of each variant without load.
        threads: Of each compute process.

    Returns:
        Variant -> `unloaded`, and of all `rates` what was found and cores that processes took.
    """
    with ExitStack() as stack:
        servers = {
            one: stack.enter_context(server_of(artifact, one.way, threads=threads))
            for one in variants
        }
        found: dict[str, Any] = {}
        for one, server in servers.items():
            unloaded = ask_open_loop(server.url, {**plan, "hit_share": one.hit_share})
            found[one.name] = {"unloaded": unloaded, "rates": []}
        for rate in rates({name: one["unloaded"] for name, one in found.items()}):
            loaded = {**plan, "rate": rate, "warm_up": 5}
            for one, server in servers.items():
                _rest(servers.values())
                before = server.cpu_s()
                at = ask_open_loop(server.url, {**loaded, "hit_share": one.hit_share})
                took = {name: after - before[name] for name, after in server.cpu_s().items()}
                cpu_shares = {name: cpu_s / plan["seconds"] for name, cpu_s in took.items()}
                found[one.name]["rates"] += [
                    {"offered_per_s": rate, **at, "cpu_shares": cpu_shares}
                ]
    return found


def _rest(servers: Iterable[LoadedServer]) -> None:
    """Wait until all servers have done what they were asked: one that refuses nothing goes on."""
    servers = list(servers)
    took_s = math.inf
    while took_s > RESTING_S:
        before_s = sum(sum(one.cpu_s().values()) for one in servers)
        time.sleep(0.25)
        took_s = sum(sum(one.cpu_s().values()) for one in servers) - before_s


@contextmanager
def server_of(artifact: Path, way: str, *, threads: int) -> Iterator[LoadedServer]:
    """Run a server of one front end, and end it whatever happens.

    Args:
        artifact: To serve.
        way: Of `WAYS`.
        threads: Of the compute process.
    """
    with tempfile.TemporaryDirectory(prefix="rankloom-load-") as made:
        config = Path(made, "server.yaml")
        scheduling = {"answer_ms": ANSWER_MS, **WAYS[way].get("scheduling", {})}
        values = {**WAYS[way], "front_ends": 1, "threads": threads, "scheduling": scheduling}
        config.write_text(yaml.safe_dump(values))
        command = (
            [sys.executable, "-m", "benchmarks.plain_server", str(artifact), str(config)]
            if way == "plain"
            else rankloom_command("serve", artifact, "--config", config, "--port", "0")
        )
        # The plain server is a module of this repository.
        places = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with running(command, Path(made), PYTHONPATH=places, **ENVIRONMENT) as one:
            yield LoadedServer(one)
