"""Which parts of the scheduler earn their place: a discrete-event simulation, in virtual time.

Requests arrive in a Poisson stream at a multiple of what one thread can do one by one: deadlines of
20, 50 and 200 ms, 30 to 3,000 candidates, up to 1,000 events, six in ten user states in the cache.
What work takes follows from a hidden model with lognormal noise and rare hiccups; the scheduler
learns it while it serves. Two machines: on `cpu` a batch costs little beside its candidates, on
`device` its overhead outweighs them. Policies, each with what the one before has unless said:

- `fifo`: first come, first served, nothing refused or given up;
- `fifo_reject`: refuses what would be late;
- `edf`: earliest deadline first, nothing refused or given up;
- `edf_drop`: gives up what can no longer be in time;
- `edf_reject`: `edf_drop`, and refuses what would be late or would make others late;
- `batching`: `edf_reject`, and requests share batches where that pays;
- `micro_batches`: `edf_reject`, and long requests are cut;
- `booking`: `edf_reject`, and under overload long waits and long requests are refused first;
- `full`: all three;
- `hold`: `full`, and for a moment nothing is tried that asks for no less than what was refused; the
  server's defaults;
- `credit`: `full`, batches filled by credits that grow with urgency (SCORPIO, arXiv:2505.23022);
- `ladder`: `full`, and what is refused is tried again with 1/2 and 1/4 of its candidates.

Goodput counts requests answered in time per second; shares are of all requests, those refused
among them. Fairness is Jain's index of the shares in time of six kinds of requests: each deadline,
fewer than 300 candidates or more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from benchmarks.harness import Cell, Row, by_variant, spread
from benchmarks.simulated_server import (
    CLASSES_MS,
    MACHINES,
    Arrival,
    CreditScheduler,
    Fate,
    draw_arrivals,
    simulate,
)
from rankloom.serving.scheduling.config import SchedulerConfig
from rankloom.serving.scheduling.scheduler import Scheduler

MACHINE_MATTERS = False
WARM_UP = 0.1
"""Share of the requests that is not counted, while costs are learned."""
UNBOUNDED = {"max_waiting": 10**9, "max_waiting_candidates": 10**12}
NOTHING: dict[str, Any] = {
    "admission": "none",
    "drop": "never",
    "batching": False,
    "max_micro_batch_ms": None,
    **UNBOUNDED,
}
REJECTING: dict[str, Any] = {"batching": False, "max_micro_batch_ms": None, "booking": False}
POLICIES: dict[str, dict[str, Any]] = {
    "fifo": {**NOTHING, "order": "fifo"},
    "fifo_reject": {**REJECTING, "order": "fifo"},
    "edf": NOTHING,
    "edf_drop": {**NOTHING, "drop": "hopeless"},
    "edf_reject": REJECTING,
    "batching": {"max_micro_batch_ms": None, "booking": False},
    "micro_batches": {"batching": False, "booking": False},
    "booking": {"batching": False, "max_micro_batch_ms": None},
    "full": {},
    "hold": {"refusal_hold": 0.5},
    "credit": {},
    "ladder": {},
}
RUNGS = (1.0, 0.5, 0.25)
MEDIANS = (
    "in_time_share",
    "refused_share",
    "failed_share_of_admitted",
    "late_share_of_admitted",
    "fairness",
    "p50_ms",
    "busy_share",
    "requests_per_batch",
    "whole_per_s",
    "candidates_per_s",
)
SETTINGS: dict[str, Any] = {
    "policies": list(POLICIES),
    "machines": {"cpu": [0.3, 0.6, 0.9, 1.2, 2.0, 5.0], "device": [0.6, 2.0, 5.0]},
    "requests": 3000,
    "seeds": 3,
}


def planned_cells(settings: Mapping[str, Any]) -> list[Cell]:
    """One cell for each machine, policy, load and seed."""
    return [
        Cell(
            f"{machine} {load:g}x {policy}",
            seed,
            {"machine": machine, "load": load, "policy": policy, "requests": settings["requests"]},
        )
        for seed in range(settings["seeds"])
        for machine, loads in settings["machines"].items()
        for load in loads
        for policy in settings["policies"]
    ]


def run_cell(cell: Cell) -> dict[str, Any]:
    """Simulate one policy at one load."""
    machine, policy = MACHINES[cell.options["machine"]], cell.options["policy"]
    arrivals = draw_arrivals(
        machine, load=cell.options["load"], count=cell.options["requests"], seed=cell.repeat
    )
    config = SchedulerConfig(**{"refusal_hold": 0.0, **POLICIES[policy]})
    scheduler = CreditScheduler(config) if policy == "credit" else Scheduler(config)
    rungs = RUNGS if policy == "ladder" else (1.0,)
    fates, work = simulate(scheduler, arrivals, machine, rungs=rungs, seed=cell.repeat)
    start = int(WARM_UP * len(arrivals))
    measured = measure(arrivals[start:], fates[start:]) | work
    measured |= {"margin": scheduler.load(0.0).margin}
    return {key: _rounded(one) for key, one in measured.items()}


def _rounded(value: Any) -> Any:
    """Keep four digits after the point: rows are read by people, too."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return round(value, 4)


