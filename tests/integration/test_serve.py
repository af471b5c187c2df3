"""`rankloom serve` as real processes: what it answers, and that it outlives what happens to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from tests.integration.served import (
    MODELS,
    Server,
    export_small,
    golden_requests,
    is_running,
    server,
)
from tests.integration.small import run_rankloom, write_small_log

from rankloom.artifact.ranker import load


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    log = write_small_log(tmp_path_factory.mktemp("server_log") / "log")
    return {name: export_small(name, log, tmp_path_factory.mktemp(name)) for name in MODELS}


@pytest.fixture(scope="module")
def running(
    artifacts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server of two front ends that ends with the module; tests leave it as it was."""
    with server(artifacts["separated"], tmp_path_factory.mktemp("server")) as one:
        yield one
        assert one.stop() == 0


class Load:
    """Threads that rank the same requests over and over, and note every answer."""

    def __init__(self, rank: Callable[[], tuple[int, Any]], num_threads: int = 3) -> None:
        self.statuses: list[int] = []
        self.errors: list[str] = []
        self._rank, self._is_over = rank, threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(num_threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int = 10) -> None:
        """Wait until some more requests were answered."""
        until, end_s = len(self.statuses) + count, time.monotonic() + 60
        while len(self.statuses) < until:
            assert time.monotonic() < end_s, self.errors
            time.sleep(0.01)

    def _run(self) -> None:
        while not self._is_over.is_set():
            try:
                status, _ = self._rank()
            except OSError as error:
                self.errors.append(repr(error))
                time.sleep(0.01)
            else:
                self.statuses.append(status)


def test_golden_requests_are_scored_as_offline(artifacts: dict[str, Path], running: Server) -> None:
    ranker = load(artifacts["separated"])
    for request in golden_requests(artifacts["separated"]):
        status, found = running.rank(request, top_k=3, id="r1")
        assert (status, found["id"], found["digest"]) == (200, "r1", ranker.digest)
        offline = ranker.score(request["user"], request["candidates"], request["context"])
        for task, expected in offline.items():
            np.testing.assert_allclose(found["scores"][task], expected, atol=1e-6)
        best = np.argsort(-np.array(found["blended"]), kind="stable")[:3]
        assert found["order"] == best.tolist()


def test_a_wrong_request_is_told_all_that_is_wrong(
    artifacts: dict[str, Path], running: Server
) -> None:
    request = golden_requests(artifacts["separated"])[0]
    broken = {**request, "user": {**request["user"], "age": "old"}, "context": {}}
    status, found = running.rank(broken)
    assert (status, found["code"]) == (400, "invalid_request")
    assert any("'age'" in line for line in found["problems"])
    assert any("'hour'" in line for line in found["problems"])


def test_metrics_are_of_all_processes(artifacts: dict[str, Path], running: Server) -> None:
    status, _ = running.rank(golden_requests(artifacts["separated"])[0])
    assert status == 200
    status, text = running.ask("GET", "/metrics")
    assert status == 200
    assert 'rankloom_request_seconds_count{interface="json",status="200"}' in text
    assert 'stage="candidates"' in text  # timed by the compute process
    assert "rankloom_batch_candidates_count" in text


def test_a_killed_front_end_is_started_anew(artifacts: dict[str, Path], running: Server) -> None:
    request = golden_requests(artifacts["separated"])[0]
    victim = running.children()["front-1"]
    with Load(lambda: running.rank(request)) as load:
        load.wait_for_more()
        os.kill(victim, signal.SIGKILL)
        running.wait_for_line("front-. ended")
        load.wait_for_more(20)
    assert set(load.statuses) == {200}
    # Only connections to the one that was killed break.
    assert len(load.errors) <= 10
    assert running.process.poll() is None


