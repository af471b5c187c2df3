"""A real server of a small artifact with all it can have: two front ends, Redis, both logs.

    with serving_world(folder) as world:
        world.server.rank(world.requests[0])

`world_requests` says what well-behaved clients ask and what the right answers are: the golden
requests, and of each what is scored for a user of whom nothing but the id is known.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import yaml
from tests.integration.served import (
    MODELS,
    Server,
    children_of,
    golden_requests,
    settings_of,
)
from tests.integration.small import environment, rankloom_command, small_values, write_small_log
from tests.unit.serving.store_world import RedisServer, running_redis

from rankloom.serving.store.config import StoreConfig
from rankloom.serving.store.user_writer import UserWriter

HISTORY = ("history_item_id", "history_rating", "history_time")
LIMITS_S = {"head_s": 2.0, "body_s": 2.0, "answer_s": 2.0}
CACHE_BYTES = 1 << 20
START_S = 180.0


def make_artifact(folder: Path) -> Path:
    """Train, export and note right answers, unless that was done; gives the artifact's folder."""
    done = folder / "requests.json"
    if not done.exists():
        from rankloom.api import export, load_run, train
        from rankloom.artifact.ranker import load

        values = small_values(write_small_log(folder / "log"))
        schema = values["schema"]
        # A user of whom Redis says nothing is scored all the same.
        schema = {**schema, "age": {**schema["age"], "default": 30.0}}
        training = {**values["training"], "epochs": 1}
        values |= {"schema": schema, "model": MODELS["separated"], "training": training}
        result = train(load_run(values), folder / "run", printer=lambda _: None)
        artifact = export(result, folder / "artifact").folder
        ranker = load(artifact)
        # Of each user one: Redis knows one history of a user.
        requests = list({one["user"]["user_id"]: one for one in golden_requests(artifact)}.values())
        for one in requests:
            unknown = {**dict.fromkeys(one["user"]), "user_id": one["user"]["user_id"]}
            unknown["history_first_event"] = 0
            scores = ranker.score(unknown, one["candidates"], one["context"])
            one["default_scores"] = {task: found.tolist() for task, found in scores.items()}
        done.write_text(json.dumps(requests))
    return folder / "artifact"


def server_config(folder: Path, redis: RedisServer) -> dict[str, Any]:
    """Give the server's config: short times, a small cache, logs of every request."""
    return {
        "front_ends": 2,
        "threads": 1,
        "cache_bytes": CACHE_BYTES,
        "drain_s": 10.0,
        "front": {"times": LIMITS_S},
        "store": {
            "redis": redis.url,
            "timeout_ms": 100.0,
            "probe_every_s": 0.1,
            "probe_at_most_s": 0.4,
        },
        "access_log": {"path": str(folder / "access.jsonl")},
        "request_log": {
            "folder": str(folder / "requests"),
            "sample_rate": 1.0,
            "max_age_s": 0.5,
            "total_bytes": 4 << 20,
        },
    }


@dataclass
class World:
    """What faults are done to."""

    folder: Path
    artifact: Path
    server: Server
    redis: RedisServer
    requests: Sequence[dict[str, Any]]
    """Golden ones, with `scores` and `default_scores`."""

    def children(self) -> dict[str, int]:
        """Give the server's processes: `compute`, `front-1`, `front-2` -> process id."""
        return self.server.children()

    def fronts(self) -> dict[str, int]:
        """Give the front ends."""
        return {name: pid for name, pid in self.children().items() if name != "compute"}

    def metric(self, name: str, **labels: str) -> float:
        """Read a metric, summed over the labels that are not named."""
        status, text = self.server.ask("GET", "/metrics")
        assert status == 200, text
        total = 0.0
        for line in text.splitlines():
            series, _, value = line.rpartition(" ")
            found, _, given = series.partition("{")
            if found == name and all(f'{k}="{v}"' in given for k, v in labels.items()):
                total += float(value)
        return total

    def write_users(self) -> None:
        """Put the golden requests' users into Redis."""
        with UserWriter(StoreConfig(redis=self.redis.url)) as writer:
            for one in self.requests:
                user = dict(one["user"])
                name = user.pop("user_id")
                del user["history_first_event"]
                history = {column: user.pop(column) for column in HISTORY}
                writer.put(name, user)
                with self.redis.client() as client:
                    client.delete(*(f"rankloom:user:{name}:{column}" for column in HISTORY))
                writer.append_events(name, history)

    def wait_until_anew(self, name: str, before: int, timeout_s: float = 120.0) -> None:
        """Wait until a front end is there again and can answer.

        Args:
            name: Such as `front-1`.
            before: Process id of the one that was killed.
            timeout_s: Longest wait.
        """
        until_s = time.monotonic() + timeout_s
        while (pid := self.fronts().get(name, before)) == before or not _is_ready(pid, name):
            assert time.monotonic() < until_s, self.server.log.read_text()
            time.sleep(0.01)


