"""Clients that ask at the times of a Poisson process, however long answers take.

    found = ask_open_loop(url, plan | {"rate": 40, "seconds": 8})

They run in a process of their own, which says how much of a core it took. A request's time counts
from when it was to be sent. Nobody hangs up at the deadline, so that latencies beyond it are seen.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from benchmarks.load_requests import LoadRequests
from rankloom.serving import wire
from rankloom.serving.client import DEADLINE_HEADER, PATH
from rankloom.serving.request import RankRequest, RankResult

ROOT = Path(__file__).resolve().parent.parent
THREADS = 256
"""Requests that can be under way; more than the server takes."""
TIMEOUT_S = 20.0
UNLOADED_MS = 5000.0
"""Deadline of requests that are asked one after the other."""
GIVEN_UP = "waited until"
"""What the server says of a request that it admitted, and then could not answer in time."""


class Asked(NamedTuple):
    """What became of one request."""

    deadline_ms: float
    ms: float
    """From when it was to be sent until the whole answer was there."""
    answer_ms: float
    """From when it was sent."""
    outcome: str
    """`ok`, `refused`, `given_up`, or what went wrong."""
    is_hit: bool = False
    work_ms: float = 0.0
    """User and candidate work, by the server's word."""


class Asker:
    """Sends requests of a plan.

    Args:
        url: Of the server.
        plan: `has_history`, `candidates` (counts to choose from), `deadlines_ms` (likewise),
            `hit_share` and `known_users`: of how many users the hits are, the same in all plans;
            `seed` of all else.
    """

    def __init__(self, url: str, plan: Mapping[str, Any]) -> None:
        self._address = urlsplit(url).netloc
        self._plan = plan
        known = LoadRequests(has_history=plan["has_history"], seed=0)
        self.known = [known.user() for _ in range(plan["known_users"])]
        # New users are new at every rate.
        seeds = [1, plan["seed"], int(1000 * plan.get("rate", 0))]
        self._requests = LoadRequests(has_history=plan["has_history"], seed=seeds)
        self._generator = np.random.default_rng(seeds)
        self._candidates = {
            count: [self._requests.candidates(count) for _ in range(8)]
            for count in plan["candidates"]
        }
        self._local = threading.local()

    def draw(self) -> RankRequest:
        """Draw a request: of a known user with the planned share, else of a new one."""
        plan, draw = self._plan, self._generator
        is_known = draw.random() < plan["hit_share"]
        lists = self._candidates[int(draw.choice(plan["candidates"]))]
        return RankRequest(
            user=self.known[draw.integers(len(self.known))] if is_known else self._requests.user(),
            candidates=lists[draw.integers(len(lists))],
            deadline_ms=float(draw.choice(plan["deadlines_ms"])),
        )

    def ask(self, request: RankRequest, due_s: float) -> Asked:
        """Ask once, on this thread's own connection."""
        assert request.deadline_ms is not None
        sent_s = time.perf_counter()
        try:
            status, body = self._post(request)
        except (OSError, http.client.HTTPException) as error:
            self._local.connection = None
            status, body = 0, type(error).__name__.encode()
        now = time.perf_counter()
        times = (request.deadline_ms, 1e3 * (now - due_s), 1e3 * (now - sent_s))
        if status == 200:
            (result,) = wire.decode_results(body)
            if isinstance(result, RankResult):
                timing = result.timing_ms
                work_ms = timing["user"] + timing["candidates"]
                return Asked(*times, "ok", timing["user"] == 0, work_ms)
        text = body.decode("utf-8", "replace")
        if status in {503, 504}:
            return Asked(*times, "given_up" if GIVEN_UP in text else "refused")
        return Asked(*times, f"status {status}: {text[:200]}")

    def _post(self, request: RankRequest) -> tuple[int, bytes]:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT_S)
            self._local.connection = connection
        headers = {
            "Content-Type": wire.CONTENT_TYPE,
            "Accept": wire.CONTENT_TYPE,
            DEADLINE_HEADER: str(request.deadline_ms),
        }
        connection.request("POST", PATH, wire.encode_requests([request]), headers)
        with connection.getresponse() as response:
            return response.status, response.read()