def test_a_killed_compute_process_is_started_anew(
    artifacts: dict[str, Path], running: Server
) -> None:
    request = golden_requests(artifacts["separated"])[0]
    with Load(lambda: running.rank(request)) as load:
        load.wait_for_more()
        os.kill(running.children()["compute"], signal.SIGKILL)
        running.wait_for_line("compute ended")
        while 200 in load.statuses[-3:]:
            time.sleep(0.001)
        running.wait_until_ready()
        load.wait_for_more(20)
    # Clients are told at once to ask again; no connection breaks.
    assert set(load.statuses) == {200, 503}
    assert load.statuses[-1] == 200
    assert not load.errors


def wait_for_both(running: Server, ready: int) -> None:
    """Wait until two front ends say by this status whether they are ready."""
    until_s = time.monotonic() + 30
    # Whichever takes a connection answers.
    while {running.ask("GET", "/health/ready")[0] for _ in range(20)} != {ready}:
        assert time.monotonic() < until_s
        time.sleep(0.05)


def test_a_stalled_compute_process_is_noticed(artifacts: dict[str, Path], running: Server) -> None:
    request = golden_requests(artifacts["separated"])[0]
    wait_for_both(running, 200)
    stalled = running.children()["compute"]
    os.kill(stalled, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        status, found = running.rank(request, deadline_ms=500)
        assert (status, found["code"]) == (504, "deadline")
        assert 0.5 < time.monotonic() - began_s < 5.0
        wait_for_both(running, 503)
        status, found = running.rank(request)
        assert (status, found["code"]) == (503, "not_ready")
    finally:
        os.kill(stalled, signal.SIGCONT)
    wait_for_both(running, 200)
    assert running.rank(request)[0] == 200
    assert running.children()["compute"] == stalled


def test_an_explanation_takes_no_room_from_users(
    artifacts: dict[str, Path], running: Server
) -> None:
    def num_states() -> str:
        text = running.ask("GET", "/metrics")[1]
        return next(
            one for one in text.splitlines() if one.startswith("rankloom_user_cache_entries")
        )

    wait_for_both(running, 200)
    request = golden_requests(artifacts["separated"])[0]
    assert running.rank(request)[0] == 200
    before = num_states()
    given = {name: request[name] for name in ("user", "context", "candidates")}
    status, found = running.ask("POST", "/v1/explain?by=features", given)
    assert status == 200
    assert any(one["name"] == "age" for one in found["changes"])  # a value of the user's
    assert num_states() == before


def test_an_artifact_is_swapped_under_load_and_a_bad_one_refused(
    artifacts: dict[str, Path], tmp_path: Path
) -> None:
    link = tmp_path / "current"
    link.symlink_to(artifacts["separated"])
    requests = golden_requests(artifacts["din"])
    digests = {name: load(folder).digest for name, folder in artifacts.items()}

    def point_to(folder: Path) -> None:
        (tmp_path / "next").symlink_to(folder)
        (tmp_path / "next").rename(link)

    with server(link, tmp_path / "server") as one:
        with Load(lambda: one.rank(requests[0])) as hammer:
            hammer.wait_for_more()
            damaged = tmp_path / "damaged"
            shutil.copytree(artifacts["din"], damaged)
            golden = json.loads((damaged / "golden.json").read_text())
            golden["requests"][0]["scores"]["like"][0] += 0.5
            (damaged / "golden.json").write_text(json.dumps(golden))
            point_to(damaged)
            one.process.send_signal(signal.SIGHUP)
            one.wait_for_line("reload refused, the artifact stays")
            assert one.ask("GET", "/health/ready")[1]["digest"] == digests["separated"]
            hammer.wait_for_more()
        # A new compute process does not take it either.
        os.kill(one.children()["compute"], signal.SIGKILL)
        one.wait_for_line("artifact refused, the one before it stays")
        one.wait_until_ready(digest=digests["separated"])
        with Load(lambda: one.rank(requests[0])) as more:
            more.wait_for_more()
            point_to(artifacts["din"])
            one.process.send_signal(signal.SIGHUP)
            one.wait_until_ready(digest=digests["din"])
            more.wait_for_more()
        assert set(hammer.statuses + more.statuses) == {200}
        assert not hammer.errors + more.errors
        offline = load(artifacts["din"]).score(
            requests[0]["user"], requests[0]["candidates"], requests[0]["context"]
        )
        status, found = one.rank(requests[0])
        assert (status, found["digest"]) == (200, digests["din"])
        np.testing.assert_allclose(found["scores"]["like"], offline["like"], atol=1e-6)
        assert one.stop() == 0


def test_no_accepted_request_is_lost_at_the_end(artifacts: dict[str, Path], tmp_path: Path) -> None:
    request = golden_requests(artifacts["separated"])[0]
    given = {name: request[name] for name in ("user", "context", "candidates")}
    body = json.dumps({"deadline_ms": 20_000, **given}).encode()
    with server(artifacts["separated"], tmp_path) as one:
        pids = one.children()
        open_ones = [HTTPConnection("127.0.0.1", one.port, timeout=30) for _ in range(4)]
        for connection in open_ones:
            connection.putrequest("POST", "/v1/rank")
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body[:-1])
        until_s = time.monotonic() + 30
        while "rankloom_requests_in_flight 4.0" not in one.ask("GET", "/metrics")[1]:
            assert time.monotonic() < until_s
            time.sleep(0.05)
        with Load(lambda: one.rank(request)) as hammer:
            hammer.wait_for_more()
            one.process.send_signal(signal.SIGTERM)
            one.wait_for_line("ending")
            time.sleep(1)
            for connection in open_ones:
                connection.send(body[-1:])
            assert [connection.getresponse().status for connection in open_ones] == [200] * 4
            assert one.process.wait(60) == 0
        # Connections that no process has accepted may be refused or reset.
        assert set(hammer.statuses) == {200}
        assert not any(map(is_running, pids.values()))
        for connection in open_ones:
            connection.close()


