"""What is done to a server: each fault lasts until a time, and tells what it saw.

Each is `fault(world, until_s, options) -> measurements` and leaves the server as it was. A kill may
take longer than it is given: it ends when the process is there again.
"""

from __future__ import annotations

import itertools
import os
import resource
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.hostile_bodies import Hostile, draw_hostile, raw_requests, send_raw, violation
from benchmarks.serving_world import World
from rankloom.serving import wire
from rankloom.serving.request import RankRequest

Measured = dict[str, Any]
Fault = Callable[[World, float, Mapping[str, Any]], Measured]
SETTLED_S = 6.0
"""Between kills: a process that ends sooner is started again after a wait."""
MANY = 10_000
"""Candidates of requests that are given up: reading them takes less time than scoring them."""
LEAVE_S = 1.0
"""Clients leave after so long in any case."""


def kill_front_end(world: World, until_s: float, options: Mapping[str, Any]) -> Measured:
    """Kill -9 one front end after the other."""
    del options
    back_s = []
    for number in itertools.count():
        names = sorted(world.fronts())
        name = names[number % len(names)]
        victim = world.fronts()[name]
        began_s = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        world.wait_until_anew(name, victim)
        back_s.append(time.monotonic() - began_s)
        if time.monotonic() + SETTLED_S > until_s:
            return {"kills": len(back_s), "restarts_expected": len(back_s), "back_s": back_s}
        time.sleep(SETTLED_S)
    raise AssertionError


def kill_compute(world: World, until_s: float, options: Mapping[str, Any]) -> Measured:
    """Kill -9 the compute process, and ask all the while what clients are told."""
    del options
    outages_s: list[float] = []
    told: Counter[str] = Counter()
    told_ms: list[float] = []
    while True:
        victim = world.children()["compute"]
        os.kill(victim, signal.SIGKILL)
        killed_s = time.monotonic()
        while True:
            began_s = time.monotonic()
            status, found = world.server.rank(world.requests[0])
            told[f"{status} {found.get('code', 'ok')}"] += 1
            if status != 200:
                told_ms.append(1e3 * (time.monotonic() - began_s))
            elif world.children().get("compute", victim) != victim:
                break
            time.sleep(0.02)
        outages_s.append(time.monotonic() - killed_s)
        if time.monotonic() + SETTLED_S > until_s:
            break
        time.sleep(SETTLED_S)
    return {
        "kills": len(outages_s),
        "restarts_expected": len(outages_s),
        "outage_s": outages_s,
        "told": dict(told),
        "told_p99_ms": float(np.quantile(told_ms, 0.99)) if told_ms else None,
    }


def terminate(world: World, until_s: float, options: Mapping[str, Any]) -> Measured:
    """SIGTERM while requests are half sent, which are then sent wholly; ends the server."""
    del options
    pids = world.children()
    # Requests must be whole within the time that a body has.
    time.sleep(max(0.0, until_s - time.monotonic()))
    body = packed(world)
    half_sent = [HTTPConnection("127.0.0.1", world.server.port, timeout=30) for _ in range(8)]
    for one in half_sent:
        one.putrequest("POST", "/v1/rank")
        one.putheader("Content-Type", wire.CONTENT_TYPE)
        one.putheader("Content-Length", str(len(body)))
        one.endheaders(body[:-1])
    # What no front end has accepted by then may be reset.
    while world.metric("rankloom_requests_in_flight") < len(half_sent):
        time.sleep(0.01)
    began_s = time.monotonic()
    world.server.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    statuses: Counter[str] = Counter()
    for one in half_sent:
        try:
            one.send(body[-1:])
            statuses[str(one.getresponse().status)] += 1
        except (OSError, HTTPException) as error:
            statuses[type(error).__name__] += 1
        one.close()
    code = world.server.process.wait(60)
    left = [name for name, pid in pids.items() if Path(f"/proc/{pid}").exists()]
    return {
        "restarts_expected": 0,
        "half_sent": dict(statuses),
        "exit_code": code,
        "end_s": time.monotonic() - began_s,
        "processes_left": left,
    }


def stop_redis(world: World, until_s: float, options: Mapping[str, Any]) -> Measured:
    """Kill Redis, leave it away for a while, and start it with what it had."""
    del options
    away_s = max(0.5, (until_s - time.monotonic()) * 0.6)
    with world.redis.client() as client:
        client.save()
    world.redis.stop()
    time.sleep(away_s)
    unanswered = world.metric("rankloom_store_lookups_total", store="users", result="error")
    world.redis.start()
    before = world.metric("rankloom_store_lookups_total", store="users", result="hit")
    began_s = time.monotonic()
    while world.metric("rankloom_store_lookups_total", store="users", result="hit") == before:
        assert time.monotonic() < began_s + 60
        world.server.rank({**world.requests[0], "user": by_id(world.requests[0])})
        time.sleep(0.05)
    found_s = time.monotonic() - began_s
    time.sleep(max(0.0, until_s - time.monotonic()))
    return {
        "restarts_expected": 0,
        "away_s": away_s,
        "lookups_unanswered": unanswered,
        "found_again_s": found_s,
    }


