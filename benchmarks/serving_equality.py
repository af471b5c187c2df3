"""Served scores beside offline scores, through each interface, while artifacts are swapped.

Four clients at a time send random requests to a real server, each request twice, while a thread
points the server's link to one artifact and then to the other, over and over. Each answer is
compared with what the artifact of its digest gives offline.

- `json`, `msgpack`, `kserve`: a server as it is; scores within the manifest's tolerance, as
  candidates of several requests may share a run.
- `... alone`: with batching and cutting off; scores to the bit, and hits of the user state cache to
  the bit of the misses before them.

So many `requests` each way, hence twice as many through each interface.
"""

from __future__ import annotations

import atexit
import itertools
import json
import math
import shutil
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.integration.served import MODELS, Server, server
from tests.integration.small import small_values, write_small_log

from benchmarks.harness import Cell, Row, by_variant
from benchmarks.random_requests import ASKERS, Answer, RandomRequests, Request
from rankloom.api import export, load_run, train
from rankloom.artifact.ranker import Ranker, load

SETTINGS: dict[str, Any] = {"requests": 5_000, "requests_of_a_cell": 2500, "clients": 4}
MACHINE_MATTERS = False
ALONE = ("scheduling.batching=false", "scheduling.max_micro_batch_ms=null")
"""Every request is scored in a run of its own, as offline."""
TWICE = ("first", "again")
LARGEST = {"artifacts", "largest_error", "largest_hit_error", "tolerance"}
"""Of these the largest counts, of others the sum."""
MIN_SWAPS = 2
"""In each cell: there and back. It asks for more than it has to until then."""
PIECE = 250
"""Requests that are drawn at a time."""
SETTLED_S = 0.5
"""An artifact stays so long at least."""


def planned_cells(settings: Mapping[str, Any]) -> list[Cell]:
    """Each interface with batching and without, so many requests at a time."""
    size = settings["requests_of_a_cell"]
    return [
        Cell(
            f"{interface}{way}",
            number,
            {
                "interface": interface,
                "alone": bool(way),
                "requests": min(size, settings["requests"] - number * size),
                "clients": settings["clients"],
            },
        )
        for interface in ASKERS
        for way in ("", " alone")
        for number in range(math.ceil(settings["requests"] / size))
    ]


