"""Servers for load: the ways to serve that `serving_load` and `serving_overload` compare.

- `plain`: the network as it is written, a history encoded once a request, all else over flat rows;
  first come, first served, what would be late is refused (`benchmarks.plain_server`);
- `hoisted`: `rankloom serve` without a cache of users' states;
- `no_scheduler`: `rankloom serve`, first come, first served, nothing refused, given up or cut;
- `fifo`: as `no_scheduler`, but what would be late is refused;
- `all`: `rankloom serve` as it is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from tests.integration.small import environment, rankloom_command

from benchmarks.harness import ROOT
from benchmarks.serving_world import children_of, free_port
from rankloom.cli.main import ENVIRONMENT

START_S = 120.0
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
        process: Its supervisor.
        port: On the loopback.
    """

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._pids = children_of(process.pid)
        self.url = f"http://127.0.0.1:{port}"
        self._start_s, self._begun = time.monotonic(), self._cpu_s()

    def cpu_shares(self) -> Mapping[str, float]:
        """Give the cores that each process took on average since the server was ready."""
        elapsed_s = time.monotonic() - self._start_s
        return {name: (now - self._begun[name]) / elapsed_s for name, now in self._cpu_s().items()}

    def _cpu_s(self) -> dict[str, float]:
        ticks = os.sysconf("SC_CLK_TCK")
        found = {}
        for name, pid in self._pids.items():
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            found[name] = (int(fields[11]) + int(fields[12])) / ticks
        return found


@contextmanager
def server_of(artifact: Path, way: str, *, threads: int) -> Iterator[LoadedServer]:
    """Run a server of one front end, and end it whatever happens.

    Args:
        artifact: To serve.
        way: Of `WAYS`.
        threads: Of the compute process.
    """
    with tempfile.TemporaryDirectory(prefix="rankloom-load-") as made:
        folder, port = Path(made), free_port()
        config, log = folder / "server.yaml", folder / "server.log"
        config.write_text(yaml.safe_dump({"front_ends": 1, "threads": threads, **WAYS[way]}))
        command = (
            [sys.executable, "-m", "benchmarks.plain_server", artifact, config, str(port)]
            if way == "plain"
            else rankloom_command("serve", artifact, "--config", config, "--port", str(port))
        )
        with log.open("w") as output:
            process = subprocess.Popen(
                list(map(str, command)),
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment(**ENVIRONMENT),
                cwd=ROOT,
            )
        try:
            until_s = time.monotonic() + START_S
            while not re.search(r"^serving  http", log.read_text(), re.MULTILINE):
                if process.poll() is not None or time.monotonic() > until_s:
                    raise RuntimeError(f"no server: {log.read_text()}")
                time.sleep(0.05)
            yield LoadedServer(process, port)
        finally:
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
