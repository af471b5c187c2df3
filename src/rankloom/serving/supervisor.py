"""The supervisor: starts one compute process and the front ends, and another for each that ends.

It owns the listening socket, so that connections wait while a front end is started anew. SIGTERM
and SIGINT end the server: front ends take no new requests and answer what they have, then the
compute process ends. SIGHUP lets the server look for another artifact and open its logs anew.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType

from rankloom.config import Config
from rankloom.errors import ConfigError, ServingError
from rankloom.serving.config import ComputeSettings, FrontSettings, ServeConfig
from rankloom.serving.folder import own_folder
from rankloom.serving.processes import child_command, ready_file
from rankloom.serving.telemetry.metrics import Metrics

logger = logging.getLogger("rankloom.serving")
READY_TIMEOUT_S = 600.0
"""For the compute process to load the artifact."""
LOOK_S = 0.05
SETTLED_S = 5.0
"""A child that lived so long is started anew at once; else after a wait, each twice as long."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0


@dataclass
class _Child:
    """One process, and how to start it."""

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes]
    began_s: float = field(default_factory=time.monotonic)
    wait_s: float = FIRST_WAIT_S
    restart_at_s: float | None = None

    def has_ended(self) -> bool:
        """Whether it has ended and is not going to be started yet."""
        return self.process.poll() is not None


