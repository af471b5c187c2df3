"""Goodput and latency under load: the server beside a plain one, and with parts switched off.

Requests of 500 candidates arrive in a Poisson stream with a deadline of 50 ms, at one rate after
the other, over the loopback, as MessagePack. Two models (`load_models`), four ways to serve them
(`load_ways`); where users' states are kept, four in five requests are of known users, or none. A
cell is one model: all its servers run, and take turns at each rate. Clients, front end and compute
process share this machine. `tuning` cells ask the plain server with one thread and with two.

Goodput counts answers in time per second; `peak` is the most over all rates, `rate_in_time` the
highest rate at which 90 in 100 requests were in time. Ratios are taken within a cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.harness import Cell, Row, by_variant, spread
from benchmarks.load_models import SIZES, artifact_of
from benchmarks.load_ways import Variant, compare_under_load

IN_TIME = 0.9
VARIANTS = [
    Variant("plain", 0.0),
    Variant("hoisted", 0.0),
    Variant("no_scheduler", 0.8),
    Variant("all", 0.0),
    Variant("all", 0.8),
]
PLAIN = VARIANTS[0].name
SETTINGS: dict[str, Any] = {
    "sizes": SIZES,
    "variants": VARIANTS,
    "rates": [12, 20, 30, 40, 55, 75],
    "seconds": 6,
    "candidates": 500,
    "deadline_ms": 50,
    "known_users": 40,
    "warm_up": 40,
    "threads": 1,
    "tuning": {"threads": [1, 2], "rates": [20, 30]},
    "repeats": 3,
}


def planned_cells(settings: Mapping[str, Any]) -> list[Cell]:
    """One cell for each model and repeat; and the plain server's with other threads."""
    keys = ("seconds", "candidates", "deadline_ms", "known_users", "warm_up")
    common = {key: settings[key] for key in keys}
    cells = []
    for repeat in range(settings["repeats"]):
        for model, sizes in settings["sizes"].items():
            of_model = {"model": model, "sizes": sizes, **common}
            options = {"rates": settings["rates"], "threads": settings["threads"]}
            options |= {"variants": settings["variants"]}
            cells.append(Cell(model, repeat, {**of_model, **options}))
            for threads in settings["tuning"]["threads"]:
                options = {"rates": settings["tuning"]["rates"], "threads": threads}
                options |= {"variants": VARIANTS[:1]}
                cells.append(Cell(f"{model} tuning {threads}", repeat, {**of_model, **options}))
    return cells


def run_cell(cell: Cell) -> dict[str, Any]:
    """Start a model's servers and ask them at one rate after the other."""
    options = cell.options
    plan = {
        "has_history": "history" in options["sizes"],
        "seed": cell.repeat,
        "candidates": [options["candidates"]],
        "deadlines_ms": [options["deadline_ms"]],
        **{key: options[key] for key in ("known_users", "warm_up", "seconds")},
    }
    return compare_under_load(
        artifact_of(options["model"], options["sizes"]),
        [Variant(*one) for one in options["variants"]],
        plan,
        rates=lambda _: options["rates"],
        threads=options["threads"],
    )


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Peaks by model and variant, and ratios to the plain server of the same cell."""
    return {
        model: {name: _of_variant(group, name) for name in group[0]}
        for model, group in by_variant(rows).items()
    }


def _of_variant(group: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    mine = [one[name] for one in group]
    at_rates = list(zip(*(one["rates"] for one in mine), strict=True))
    found = {
        "unloaded_ms": spread(one["unloaded"]["ms"]["p50"] for one in mine),
        "unloaded_work_ms": spread(one["unloaded"]["work_ms"]["p50"] for one in mine),
        "unloaded_overhead_ms": spread(one["unloaded"]["overhead_ms"]["p50"] for one in mine),
        "peak_per_s": spread(map(peak, mine)),
        "rate_in_time_per_s": spread(map(rate_in_time, mine)),
        "at_rates": {
            f"{rates[0]['offered_per_s']:g}": {
                "goodput_per_s": median(one["goodput_per_s"] for one in rates),
                **{
                    at: median(one["ms"][at] for one in rates if one["ms"])
                    for at in ("p50", "p95", "p99")
                    if any(one["ms"] for one in rates)
                },
            }
            for rates in at_rates
        },
        "most_of_clients_cpu_share": max(
            one["clients_cpu_share"] for rates in at_rates for one in rates
        ),
    }
    if name != PLAIN:
        pairs = [(one[name], one[PLAIN]) for one in group]
        found["peak_over_plain"] = spread(peak(one) / peak(plain) for one, plain in pairs)
        lasts = [[each["rates"][-1]["goodput_per_s"] for each in pair] for pair in pairs]
        # At the last rate a server may answer nothing in time.
        ratios = [one / plain for one, plain in lasts if plain]
        if ratios:
            found["goodput_over_plain_at_last_rate"] = spread(ratios)
    return found


def peak(measured: Mapping[str, Any]) -> float:
    """Give the most answers in time per second at any rate."""
    return float(max(rate["goodput_per_s"] for rate in measured["rates"]))


def rate_in_time(measured: Mapping[str, Any]) -> float:
    """Give the highest rate at which nearly all requests were in time; 0 if there is none."""
    rates = [one["offered_per_s"] for one in measured["rates"] if one["in_time_share"] >= IN_TIME]
    return float(max(rates, default=0))
