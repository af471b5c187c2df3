"""Goodput and latency under load: the server beside a plain one, and with parts switched off.

Requests of 500 candidates arrive in a Poisson stream with a deadline of 50 ms, at one rate after
the other, over the loopback, as MessagePack. Two models (`load_models`), five ways to serve them
(`load_ways`); where users' states are kept, four in five requests are of known users, or none.
Clients, front end and compute process share this machine.

Goodput counts answers in time per second; `peak` is the most over all rates, `rate_in_time` the
highest rate at which 95 in 100 requests were in time. Ratios are taken within a repeat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.harness import Cell, Row, by_variant, spread
from benchmarks.load_models import SIZES, artifact_of
from benchmarks.load_ways import server_of
from benchmarks.open_loop import ask_open_loop

IN_TIME = 0.95
SETTINGS: dict[str, Any] = {
    "sizes": SIZES,
    "ways": {
        "plain": [0.0],
        "hoisted": [0.0],
        "no_scheduler": [0.8],
        "all": [0.0, 0.8],
    },
    "rates": [10, 20, 30, 40, 55, 75, 100],
    "seconds": 8,
    "candidates": 500,
    "deadline_ms": 50,
    "known_users": 40,
    "warm_up": 60,
    "threads": 1,
    "tuning": {"threads": [1, 2], "rates": [20, 30]},
    "repeats": 3,
}


def planned_cells(settings: Mapping[str, Any]) -> list[Cell]:
    """One cell for each model, way, share of hits and repeat; and the plain server's threads."""
    keys = ("seconds", "candidates", "deadline_ms", "known_users", "warm_up")
    common = {key: settings[key] for key in keys}
    cells = []
    for repeat in range(settings["repeats"]):
        for model, sizes in settings["sizes"].items():
            of_model = {"model": model, "sizes": sizes, **common}
            for way, shares in settings["ways"].items():
                for share in shares:
                    options = {"way": way, "hit_share": share, "rates": settings["rates"]}
                    options |= {"threads": settings["threads"]}
                    hits = f" {share:.0%} hits" if way in {"no_scheduler", "all"} else ""
                    cells.append(Cell(f"{model} {way}{hits}", repeat, {**of_model, **options}))
            for threads in settings["tuning"]["threads"]:
                options = {"way": "plain", "hit_share": 0.0, "threads": threads}
                options |= {"rates": settings["tuning"]["rates"]}
                variant = f"{model} plain tuning {threads} threads"
                cells.append(Cell(variant, repeat, {**of_model, **options}))
    return cells


def run_cell(cell: Cell) -> dict[str, Any]:
    """Start a server and let it be asked at one rate after the other."""
    options = cell.options
    artifact = artifact_of(options["model"], options["sizes"])
    plan = {
        "model": options["model"],
        "seed": cell.repeat,
        "candidates": [options["candidates"]],
        "deadlines_ms": [options["deadline_ms"]],
        **{k: options[k] for k in ("hit_share", "known_users", "warm_up", "rates", "seconds")},
    }
    with server_of(artifact, options["way"], threads=options["threads"]) as server:
        found = ask_open_loop(server.url, plan)
        return {**found, "cpu_shares": dict(server.cpu_shares())}


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Peaks by variant, and ratios to the plain server of the same repeat."""
    groups = by_variant(rows)
    summary: dict[str, Any] = {"variants": {}, "over_plain": {}}
    for variant, group in groups.items():
        summary["variants"][variant] = {
            "peak_per_s": spread(map(peak, group)),
            "rate_in_time_per_s": spread(map(rate_in_time, group)),
            "unloaded_ms": spread(one["unloaded"]["ms"]["p50"] for one in group),
            "overhead_ms": spread(one["unloaded"]["overhead_ms"]["p50"] for one in group),
            "hit_share": median(one["unloaded"]["hit_share"] for one in group),
            "p95_ms_by_rate": {
                f"{rates[0]['offered_per_s']:g}": median(
                    rate["ms"]["p95"] if rate["ms"] else float(10**6) for rate in rates
                )
                for rates in zip(*(one["rates"] for one in group), strict=True)
            },
            "most_of_clients_cpu_share": max(
                rate["clients_cpu_share"] for one in group for rate in one["rates"]
            ),
        }
        plain = groups.get(f"{variant.split()[0]} plain", [])
        if plain and "plain" not in variant:
            pairs = list(zip(group, plain, strict=False))
            summary["over_plain"][variant] = {
                "peak": spread(peak(one) / peak(base) for one, base in pairs),
                "rate_in_time": spread(
                    rate_in_time(one) / rate_in_time(base)
                    for one, base in pairs
                    if rate_in_time(base)
                )
                if any(rate_in_time(base) for _, base in pairs)
                else None,
            }
    return summary


def peak(measured: Mapping[str, Any]) -> float:
    """Give the most answers in time per second at any rate."""
    return float(max(rate["goodput_per_s"] for rate in measured["rates"]))


def rate_in_time(measured: Mapping[str, Any]) -> float:
    """Give the highest rate at which nearly all requests were in time; 0 if there is none."""
    rates = [one["offered_per_s"] for one in measured["rates"] if one["in_time_share"] >= IN_TIME]
    return float(max(rates, default=0))
