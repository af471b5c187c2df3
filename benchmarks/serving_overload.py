"""More requests than can be answered: goodput, refusals and lateness at up to five times capacity.

Requests of 100, 300 or 500 candidates with deadlines of 20, 50 or 200 ms arrive in a Poisson stream
over the loopback, four in five of them of known users; one model, `mixer` of `load_models`. Loads
are multiples of what one thread could do by the work that unloaded requests take. Ways to serve
(`load_ways`): `all`; `fifo`, which refuses what would be late; `no_scheduler`, which does not. All
servers run, and take turns at each load.

Clients, front end and compute process share this machine: at five times capacity the former two
take a part of what computes, see `cpu_shares` and `clients_cpu_share`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.harness import Cell, Row, by_variant, spread
from benchmarks.load_models import SIZES, artifact_of
from benchmarks.load_ways import Variant, compare_under_load

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
    """One cell for each repeat."""
    options = {key: value for key, value in settings.items() if key != "repeats"}
    return [Cell(MODEL, repeat, options) for repeat in range(settings["repeats"])]


def run_cell(cell: Cell) -> dict[str, Any]:
    """Start the servers and ask them at one load after the other."""
    options = cell.options
    keys = ("candidates", "deadlines_ms", "known_users", "warm_up", "seconds")
    plan = {"has_history": False, "seed": cell.repeat, **{key: options[key] for key in keys}}

    def rates(unloaded: Mapping[str, Mapping[str, Any]]) -> list[float]:
        capacity = median(1e3 / one["work_ms"]["mean"] for one in unloaded.values())
        return [load * capacity for load in options["loads"]]

    found = compare_under_load(
        artifact_of(MODEL, options["sizes"]),
        [Variant(way, options["hit_share"]) for way in options["ways"]],
        plan,
        rates=rates,
        threads=options["threads"],
    )
    for one in found.values():
        for load, at in zip(options["loads"], one["rates"], strict=True):
            at["load"] = load
    return found


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Medians by way and load; at twice capacity and more, whether each goal is met."""
    group = by_variant(rows)[MODEL]
    return {
        name: {
            f"{load:g}x": _at_load([one[name] for one in group], place)
            for place, load in enumerate(at["load"] for at in group[0][name]["rates"])
        }
        for name in group[0]
    }


def _at_load(mine: Sequence[Mapping[str, Any]], place: int) -> dict[str, Any]:
    rates = [one["rates"][place] for one in mine]
    peaks = [max(at["goodput_per_s"] for at in one["rates"]) for one in mine]
    found: dict[str, Any] = {
        "offered_per_s": median(one["offered_per_s"] for one in rates),
        "goodput_per_s": spread(one["goodput_per_s"] for one in rates),
        "goodput_over_peak": spread(
            one["goodput_per_s"] / peak for one, peak in zip(rates, peaks, strict=True)
        ),
        "refused_share": spread(one["refused_share"] for one in rates),
        "late_share_of_admitted": spread(one["late_share_of_admitted"] for one in rates),
        "in_time_share_by_deadline": {
            deadline: median(one["in_time_share_by_deadline"][deadline] for one in rates)
            for deadline in rates[0]["in_time_share_by_deadline"]
        },
        "clients_cpu_share": median(one["clients_cpu_share"] for one in rates),
        "cpu_shares": {
            name: median(one["cpu_shares"][name] for one in rates)
            for name in rates[0]["cpu_shares"]
        },
    }
    refusals = [one["refusal_ms"]["p99"] for one in rates if one["refusal_ms"]]
    if refusals:
        found["refusal_p99_ms"] = spread(refusals)
    if rates[0]["load"] >= 2:
        found["meets"] = _met(found)
    return found


def _met(at: Mapping[str, Any]) -> dict[str, bool]:
    return {
        "goodput_over_peak": at["goodput_over_peak"]["median"] >= GOALS["goodput_over_peak"],
        "refusal_p99_ms": at.get("refusal_p99_ms", {"median": 0.0})["median"]
        <= GOALS["refusal_p99_ms"],
        "late_share_of_admitted": at["late_share_of_admitted"]["median"]
        <= GOALS["late_share_of_admitted"],
    }