def ask_open_loop(url: str, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Run a plan in a process of its own.

    Args:
        url: Of the server.
        plan: As `Asker` takes it, with `warm_up`, requests one after the other, and either `rate`,
            requests a second, and `seconds`; or none of them: then the warm-up is what counts, and
            all known users are asked for before it.

    Returns:
        See `summary_of`; `clients_cpu_share`, cores that the process took.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.open_loop", url, json.dumps(plan)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"clients: ended with {done.returncode}.\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def summary_of(asked: Sequence[Asked], seconds: float) -> dict[str, Any]:
    """Condense what became of requests that were due within so many seconds."""
    in_time = [one for one in asked if one.outcome == "ok" and one.ms <= one.deadline_ms]
    scored = [one for one in asked if one.outcome == "ok"]
    refused = [one for one in asked if one.outcome == "refused"]
    late = len(scored) - len(in_time) + sum(one.outcome == "given_up" for one in asked)
    other = [one.outcome for one in asked if one.outcome not in {"ok", "refused", "given_up"}]
    return {
        "sent": len(asked),
        "goodput_per_s": len(in_time) / seconds,
        "in_time_share": len(in_time) / len(asked),
        "in_time_share_by_deadline": {
            f"{deadline:g}": float(
                np.mean([one in in_time for one in asked if one.deadline_ms == deadline])
            )
            for deadline in sorted({one.deadline_ms for one in asked})
        },
        "refused_share": len(refused) / len(asked),
        "late_share_of_admitted": late / max(len(asked) - len(refused) - len(other), 1),
        "other": sorted(set(other))[:5],
        "ms": _quantiles([one.ms for one in scored]),
        "refusal_ms": _quantiles([one.answer_ms for one in refused]),
        "hit_share": float(np.mean([one.is_hit for one in scored])) if scored else None,
        "work_ms": _quantiles([one.work_ms for one in scored]),
        "overhead_ms": _quantiles([one.answer_ms - one.work_ms for one in scored]),
        "start_lag_ms": _quantiles([one.ms - one.answer_ms for one in asked]),
    }


def _quantiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    quantiles = {f"p{at}": float(np.percentile(values, at)) for at in (50, 95, 99)}
    return {"mean": float(np.mean(values)), **quantiles}


def _one_after_the_other(asker: Asker, users: Sequence[Any], count: int) -> list[Asked]:
    """Ask for some users, then drawn requests, each with time enough; gives the drawn ones."""
    drawn = [asker.draw() for _ in range(len(users) + count)]
    for user, one in zip(users, drawn, strict=False):
        asker.ask(replace(one, user=user, deadline_ms=UNLOADED_MS), time.perf_counter())
    return [
        asker.ask(replace(one, deadline_ms=UNLOADED_MS), time.perf_counter())
        for one in drawn[len(users) :]
    ]


def _at_rate(asker: Asker, rate: float, seconds: float, seed: int) -> dict[str, Any]:
    """Ask at the times of a Poisson process, then wait for all answers."""
    generator = np.random.default_rng([seed, int(rate * 1000)])
    gaps = generator.exponential(1 / rate, size=int(rate * seconds * 2 + 100))
    due = np.cumsum(gaps)
    due = due[due < seconds]
    requests = [asker.draw() for _ in due]
    with ThreadPoolExecutor(THREADS) as pool:
        cpu_s, start_s = time.process_time(), time.perf_counter()
        futures = []
        for after_s, request in zip(due.tolist(), requests, strict=True):
            wait_s = start_s + after_s - time.perf_counter()
            if wait_s > 0:
                time.sleep(wait_s)
            futures.append(pool.submit(asker.ask, request, start_s + after_s))
        asked = [one.result() for one in futures]
        elapsed_s = time.perf_counter() - start_s
        cpu_share = (time.process_time() - cpu_s) / elapsed_s
    return {**summary_of(asked, seconds), "clients_cpu_share": cpu_share}


def main() -> None:
    """Carry out a plan and print what was found."""
    url, text = sys.argv[1:]
    plan = json.loads(text)
    asker = Asker(url, plan)
    is_loaded = "rate" in plan
    began = _one_after_the_other(asker, () if is_loaded else asker.known, plan["warm_up"])
    if is_loaded:
        found = _at_rate(asker, plan["rate"], plan["seconds"], plan["seed"])
    else:
        found = summary_of(began, 1.0)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