def fill_disk(world: World, until_s: float, options: Mapping[str, Any]) -> Measured:
    """Let no log be written, and kill a front end meanwhile.

    The access log's name leads to /dev/full, which answers as a full disk does. There is no such
    folder for the request log; front ends are forbidden to write files beyond 0 bytes instead.
    """
    del options
    lines = "rankloom_log_lines_total"
    log = world.folder / "access.jsonl"
    dropped = {name: world.metric(lines, log=name, result="not_writable") for name in LOGS}
    _point(log, Path("/dev/full"))
    killed = kill_front_end(world, time.monotonic(), {})
    pids = list(world.fronts().values())
    unlimited = [resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids]
    for pid, (_, hard) in zip(pids, unlimited, strict=True):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    time.sleep(max(1.5, until_s - time.monotonic()))
    for pid, limits in zip(pids, unlimited, strict=True):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
    log.unlink()
    freed_s = time.monotonic()
    written = {name: world.metric(lines, log=name, result="written") for name in LOGS}
    while any(world.metric(lines, log=name, result="written") <= written[name] for name in LOGS):
        assert time.monotonic() < freed_s + 30, world.server.log.read_text()
        world.server.rank(world.requests[0])
        time.sleep(0.1)
    return {
        **killed,
        "dropped": {
            name: world.metric(lines, log=name, result="not_writable") - dropped[name]
            for name in LOGS
        },
        "written_again_s": time.monotonic() - freed_s,
    }


LOGS = ("access", "requests")


def _point(path: Path, to: Path) -> None:
    """Replace a file by a link."""
    link = path.with_name(f"{path.name}.link")
    link.symlink_to(to)
    link.replace(path)


def give_up(world: World, until_s: float, options: Mapping[str, Any]) -> Measured:
    """Send requests of many candidates, several at a time, and leave before their answers."""
    body = packed(world, count=MANY)
    head = f"POST /v1/rank HTTP/1.1\r\nHost: x\r\nContent-Type: {wire.CONTENT_TYPE}\r\n"
    data = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    counter = "rankloom_batch_candidates_sum"
    computed, left, asked = world.metric(counter), 0, 0
    while time.monotonic() < until_s:
        clients = []
        for number in range(options["burst"]):
            client = socket.create_connection(("127.0.0.1", world.server.port), timeout=10)
            if number % 2:
                # Closed with a reset instead of an end.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # A third of them leaves in the middle of the body.
            client.sendall(data if number % 3 else data[: len(data) // 2])
            clients.append(client)
        # They leave once many of them wait for the compute process.
        begun_s = time.monotonic()
        while world.metric("rankloom_queue_length") < options["burst"] / 3:
            if time.monotonic() > begun_s + LEAVE_S:
                break
        for client in clients:
            client.close()
        left += len(clients)
        asked += sum(number % 3 > 0 for number in range(len(clients)))
        time.sleep(options["pause_s"])
    return {
        "restarts_expected": 0,
        "given_up": left,
        "candidates_asked": MANY * asked,
        "candidates_computed_by_all": world.metric(counter) - computed,
    }


def send_hostile(world: World, until_s: float, options: Mapping[str, Any]) -> Measured:
    """Send malformed and hostile requests, at a steady pace and from several connections."""
    count, per_s = options["hostile"], options["hostile_per_s"]
    inputs = world.server.ask("GET", "/v2/models/rankloom")[1]["inputs"]
    given_s = until_s - time.monotonic()
    bodies = draw_hostile(world.requests[0], inputs, count, number=options["seed"])
    violations: list[str] = []

    def send_all_raw() -> None:
        for data in raw_requests():
            wrong = send_raw(world.server.port, data)
            if wrong is not None:
                violations.append(wrong)
            time.sleep(0.02)

    for _ in range(WARM_ROUNDS):
        send_all_raw()
    settled_s = time.monotonic()
    until_s = settled_s + given_s
    statuses: Counter[int] = Counter()
    queue = iter(bodies if not options["again"] else itertools.cycle(bodies))
    lock = threading.Lock()

    def send(number: int) -> None:
        connection = HTTPConnection("127.0.0.1", world.server.port, timeout=20)
        pace = np.random.default_rng(number)
        while not options["again"] or time.monotonic() < until_s:
            with lock:
                one = next(queue, None)
            if one is None:
                break
            status, wrong = _ask(connection, one)
            statuses[status] += 1
            if wrong is not None:
                violations.append(wrong)
            time.sleep(pace.exponential(SENDERS / per_s))
        connection.close()

    senders = [threading.Thread(target=send, args=(number,)) for number in range(SENDERS)]
    for sender in senders:
        sender.start()
    send_all_raw()
    for sender in senders:
        sender.join()
    return {
        "restarts_expected": 0,
        "settled_s": settled_s,
        "sent": sum(statuses.values()),
        "sent_raw": len(raw_requests()) * (WARM_ROUNDS + 1),
        "statuses": {str(status): statuses[status] for status in sorted(statuses)},
        "violations": violations[:20],
        "num_violations": len(violations),
    }


SENDERS = 4
WARM_ROUNDS = 3
"""Of what is hostile to HTTP, so that each front end has met the largest before memory counts."""


def _ask(connection: HTTPConnection, one: Hostile) -> tuple[int, str | None]:
    headers = {name: text.encode("latin-1", "replace") for name, text in one.headers.items()}
    try:
        connection.request("POST", one.path, one.body, headers)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, HTTPException) as error:
        connection.close()
        return 0, f"no answer: {error!r} to {one}"
    wrong = violation(one.path, answer.status, answer.headers.get("Content-Type", ""), body)
    return answer.status, wrong and f"{wrong} to {one.body[:300]!r} {one.headers}"


def by_id(request: Mapping[str, Any]) -> dict[str, Any]:
    """Give of a request's user the id only."""
    return {"user_id": request["user"]["user_id"]}


def packed(world: World, count: int | None = None) -> bytes:
    """Write a golden request as MessagePack, its candidates repeated up to a number."""
    request = world.requests[0]
    candidates = request["candidates"]
    if count is not None:
        candidates = {
            name: list(itertools.islice(itertools.cycle(values), count))
            for name, values in candidates.items()
        }
    given = RankRequest(
        user=request["user"],
        context=request["context"],
        candidates=candidates,
        deadline_ms=20_000.0,
    )
    return wire.encode_requests([given])
