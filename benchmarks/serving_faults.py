"""What a server does while things go wrong, and what its well-behaved clients notice.

A cell is one fault against a real server of a small artifact, with Redis and both logs:

- `front_end_killed`, `compute_killed`: kill -9, every few seconds;
- `terminated`: SIGTERM while requests are under way;
- `redis_stopped`: Redis killed, away for a while, and started with what it had;
- `disk_full`: neither the logs nor the server's own output can be written, and a front end is
  killed meanwhile;
- `slow_clients`: hundreds of requests byte by byte, and readers who take no answer;
- `disconnects`: requests of 10,000 candidates whose clients leave before they are scored;
- `hostile_bodies`: 10,000 malformed and hostile requests through all interfaces;
- `mixed`: kills first, then all the others by turns on one server for `soak_s`.

All the while clients of another process ask at a steady pace and check every score. `before`,
`during` and `after` are their outcomes and latencies. `broken_promises` names what must not be.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, Cell, Row, by_variant
from benchmarks.injected_faults import (
    Fault,
    Measured,
    fill_disk,
    give_up,
    kill_compute,
    kill_front_end,
    send_hostile,
    stop_redis,
    terminate,
)
from benchmarks.serving_clients import RIGHT, Clients, summary_of
from benchmarks.serving_world import LIMITS_S, Memory, World, make_artifact, serving_world
from benchmarks.slow_clients import send_slowly

FOLDER = ROOT / ".bench" / "serving"
FAULTS: dict[str, Fault] = {
    "front_end_killed": kill_front_end,
    "compute_killed": kill_compute,
    "terminated": terminate,
    "redis_stopped": stop_redis,
    "disk_full": fill_disk,
    "slow_clients": send_slowly,
    "disconnects": give_up,
    "hostile_bodies": send_hostile,
}
LASTING = ("redis_stopped", "disk_full", "slow_clients", "disconnects", "hostile_bodies")
"""Faults that no process need end by, so that the growth of its memory can be seen."""
SETTINGS: dict[str, Any] = {
    "faults": [*FAULTS, "mixed"],
    "duration_s": 20.0,
    "soak_s": 600.0,
    "calm_s": 10.0,
    "per_s": 25.0,
    "slow": 300,
    "burst": 12,
    "pause_s": 1.0,
    "hostile": 10_000,
    "hostile_per_s": 120.0,
    "allowed_delay_ms": 100.0,
    "allowed_growth_mb": 32.0,
    "seed": 0,
    "repeats": 1,
}
"""`allowed_delay_ms`: what the clients' p95 may be above three times the p95 before: the server
shares the machine's cores with what makes the faults. `allowed_growth_mb`: of a process, from the
first half of a fault until after it. What was used once stays, as the server's allocator keeps
freed memory: a process holds what its largest requests at one time took, one body may have 16 MiB,
and how many come together is chance. A process answers some 15,000 requests of a soak, so that a
leak of 8 KiB each would be more."""
SLACK_S = 2.0
"""For a slow client's end, beyond the limits: a busy machine is late."""


def planned_cells(settings: Mapping[str, Any]) -> list[Cell]:
    """One cell for each fault and repeat."""
    shared = {k: v for k, v in settings.items() if k not in {"faults", "repeats", "soak_s"}}
    return [
        Cell(
            fault,
            repeat,
            {**shared, "duration_s": settings["soak_s"]} if fault == "mixed" else shared,
        )
        for repeat in range(settings["repeats"])
        for fault in settings["faults"]
    ]


def run_cell(cell: Cell) -> dict[str, Any]:
    """Start a server and do one thing to it."""
    artifact = make_artifact(FOLDER / "small")
    options = {**cell.options, "again": False, "seed": cell.options["seed"] + cell.repeat}
    output = Path("/dev/full") if cell.variant == "disk_full" else None
    fault = mix if cell.variant == "mixed" else FAULTS[cell.variant]
    with (
        tempfile.TemporaryDirectory(dir=FOLDER) as scratch,
        serving_world(Path(scratch), artifact, output=output) as world,
    ):
        return measure(world, fault, options)


def measure(world: World, fault: Fault, options: Mapping[str, Any]) -> dict[str, Any]:
    """Do one thing to a server while clients ask.

    Args:
        world: The server, which is whole again afterwards unless the fault ends it.
        fault: What is done.
        options: `duration_s` of the fault, `calm_s` before it and after it, `per_s` of the clients,
            and those of the fault.
    """
    restarts = _restarts(world)
    with Memory(world) as memory, Clients(world, per_s=options["per_s"]) as clients:
        clients.wait_for_right(20)
        start_s = time.monotonic()
        time.sleep(options["calm_s"])
        begin_s = time.monotonic()
        found = fault(world, begin_s + options["duration_s"], options)
        end_s = time.monotonic()
        is_over = world.server.process.poll() is not None
        if not is_over:
            found["right_again_s"] = clients.wait_for_right(1, since_s=end_s) - end_s
            time.sleep(options["calm_s"])
        stop_s = time.monotonic()
    answers = clients.answers()
    found |= {
        "before": summary_of(answers, start_s, begin_s),
        "during": summary_of(answers, begin_s, end_s),
        "largest_mb": memory.largest_mb(),
        "is_over": is_over,
    }
    if not is_over:
        settled_s = found.pop("settled_s", begin_s)
        middle_s = (settled_s + end_s) / 2
        found |= {
            "after": summary_of(answers, end_s, stop_s),
            "growth_mb": memory.growth_mb((settled_s, middle_s), (end_s, stop_s)),
            "restarts": _restarts(world) - restarts,
            "in_flight_at_rest": world.metric("rankloom_requests_in_flight"),
        }
    return found | {"broken_promises": broken_promises(found, options)}


