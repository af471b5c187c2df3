"""Small artifacts, and servers of them as real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.integration.small import environment, rankloom_command, small_train, small_values

from rankloom.api import export

MODELS: dict[str, dict[str, Any]] = {
    "din": {
        "embedding": {"embedding_dim": 4},
        "sequence": {"history": {"kind": "din", "hidden_dims": [6]}},
        "interaction": {"kind": "mlp", "hidden_dims": [8]},
        "head": {"kind": "shared_bottom", "hidden_dims": [4]},
    },
    "separated": {
        "embedding": {"embedding_dim": 8},
        "tokenization": {"kind": "per_feature", "token_dim": 12},
        "interaction": {
            "kind": "rankmixer",
            "num_layers": 2,
            "separation": {"user_tokens": 3, "rate": "request"},
        },
        "head": {"kind": "shared_bottom", "hidden_dims": [4]},
    },
}


def export_small(name: str, log: Path, folder: Path) -> Path:
    """Train one of `MODELS` on the small log and export it."""
    values = small_values(log)
    # DIN compares an event with the candidate, so that both need the same columns.
    history = values["schema"]["history"] | {"columns": {"item_id": {"table": "item"}}}
    values["schema"] = values["schema"] | {"history": history}
    values |= {"model": MODELS[name], "training": values["training"] | {"epochs": 1}}
    result, _ = small_train(values, folder / "run")
    return export(result, folder / "artifact").folder


def golden_requests(artifact: Path) -> list[dict[str, Any]]:
    """Give an artifact's golden requests: user, context, candidates and the plain scores."""
    requests: list[dict[str, Any]] = json.loads((artifact / "golden.json").read_text())["requests"]
    return requests


class Server:
    """A server that runs."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log
        self.url = f"http://127.0.0.1:{port}"

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Ask on a new connection: status, and JSON or text."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            sent = None if body is None else json.dumps(body).encode()
            kind = {"Content-Type": "application/json"} if sent else {}
            connection.request(method, path, sent, {**kind, **(headers or {})})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        is_json = "json" in answer.getheader("content-type", "")
        return answer.status, json.loads(content) if is_json else content.decode()

    def rank(self, request: Mapping[str, Any], **members: Any) -> tuple[int, Any]:
        """Rank a golden request by JSON, with time enough for a busy machine."""
        given = {name: request[name] for name in ("user", "context", "candidates")}
        return self.ask("POST", "/v1/rank", {"deadline_ms": 20_000, **given, **members})

    def children(self) -> dict[str, int]:
        """Give the server's processes: `compute`, `front-1`, `front-2` -> process id."""
        return children_of(self.process.pid)

    def wait_until_ready(self, *, digest: str | None = None, timeout_s: float = 120.0) -> None:
        """Wait until it answers, or until it serves an artifact."""
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s:
            try:
                status, found = self.ask("GET", "/health/ready")
                if status == 200 and digest in {None, found["digest"]}:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise TimeoutError(self.log.read_text())

    def wait_for_line(self, pattern: str, *, timeout_s: float = 120.0) -> None:
        """Wait until it has printed something."""
        until_s = time.monotonic() + timeout_s
        while not re.search(pattern, self.log.read_text()):
            if time.monotonic() > until_s:
                raise TimeoutError(f"{pattern} is not in:\n{self.log.read_text()}")
            time.sleep(0.05)

    def stop(self) -> int:
        """Let it end, and give the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def server(artifact: Path, folder: Path, *options: str) -> Iterator[Server]:
    """Run `rankloom serve` on a free port, and end it whatever happens."""
    with running(rankloom_command("serve", artifact, "--port", "0", *options), folder) as one:
        yield one


@contextmanager
def running(command: Sequence[str], folder: Path, **variables: str) -> Iterator[Server]:
    """Run a command that serves, from when it says so, and end it whatever happens.

    Args:
        command: Such as `rankloom serve`.
        folder: For its output, as `server.log`; made if it is not there.
        **variables: Of its environment, beside those of all tests.
    """
    log = folder / "server.log"
    folder.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(**variables),
            cwd=folder,
        )
    try:
        until_s = time.monotonic() + 180
        while not (found := re.search(r"serving  http://127.0.0.1:(\d+)", log.read_text())):
            if process.poll() is not None or time.monotonic() > until_s:
                raise RuntimeError(f"no server: {log.read_text()}")
            time.sleep(0.05)
        yield Server(process, int(found[1]), log)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def is_running(pid: int) -> bool:
    """Tell whether a process is there, and no zombie."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def children_of(pid: int) -> dict[str, int]:
    """Give a supervisor's processes by name."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        if parent == pid and (settings := settings_of(int(entry.name))) is not None:
            number = settings.get("number")
            found["compute" if number is None else f"front-{number}"] = int(entry.name)
    return found


def settings_of(pid: int) -> dict[str, Any] | None:
    """Read what the supervisor told a child; none of a process that is none, or ends."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return None
    told = [word for word in words if word.startswith("{")]
    return json.loads(told[0]) if "-m" in words and told else None
