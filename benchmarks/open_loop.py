"""Clients that ask at the times of a Poisson process, however long answers take.

    found = ask_open_loop(url, plan)

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
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from benchmarks.harness import ROOT
from rankloom.serving import wire
from rankloom.serving.client import DEADLINE_HEADER, PATH
from rankloom.serving.request import RankRequest, RankResult

THREADS = 256
"""Requests that can be under way; more than the server takes."""
TIMEOUT_S = 20.0
SETTLE_S = 0.5
"""Between two rates."""
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
        plan: `model`, `seed`, `candidates` (counts to choose from), `deadlines_ms` (likewise),
            `hit_share` and `known_users`: of how many users the hits are.
    """

    def __init__(self, url: str, plan: Mapping[str, Any]) -> None:
        # Only this process draws requests; the one that starts it may not have what that needs.
        from benchmarks.load_models import Requests

        self._address = urlsplit(url).netloc
        self._plan = plan
        self._requests = Requests(plan["model"], plan["seed"])
        self._generator = np.random.default_rng(plan["seed"])
        self.known = [self._requests.user() for _ in range(plan["known_users"])]
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
                work_ms = timing.get("user", 0.0) + timing.get("candidates", 0.0)
                return Asked(*times, "ok", bool(result.is_hit), work_ms)
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
    """Run the plan in a process of its own.

    Args:
        url: Of the server.
        plan: As `Asker` takes it, with `warm_up` (requests one after the other before anything is
            counted), `seconds` of each rate, and `rates` (requests a second) or `loads` (the same
            in multiples of what the work of the warm-up would let one thread do).

    Returns:
        `unloaded`: the warm-up's second half; `rates`: of each what was asked, see `summary_of`.
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
    return {f"p{at}": float(np.percentile(values, at)) for at in (50, 95, 99)}


def _one_after_the_other(asker: Asker, count: int) -> list[Asked]:
    """Ask for every known user, then for drawn ones, waiting for each answer."""
    known = [asker.draw() for _ in asker.known]
    requests = [
        RankRequest(user=user, candidates=one.candidates, deadline_ms=5000.0)
        for user, one in zip(asker.known, known, strict=True)
    ]
    drawn = [asker.draw() for _ in range(count)]
    requests += [
        RankRequest(user=one.user, candidates=one.candidates, deadline_ms=5000.0) for one in drawn
    ]
    return [asker.ask(one, time.perf_counter()) for one in requests][-count // 2 :]


def _at_rate(
    asker: Asker, pool: ThreadPoolExecutor, rate: float, seconds: float, seed: int
) -> dict[str, Any]:
    """Ask at the times of a Poisson process, then wait for all answers."""
    generator = np.random.default_rng([seed, int(rate * 1000)])
    gaps = generator.exponential(1 / rate, size=int(rate * seconds * 2 + 100))
    due = np.cumsum(gaps)
    due = due[due < seconds]
    requests = [asker.draw() for _ in due]
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
    time.sleep(SETTLE_S)
    return {"offered_per_s": rate, **summary_of(asked, seconds), "clients_cpu_share": cpu_share}


def main() -> None:
    """Carry out a plan and print what was found."""
    url, text = sys.argv[1:]
    plan = json.loads(text)
    asker = Asker(url, plan)
    unloaded = _one_after_the_other(asker, plan["warm_up"])
    capacity = 1e3 / float(np.mean([one.work_ms for one in unloaded]))
    rates = plan.get("rates") or [load * capacity for load in plan["loads"]]
    with ThreadPoolExecutor(THREADS) as pool:
        found = [_at_rate(asker, pool, rate, plan["seconds"], plan["seed"]) for rate in rates]
    summary = summary_of(unloaded, 1.0)
    print(json.dumps({"unloaded": summary, "capacity_per_s": capacity, "rates": found}))


if __name__ == "__main__":
    main()