def broken_promises(found: Measured, allowed: Mapping[str, Any]) -> list[str]:
    """Name what must not be, whatever the fault.

    Args:
        found: What was measured.
        allowed: `allowed_delay_ms` and `allowed_growth_mb`.
    """
    broken = []
    spans = [found[name] for name in ("before", "during", "after") if name in found]
    outcomes: set[str] = set().union(*(one["outcomes"] for one in spans))
    expected = set(RIGHT)
    if "outage_s" in found:
        expected |= {"overloaded"}
    if found["is_over"]:
        # Nobody listens any more.
        expected |= {"broken"}
    if outcomes - expected:
        broken.append(f"clients got {sorted(outcomes - expected)}")
    if found["is_over"]:
        if found["exit_code"] or found["processes_left"] or set(found["half_sent"]) != {"200"}:
            broken.append("the server did not end in order")
        return broken
    if found["restarts"] != found["restarts_expected"]:
        broken.append(f"{found['restarts']} restarts, not {found['restarts_expected']}")
    if found["in_flight_at_rest"]:
        broken.append("requests are still counted as under way")
    most_mb = allowed["allowed_growth_mb"]
    grown = {k: round(v, 1) for k, v in found["growth_mb"].items() if v > most_mb}
    if grown:
        broken.append(f"memory grew by {grown} MiB")
    broken += found.get("violations", [])[:5]
    if 2 * found.get("candidates_computed_by_all", 0) > found.get("candidates_asked", 1):
        broken.append("what clients gave up was computed all the same")
    lives_s = found.get("longest_life_s", {})
    if any(life > 2 * max(LIMITS_S.values()) + SLACK_S for life in lives_s.values()):
        broken.append(f"slow clients were kept for {lives_s} s")
    for name in ("during", "after") if "outage_s" not in found else ("after",):
        p95, usual = found[name]["ms"]["p95"], found["before"]["ms"]["p95"]
        if p95 is None or p95 > 3 * usual + allowed["allowed_delay_ms"]:
            broken.append(f"{name}: p95 {p95} ms, {usual} ms before")
    return broken


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """What each fault did, and whether all promises were kept."""
    keys = ("broken_promises", "before", "during", "after", "growth_mb", "largest_mb")
    return {
        variant: {key: value for key, value in group[-1].items() if key not in keys}
        | {
            "promises_kept": not any(one["broken_promises"] for one in group),
            "clients": {
                span: {
                    "outcomes": group[-1][span]["outcomes"],
                    **group[-1][span]["ms"],
                    "longest_without_an_answer_s": group[-1][span]["longest_without_an_answer_s"],
                }
                for span in ("before", "during", "after")
                if span in group[-1]
            },
            "most_growth_mb": max(
                (value for one in group for value in one.get("growth_mb", {}).values()),
                default=None,
            ),
        }
        for variant, group in by_variant(rows).items()
    }


def mix(world: World, until_s: float, options: Mapping[str, Any]) -> Measured:
    """Kill processes first, then do all the other things by turns."""
    given_s = until_s - time.monotonic()
    found: Measured = {"rounds": 0, "restarts_expected": 0, "violations": [], "faults": {}}
    for name in ("front_end_killed", "compute_killed"):
        found["faults"][name] = FAULTS[name](world, time.monotonic(), options)
        found["restarts_expected"] += found["faults"][name]["restarts_expected"]
        found |= {k: v for k, v in found["faults"][name].items() if k == "outage_s"}
    until_s = time.monotonic() + given_s
    turn_s = max(2.0, given_s / 30)
    while time.monotonic() < until_s:
        for name in LASTING:
            of_turn = {"hostile": 1500, "again": True, "seed": options["seed"] + found["rounds"]}
            one = FAULTS[name](world, time.monotonic() + turn_s, {**options, **of_turn})
            found["faults"][name] = one
            one.pop("settled_s", None)
            found["restarts_expected"] += one["restarts_expected"]
            found["violations"] += one.get("violations", [])
        found["rounds"] += 1
        # The first round's largest requests are what processes hold from then on.
        found.setdefault("settled_s", time.monotonic())
    return found


def _restarts(world: World) -> float:
    return world.metric("rankloom_process_restarts_total")