def run_cell(cell: Cell) -> dict[str, Any]:
    """Ask a server of its own, and compare."""
    options = cell.options
    world = _world()
    draws = world.requests(cell.repeat)
    requests: list[Request] = []
    answers: dict[str, Answer] = {}
    with tempfile.TemporaryDirectory(prefix="rankloom-equality-") as made:
        folder = Path(made)
        with swapped_server(world.artifacts, folder, is_alone=options["alone"]) as (one, swaps):
            while len(requests) < options["requests"] or swaps.count < MIN_SWAPS:
                start = len(requests)
                requests += [draws.draw() for _ in range(min(PIECE, options["requests"]))]
                answers |= ask_all(
                    one,
                    options["interface"],
                    requests,
                    start=start,
                    num_clients=options["clients"],
                )
        caches = caches_of(folder / "access.jsonl")
    compared = compare(options["interface"], requests, answers, caches, world.rankers)
    return {**compared, "swaps": swaps.count}


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Add up the pieces of each variant."""
    summary: dict[str, Any] = {}
    for variant, group in by_variant(rows).items():
        summary[variant] = {
            key: (max if key in LARGEST else sum)(one[key] for one in group) for key in group[0]
        }
    return summary


@dataclass(frozen=True)
class World:
    """What is served, and from what requests are drawn."""

    log: Path
    artifacts: tuple[Path, ...]
    rankers: Mapping[str, Ranker]
    """Digest -> the artifact at work offline."""

    @staticmethod
    def of(log: Path, artifacts: Sequence[Path]) -> World:
        """Load the artifacts."""
        loaded = [load(folder) for folder in artifacts]
        return World(log, tuple(artifacts), {one.digest: one for one in loaded})

    def requests(self, seed: int) -> RandomRequests:
        """Give another sequence of requests for each seed."""
        return RandomRequests(
            self.log / "train" / "part-0.parquet", np.random.default_rng([seed, 20261122])
        )


def make_world(folder: Path) -> World:
    """Train and export two small artifacts of one log.

    One compares the candidate with each event of the history, the other's users are tokens of a
    separated mixer.
    """
    log = write_small_log(folder / "log")
    artifacts = []
    for name, model in MODELS.items():
        values = small_values(log)
        schema = dict(values["schema"])
        # What a request does not say has a default, and both models read the same columns.
        schema["age"] = {**schema["age"], "default": 30.0}
        schema["release_year"] = {**schema["release_year"], "default": 1990.0}
        schema["history"] = {**schema["history"], "columns": {"item_id": {"table": "item"}}}
        training = {**values["training"], "epochs": 1}
        run = load_run({**values, "schema": schema, "model": model, "training": training})
        result = train(run, folder / name / "run", printer=lambda _: None)
        artifacts.append(export(result, folder / name / "artifact").folder)
    return World.of(log, artifacts)


@dataclass
class Swaps:
    """What the thread that swaps has done while the server was asked."""

    count: int = 0
    """Artifacts that were served after another."""


@contextmanager
def swapped_server(
    artifacts: Sequence[Path], folder: Path, *, is_alone: bool
) -> Iterator[tuple[Server, Swaps]]:
    """Run a server whose artifact changes all the time; it ends with exit code 0.

    Args:
        artifacts: Of one log; served in turns.
        folder: For the link and the logs.
        is_alone: Whether batching and cutting are off.
    """
    link = folder / "current"
    link.symlink_to(artifacts[0])
    options = [f"access_log.path={folder / 'access.jsonl'}", "threads=1"]
    sets = [f"--set={one}" for one in (*options, *(ALONE if is_alone else ()))]
    is_over, swaps = threading.Event(), Swaps()

    def swap(one: Server) -> None:
        for following in itertools.cycle([*artifacts[1:], artifacts[0]]):
            next_link = folder / "next"
            next_link.symlink_to(following)
            next_link.rename(link)
            one.process.send_signal(signal.SIGHUP)
            one.wait_until_ready(
                digest=json.loads((following / "manifest.json").read_text())["digest"]
            )
            if is_over.is_set():
                return
            swaps.count += 1
            is_over.wait(SETTLED_S)

    with server(link, folder, *sets) as one, ThreadPoolExecutor(1) as thread:
        swapping = thread.submit(swap, one)
        try:
            yield one, swaps
        finally:
            is_over.set()
        swapping.result()
        code = one.stop()
        if code:
            raise RuntimeError(f"the server ended with {code}: {one.log.read_text()}")


def ask_all(
    one: Server,
    interface: str,
    requests: Sequence[Request],
    *,
    start: int = 0,
    num_clients: int,
) -> dict[str, Answer]:
    """Send every request from `start` on twice, the second time right after the first answer.

    Returns:
        Name of each sending (see `name_of`) -> its answer.

    Raises:
        Exception: A request was not answered; whatever the client raises.
    """
    answers: dict[str, Answer] = {}

    def ask(numbers: range) -> None:
        # Connections are of one thread: tritonclient's may not be shared.
        asker = ASKERS[interface](f"127.0.0.1:{one.port}")
        try:
            for number in numbers:
                for time in TWICE:
                    name = name_of(interface, number, time)
                    answers[name] = asker.rank(requests[number], name=name)
        finally:
            asker.close()

    with ThreadPoolExecutor(num_clients) as threads:
        shares = [range(start + n, len(requests), num_clients) for n in range(num_clients)]
        list(threads.map(ask, shares))
    return answers


def name_of(interface: str, number: int, time: str) -> str:
    """Name a sending of a request in the access log."""
    return f"{interface}-{number}-{time}"


def caches_of(access_log: Path) -> dict[str, str]:
    """Read whether the user's state was there: name -> `hit` or `miss`.

    Raises:
        RuntimeError: A request was refused; a client may have asked again without a word.
    """
    lines = [json.loads(line) for line in access_log.read_text().splitlines()]
    refused = [line for line in lines if line["status"] != 200]
    if refused:
        raise RuntimeError(f"{len(refused)} requests were refused, such as {refused[0]}")
    return {line["id"]: line["cache"] for line in lines}


def compare(
    interface: str,
    requests: Sequence[Request],
    answers: Mapping[str, Answer],
    caches: Mapping[str, str],
    rankers: Mapping[str, Ranker],
) -> dict[str, Any]:
    """Compare answers with offline scores, and hits with the misses before them."""
    counts: Counter[str] = Counter()
    errors, hit_errors = [0.0], [0.0]
    for number, request in enumerate(requests):
        names = [name_of(interface, number, time) for time in TWICE]
        first, again = (answers[name] for name in names)
        errors += [
            _largest_difference(answer.scores, _offline(rankers, answer, request))
            for answer in (first, again)
        ]
        counts["equal_to_the_bit"] += sum(error == 0 for error in errors[-2:])
        found = tuple(caches[name] for name in names)
        counts["hits"] += found.count("hit")
        if found == ("miss", "hit") and first.digest == again.digest:
            hit_errors.append(_largest_difference(first.scores, again.scores))
            counts["hits_after_their_miss"] += 1
            counts["hits_equal_to_the_bit"] += hit_errors[-1] == 0
    keys = ("equal_to_the_bit", "hits", "hits_after_their_miss", "hits_equal_to_the_bit")
    return {
        "requests": len(requests),
        "answers": len(answers),
        **{key: counts[key] for key in keys},
        "artifacts": len({one.digest for one in answers.values()}),
        "largest_error": max(errors),
        "largest_hit_error": max(hit_errors),
        "tolerance": min(one.manifest.tolerance for one in rankers.values()),
    }


def _offline(rankers: Mapping[str, Ranker], answer: Answer, request: Request) -> dict[str, Any]:
    # A number of threads is a way to divide sums: the server has one too.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ranker = rankers[answer.digest]
        return ranker.score(request["user"], request["candidates"], request["context"])
    finally:
        torch.set_num_threads(before)


def _largest_difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """Give the largest difference.

    Raises:
        RuntimeError: Tasks differ, or a score is no number.
    """
    differences = [np.abs(found[task] - scores).max() for task, scores in expected.items()]
    if found.keys() != expected.keys() or not np.isfinite(differences).all():
        raise RuntimeError(f"scores cannot be compared: {found}, {expected}")
    return float(max(differences))


@cache
def _world() -> World:
    folder = tempfile.mkdtemp(prefix="rankloom-equality-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return make_world(Path(folder))