class Supervisor:
    """A server's processes.

    Args:
        artifact: Folder, or a link to one.
        config: Of the server.
        report: Is told when the server is ready, and of processes that are started anew.
    """

    def __init__(
        self, artifact: Path, config: ServeConfig, *, report: Callable[[str], None]
    ) -> None:
        self._artifact, self._config, self._report = artifact, config, report
        self._ending: int | None = None
        self._wants_reload = False

    def run(self) -> None:
        """Serve until a signal ends it.

        Raises:
            ServingError: The server cannot begin; the reason was printed by the process at fault.
            ConfigError: The address cannot be listened at.
        """
        with own_folder() as self._folder:
            self._run()

    def _run(self) -> None:
        self._compute_socket = self._folder / "compute.socket"
        # Nothing is ever written to it: children see it end when this process does.
        reading, writing = os.pipe()
        self._parent_fd = reading
        before = [
            (number, signal.signal(number, handler))
            for number, handler in (
                (signal.SIGTERM, self._hear_end),
                (signal.SIGINT, self._hear_end),
                (signal.SIGHUP, self._hear_reload),
            )
        ]
        children: list[_Child] = []
        try:
            with _listening(self._config) as self._socket:
                self._metrics = Metrics(self._folder, process="supervisor")
                self._serve(children)
        finally:
            for child in children:
                child.process.kill()
                child.process.wait()
            for number, handler in before:
                signal.signal(number, handler)
            os.close(reading)
            os.close(writing)

    def _serve(self, children: list[_Child]) -> None:
        compute = self._begin(children, "compute", self._start_compute)
        self._await_socket(compute)
        for number in range(1, self._config.front_ends + 1):
            self._begin(children, f"front-{number}", partial(self._start_front, number))
        host, port = self._socket.getsockname()[:2]
        scheme = "https" if self._config.front.tls else "http"
        shown = f"[{host}]" if ":" in host else host
        self._await_answer(children)
        self._report(f"serving  {scheme}://{shown}:{port}")
        while self._ending is None:
            self._look_after(children)
            if self._wants_reload:
                self._wants_reload = False
                for child in children:
                    with contextlib.suppress(ProcessLookupError):
                        child.process.send_signal(signal.SIGHUP)
            time.sleep(LOOK_S)
        self._drain(children)

    def _begin(
        self, children: list[_Child], name: str, start: Callable[[], subprocess.Popen[bytes]]
    ) -> _Child:
        child = _Child(name, start, start())
        children.append(child)
        return child

    def _start_compute(self) -> subprocess.Popen[bytes]:
        config = self._config
        settings = ComputeSettings(
            artifact=str(self._artifact.absolute()),
            name=config.name,
            socket=str(self._compute_socket),
            metrics=str(self._folder),
            device=config.device,
            threads=config.threads,
            cache_bytes=config.cache_bytes,
            scheduling=config.scheduling,
        )
        with contextlib.suppress(FileNotFoundError):
            self._compute_socket.unlink()
        return self._start("rankloom.serving.compute", settings, ())

    def _start_front(self, number: int) -> subprocess.Popen[bytes]:
        config = self._config
        settings = FrontSettings(
            number=number,
            listening=self._socket.fileno(),
            compute=str(self._compute_socket),
            metrics=str(self._folder),
            front=config.front,
            drain_s=config.drain_s,
            page=config.page,
            store=config.store,
            access_log=config.access_log,
            request_log=config.request_log,
        )
        with contextlib.suppress(FileNotFoundError):
            ready_file(self._folder, number).unlink()
        return self._start("rankloom.serving.front_process", settings, (self._socket.fileno(),))

    def _start(
        self, module: str, settings: Config, descriptors: Sequence[int]
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 (our own modules)
            child_command(module, settings, self._parent_fd),
            pass_fds=(self._parent_fd, *descriptors),
            # A terminal's Ctrl-C is for this process; it tells the others in order.
            start_new_session=True,
        )

    def _await_socket(self, compute: _Child) -> None:
        """Wait until the compute process listens."""
        until_s = time.monotonic() + READY_TIMEOUT_S
        while not self._compute_socket.exists():
            if compute.has_ended():
                raise ServingError(f"{self._artifact}: cannot be served; the reason stands above.")
            if time.monotonic() > until_s or self._ending is not None:
                raise ServingError(f"{self._artifact}: was not loaded. Try again.")
            time.sleep(LOOK_S)

    def _await_answer(self, children: list[_Child]) -> None:
        """Wait until each front end can answer."""
        until_s = time.monotonic() + READY_TIMEOUT_S
        waiting = set(range(1, self._config.front_ends + 1))
        while waiting:
            waiting = {one for one in waiting if not ready_file(self._folder, one).exists()}
            if any(child.has_ended() for child in children):
                raise ServingError("server: a process ended at once; the reason stands above.")
            if time.monotonic() > until_s or self._ending is not None:
                raise ServingError("server: front ends did not begin. Try again.")
            time.sleep(LOOK_S)

    def _look_after(self, children: list[_Child]) -> None:
        """Start anew what has ended."""
        now = time.monotonic()
        for child in children:
            if child.restart_at_s is None:
                if not child.has_ended():
                    continue
                if now - child.began_s > SETTLED_S:
                    child.wait_s = FIRST_WAIT_S
                code = child.process.returncode
                self._report(f"{child.name} ended (code {code}) and is started anew")
                self._metrics.restart(child.name)
                child.restart_at_s = now + child.wait_s
                child.wait_s = min(2 * child.wait_s, LONGEST_WAIT_S)
            if now >= child.restart_at_s:
                child.process, child.began_s = child.start(), now
                child.restart_at_s = None

    def _drain(self, children: list[_Child]) -> None:
        """End front ends, then the compute process, each once it has answered what it has."""
        self._report("ending: requests under way are answered first")
        # Else connections would still queue where nobody is going to take them.
        self._socket.close()
        until_s = time.monotonic() + self._config.drain_s + 5.0
        fronts = [child for child in children if child.name != "compute"]
        for group in (fronts, children):
            for child in group:
                if not child.has_ended():
                    child.process.terminate()
            for child in group:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(max(until_s - time.monotonic(), 0.1))

    def _hear_end(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._ending = number

    def _hear_reload(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._wants_reload = True


@contextlib.contextmanager
def _listening(config: ServeConfig) -> Iterator[socket.socket]:
    """Bind the address.

    Raises:
        ConfigError: It cannot be.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((config.host, config.port))
            bound.listen(config.front.backlog)
        except OSError as error:
            raise ConfigError(
                f"port: cannot listen at {config.host} port {config.port}. Got: {error.strerror}. "
                "Give another with --port, or end what listens there."
            ) from None
        bound.setblocking(False)
        yield bound
