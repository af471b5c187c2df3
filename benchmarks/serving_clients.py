"""Well-behaved clients in a process of their own, which check every score that they are given.

    with Clients(world) as clients:
        clients.wait_for_right(10)
        ...
    summary_of(clients.answers(), begin_s, end_s)

A quarter of the requests name the user by id only; those may be scored as if nothing were known of
the user, which is counted apart.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from rankloom.errors import DeadlineError, OverloadedError, RequestError, ServingError
from rankloom.serving.client import Client

if TYPE_CHECKING:
    from benchmarks.serving_world import World

ROOT = Path(__file__).resolve().parent.parent
TOLERANCE = 1e-5
"""Of a score: sums in another order differ by less, other users' scores by more."""
DEADLINE_MS = 3000.0
BY_ID_SHARE = 0.25
RIGHT = {"ok", "default"}


class Answer(NamedTuple):
    """What became of one request."""

    begun_s: float
    """On the monotonic clock of the machine."""
    ms: float
    outcome: str
    """`ok`, `default` (right for an unknown user), `wrong`, or why there were no scores."""


class Clients:
    """Threads of another process that ask at a steady pace.

    Args:
        world: Whom they ask, and what the right answers are.
        per_s: Requests a second, all threads together.
        threads: How many wait for answers at one time.
    """

    def __init__(self, world: World, *, per_s: float = 25.0, threads: int = 4) -> None:
        self._path = world.folder / f"answers-{time.monotonic_ns()}.jsonl"
        requests = world.artifact.parent / "requests.json"
        command = [sys.executable, "-m", "benchmarks.serving_clients", world.server.url]
        self._command = [*command, str(requests), str(self._path), str(per_s), str(threads)]

    def __enter__(self) -> Self:
        self._path.touch()
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, cwd=ROOT)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()

    def answers(self) -> list[Answer]:
        """Give all answers so far."""
        whole, _, _ = self._path.read_text().rpartition("\n")
        return [Answer(*json.loads(line)) for line in whole.splitlines()]

    def wait_for_right(self, count: int, *, since_s: float = 0.0, timeout_s: float = 60.0) -> float:
        """Wait until so many requests that began after a time were answered rightly.

        Returns:
            When the last of them was answered.
        """
        until_s = time.monotonic() + timeout_s
        while True:
            right = [
                one.begun_s + one.ms / 1e3
                for one in self.answers()
                if one.outcome in RIGHT and one.begun_s >= since_s
            ]
            if len(right) >= count:
                return sorted(right)[count - 1]
            if self._process.poll() is not None or time.monotonic() > until_s:
                raise TimeoutError(f"{len(right)} right answers of {count}: {self.answers()[-5:]}")
            time.sleep(0.05)


def summary_of(answers: Sequence[Answer], begin_s: float, end_s: float) -> dict[str, Any]:
    """Give outcomes and latencies of requests that began in a span of time."""
    mine = [one for one in answers if begin_s <= one.begun_s < end_s]
    right = sorted(one.ms for one in mine if one.outcome in RIGHT)
    ends = [one.begun_s + one.ms / 1e3 for one in answers if one.outcome in RIGHT]
    inside = sorted(one for one in ends if begin_s <= one < end_s)
    times = [begin_s, *inside, end_s]
    return {
        "seconds": end_s - begin_s,
        "outcomes": dict(Counter(one.outcome for one in mine)),
        "ms": {
            name: float(np.quantile(right, at)) if right else None
            for name, at in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
        },
        "longest_without_an_answer_s": max(np.diff(times).tolist()),
    }


def outcome_of(client: Client, request: Mapping[str, Any], *, by_id: bool) -> str:
    """Ask once and judge the answer."""
    user = {"user_id": request["user"]["user_id"]} if by_id else request["user"]
    try:
        found = client.rank(
            user, request["candidates"], request["context"], deadline_ms=DEADLINE_MS
        )
    except DeadlineError:
        return "deadline"
    except OverloadedError:
        return "overloaded"
    except RequestError as error:
        return f"refused: {error}"
    except ServingError as error:
        return "broken" if isinstance(error.__cause__, Exception) else f"failed: {error}"
    rights = {"ok": request["scores"]} | ({"default": request["default_scores"]} if by_id else {})
    for outcome, right in rights.items():
        if found.scores.keys() == right.keys() and all(
            len(one) == len(right[task]) and np.abs(one - right[task]).max() <= TOLERANCE
            for task, one in found.scores.items()
        ):
            return outcome
    return "wrong"


def main() -> None:
    """Ask until standard input ends."""
    url, requests_path, path, per_s, count = sys.argv[1:]
    requests = json.loads(Path(requests_path).read_text())
    is_over = threading.Event()
    lock = threading.Lock()
    num_threads = int(count)
    with Path(path).open("a") as file, Client(url, connections=num_threads) as client:

        def ask(number: int) -> None:
            generator = np.random.default_rng(number)
            while not is_over.wait(generator.exponential(num_threads / float(per_s))):
                request = requests[generator.integers(len(requests))]
                by_id = generator.random() < BY_ID_SHARE
                begun_s = time.monotonic()
                outcome = outcome_of(client, request, by_id=by_id)
                line = json.dumps([begun_s, 1e3 * (time.monotonic() - begun_s), outcome])
                with lock:
                    file.write(line + "\n")
                    file.flush()

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(num_threads)]
        for thread in threads:
            thread.start()
        sys.stdin.read()
        is_over.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