def test_children_end_with_a_killed_supervisor(artifacts: dict[str, Path], tmp_path: Path) -> None:
    with server(artifacts["separated"], tmp_path) as one:
        pids = one.children()
        line = Path(f"/proc/{pids['compute']}/cmdline").read_text()
        folder = Path(json.loads(line.split("\0")[-2])["metrics"])
        one.process.kill()
        one.process.wait()
        until_s = time.monotonic() + 30
        while any(map(is_running, pids.values())):
            assert time.monotonic() < until_s
            time.sleep(0.05)
    # What it left in memory goes with the next one, whatever becomes of that.
    assert folder.is_dir()
    run_rankloom("serve", tmp_path / "nothing", cwd=tmp_path)
    assert not folder.exists()


def test_front_ends_are_told_how_long_to_drain(artifacts: dict[str, Path], tmp_path: Path) -> None:
    options = ("--set", "drain_s=1", "--set", "page=false", "--set", "front_ends=1")
    with server(artifacts["separated"], tmp_path, *options) as one:
        assert one.ask("GET", "/")[0] == 404
        connection = HTTPConnection("127.0.0.1", one.port, timeout=30)
        connection.putrequest("POST", "/v1/rank")
        connection.putheader("Content-Length", "100")
        connection.endheaders(b"{")
        time.sleep(0.5)
        one.process.send_signal(signal.SIGTERM)
        assert connection.getresponse().status == 503
        connection.close()
        assert one.process.wait(60) == 0


def test_what_cannot_be_served_is_said(artifacts: dict[str, Path], tmp_path: Path) -> None:
    done = run_rankloom("serve", tmp_path / "nothing", cwd=tmp_path)
    assert done.returncode == 2
    assert "manifest.json" in done.stderr
    assert "Traceback" not in done.stderr
    done = run_rankloom(
        "serve", artifacts["din"], "--set", "front.blend=likes", "--port", "0", cwd=tmp_path
    )
    assert done.returncode == 2
    assert "Did you mean 'like'" in done.stderr
    done = run_rankloom("serve", artifacts["din"], "--set", "cach_bytes=1", cwd=tmp_path)
    assert done.returncode == 2
    assert "Did you mean 'cache_bytes'" in done.stderr
    done = run_rankloom("serve", artifacts["din"], "--set", "front.times.drain_s=5", cwd=tmp_path)
    assert done.returncode == 2
    assert "front.times.drain_s" in done.stderr
