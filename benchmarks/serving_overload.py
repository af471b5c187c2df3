"""More requests than can be answered: goodput, refusals and lateness at up to five times capacity.

Requests of 100, 300 or 500 candidates with deadlines of 20, 50 or 200 ms arrive in a Poisson stream
over the loopback, four in five of them of known users; one model, `mixer` of `load_models`. Loads
are multiples of what one thread could do by the work that unloaded requests take. Ways to serve
(`load_ways`): `all`; `fifo`, which refuses what would be late; `no_scheduler`, which does not.

Clients, front end and compute process share this machine: at five times capacity the former two
take a part of what computes, see `cpu_shares` and `clients_cpu_share`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.harness import Cell, Row, by_variant, spread
from benchmarks.load_models import SIZES, artifact_of
from benchmarks.load_ways import server_of
from benchmarks.open_loop import ask_open_loop

MODEL = "mixer"
SETTINGS: dict[str, Any] = {
    "sizes": SIZES[MODEL],
    "ways": ["all", "fifo", "no_scheduler"],
    "loads": [0.5, 0.8, 1.0, 1.4, 2.0, 5.0],
    "seconds": 8,
    "candidates": [100, 300, 500],
    "deadlines_ms": [20, 50, 200],
    "hit_share": 0.8,
    "known_users": 40,
    "warm_up": 100,
    "threads": 1,
    "repeats": 3,
}
GOALS = {"goodput_over_peak": 0.9, "refusal_p99_ms": 5.0, "late_share_of_admitted": 0.01}


def planned_cells(settings: Mapping[str, Any]) -> list[Cell]:
    """One cell for each way and repeat."""
    common = {key: value for key, value in settings.items() if key not in {"ways", "repeats"}}
    return [
        Cell(way, repeat, {"way": way, **common})
        for repeat in range(settings["repeats"])
        for way in settings["ways"]
    ]


def run_cell(cell: Cell) -> dict[str, Any]:
    """Start a server and let it be asked at one load after the other."""
    options = cell.options
    plan = {key: value for key, value in options.items() if key not in {"sizes", "way", "threads"}}
    artifact = artifact_of(MODEL, options["sizes"])
    with server_of(artifact, options["way"], threads=options["threads"]) as server:
        found = ask_open_loop(server.url, {**plan, "model": MODEL, "seed": cell.repeat})
        cpu_shares = dict(server.cpu_shares())
    rates = [
        {"load": load, **rate} for load, rate in zip(options["loads"], found["rates"], strict=True)
    ]
    return {**found, "rates": rates, "cpu_shares": cpu_shares}


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Medians by way and load; at twice capacity and more, whether each goal is met."""
    summary: dict[str, Any] = {}
    for way, group in by_variant(rows).items():
        loads = {}
        for rates in zip(*(one["rates"] for one in group), strict=True):
            at = {
                "goodput_per_s": spread(one["goodput_per_s"] for one in rates),
                "goodput_over_peak": spread(
                    rate["goodput_per_s"] / max(each["goodput_per_s"] for each in one["rates"])
                    for rate, one in zip(rates, group, strict=True)
                ),
                "refused_share": spread(one["refused_share"] for one in rates),
                "late_share_of_admitted": spread(one["late_share_of_admitted"] for one in rates),
                "in_time_share_by_deadline": {
                    deadline: median(one["in_time_share_by_deadline"][deadline] for one in rates)
                    for deadline in rates[0]["in_time_share_by_deadline"]
                },
                "clients_cpu_share": median(one["clients_cpu_share"] for one in rates),
            }
            refusals = [one["refusal_ms"]["p99"] for one in rates if one["refusal_ms"]]
            if refusals:
                at["refusal_p99_ms"] = spread(refusals)
            if rates[0]["load"] >= 2:
                at["meets"] = _met(at)
            loads[f"{rates[0]['load']:g}x"] = at
        summary[way] = loads
    return summary


def _met(at: Mapping[str, Any]) -> dict[str, bool]:
    return {
        "goodput_over_peak": at["goodput_over_peak"]["median"] >= GOALS["goodput_over_peak"],
        "refusal_p99_ms": at.get("refusal_p99_ms", {"median": 0.0})["median"]
        <= GOALS["refusal_p99_ms"],
        "late_share_of_admitted": at["late_share_of_admitted"]["median"]
        <= GOALS["late_share_of_admitted"],
    }