def measure(arrivals: Sequence[Arrival], fates: Sequence[Fate]) -> dict[str, Any]:
    """Count what became of the requests."""
    duration_s = arrivals[-1].ask.arrived_s - arrivals[0].ask.arrived_s
    pairs = list(zip(arrivals, fates, strict=True))
    in_time = [fate for fate in fates if fate.end == "in time"]
    admitted = [fate for fate in fates if fate.end != "refused"]
    groups: dict[str, list[Fate]] = {}
    kinds: dict[tuple[int, str], list[Fate]] = {}
    for one, fate in pairs:
        size = "small" if one.ask.num_candidates < 300 else "large"
        groups.setdefault(f"{one.class_ms} ms", []).append(fate)
        groups.setdefault(size, []).append(fate)
        kinds.setdefault((one.class_ms, size), []).append(fate)
    fair = [_share(kind, "in time") for kind in kinds.values()]
    squares = sum(share * share for share in fair)
    return {
        "goodput_per_s": len(in_time) / duration_s,
        "offered_per_s": len(fates) / duration_s,
        "in_time_share": _share(fates, "in time"),
        "refused_share": _share(fates, "refused"),
        "held_share": sum(fate.was_held for fate in fates) / len(fates),
        "failed_share_of_admitted": 1.0 - len(in_time) / max(len(admitted), 1),
        "late_share_of_admitted": _share(fates, "late") * len(fates) / max(len(admitted), 1),
        "in_time_share_of": {
            name: _share(group, "in time") for name, group in sorted(groups.items())
        },
        "fairness": sum(fair) ** 2 / (len(fair) * squares) if squares else 0.0,
        "p99_ms": {f"{class_ms} ms": _p99_ms(groups[f"{class_ms} ms"]) for class_ms in CLASSES_MS},
        "p50_ms": median([1e3 * fate.latency_s for fate in fates if fate.latency_s] or [0.0]),
        "candidates_per_s": sum(
            fate.kept * one.ask.num_candidates for one, fate in pairs if fate.end == "in time"
        )
        / duration_s,
        "whole_per_s": sum(fate.kept == 1.0 for fate in in_time) / duration_s,
        "kept_share_of_in_time": sum(fate.kept for fate in in_time) / max(len(in_time), 1),
    }


def _share(fates: Sequence[Fate], end: str) -> float:
    return sum(fate.end == end for fate in fates) / max(len(fates), 1)


def _p99_ms(fates: Sequence[Fate]) -> float:
    answered = [1e3 * fate.latency_s for fate in fates if fate.latency_s]
    return float(np.quantile(answered, 0.99)) if answered else 0.0


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Goodput, lateness, latency and fairness by variant, and what the parts are worth."""
    groups = by_variant(rows)
    variants = {
        variant: {"goodput_per_s": spread(one["goodput_per_s"] for one in group)}
        | {key: median(one[key] for one in group) for key in MEDIANS}
        | {
            key: {name: median(one[key][name] for one in group) for name in group[0][key]}
            for key in ("p99_ms", "in_time_share_of")
        }
        for variant, group in groups.items()
    }
    return {
        "worth": {
            load: _worth({name.rpartition(" ")[2]: groups[name] for name in names})
            for load, names in _by_load(groups).items()
            if f"{load} full" in groups
        },
        "variants": variants,
    }


def _by_load(groups: Mapping[str, Any]) -> dict[str, list[str]]:
    loads: dict[str, list[str]] = {}
    for name in groups:
        loads.setdefault(name.rpartition(" ")[0], []).append(name)
    return loads


def _worth(policies: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """Compare medians at one load.

    Each part over `edf_reject`; `hold`, `credit` and `ladder` over `full`; which share of refusals
    `hold` gives untried; and the value that an answer with fewer candidates must have, beside a
    whole one, for `ladder` to be worth as much as `full`.
    """

    def of(policy: str, key: str = "goodput_per_s") -> float:
        return float(median(one[key] for one in policies[policy]))

    worth = {}
    for base, others in (
        ("edf_reject", ("batching", "micro_batches", "booking", "full")),
        ("full", ("hold", "credit", "ladder")),
    ):
        for other in others:
            if base in policies and other in policies and of(base):
                worth[f"{other}_over_{base}"] = of(other) / of(base)
    if "hold" in policies:
        worth["held_share_of_refused"] = of("hold", "held_share") / max(
            of("hold", "refused_share"), 1e-9
        )
    if "ladder" in policies and of("ladder") > of("ladder", "whole_per_s"):
        fewer = of("ladder") - of("ladder", "whole_per_s")
        worth["ladder_break_even"] = (of("full") - of("ladder", "whole_per_s")) / fewer
    return worth