@contextmanager
def serving_world(folder: Path, artifact: Path, *, output: Path | None = None) -> Iterator[World]:
    """Start Redis and the server, and end both whatever happens.

    Args:
        folder: For logs; of this server alone.
        artifact: As `make_artifact` gives it.
        output: Where the server's own output goes; else to a file of the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    requests = json.loads((artifact.parent / "requests.json").read_text())
    log = folder / "server.log"
    with running_redis(folder) as redis:
        config = folder / "server.yaml"
        config.write_text(yaml.safe_dump(server_config(folder, redis)))
        port = free_port()
        with log.open("w") as file, (output or log).open("w") as heard:
            process = subprocess.Popen(
                rankloom_command("serve", artifact, "--config", config, "--port", str(port)),
                stdout=heard,
                stderr=heard,
                text=True,
                env=environment(),
                cwd=folder,
            )
            file.flush()
        try:
            world = World(folder, artifact, Server(process, port, log), redis, requests)
            world.write_users()
            until_s = time.monotonic() + START_S
            while not _answers(world.server):
                if process.poll() is not None or time.monotonic() > until_s:
                    raise RuntimeError(f"no server: {log.read_text()}")
                time.sleep(0.1)
            yield world
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def free_port() -> int:
    """Give a port of the loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_ready(pid: int, name: str) -> bool:
    settings = settings_of(pid)
    return settings is not None and Path(settings["metrics"], f"{name}.ready").exists()


def _answers(server: Server) -> bool:
    try:
        return server.ask("GET", "/health/ready")[0] == 200
    except OSError:
        return False


class Sample(NamedTuple):
    """What one process held at one moment."""

    time_s: float
    name: str
    pid: int
    num_bytes: int


@dataclass
class Memory:
    """Resident memory of all the server's processes, several times a second."""

    world: World
    interval_s: float = 0.25
    samples: list[Sample] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def growth_mb(self, base: tuple[float, float], end: tuple[float, float]) -> dict[str, float]:
        """Give what processes that lived all the time hold more: median over median, in MiB.

        Args:
            base: From when until when, on the monotonic clock.
            end: Likewise.
        """
        grown = {}
        for pid in {one.pid for one in self.samples}:
            mine = [one for one in self.samples if one.pid == pid]
            if mine[0].time_s > base[0]:
                continue  # It is still being loaded.
            before, after = (
                [one.num_bytes for one in mine if span[0] <= one.time_s <= span[1]]
                for span in (base, end)
            )
            if before and after:
                more = statistics.median(after) - statistics.median(before)
                grown[mine[0].name] = more / (1 << 20)
        return grown

    def largest_mb(self) -> Mapping[str, float]:
        """Give the most that each process held."""
        most: dict[str, float] = {}
        for one in self.samples:
            most[one.name] = max(most.get(one.name, 0.0), one.num_bytes / (1 << 20))
        return most

    def _run(self) -> None:
        supervisor = self.world.server.process.pid
        while not self._is_over.wait(self.interval_s):
            now = time.monotonic()
            for name, pid in {"supervisor": supervisor, **children_of(supervisor)}.items():
                try:
                    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                except (OSError, IndexError):
                    continue
                self.samples.append(Sample(now, name, pid, pages * os.sysconf("SC_PAGE_SIZE")))
