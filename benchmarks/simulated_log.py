"""The simulated log that benchmarks share, and a run file for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT
from rankloom.data.simulate import SimulationConfig, load_simulation, simulate
from rankloom.data.simulate.run_file import run_values

LOGS = ROOT / ".bench" / "simulated"
LOG: dict[str, Any] = {
    "rows.train": 1_400_000,
    "rows.valid": 100_000,
    "rows.test": 500_000,
    "users.count": 10_000,
    "items.count": 20_000,
    "items.creators": 1_000,
    "history.length": 200,
    "history.initial": 150,
    "parts": True,
}
"""Two million rows, of which half a million are the test split."""
PAST: dict[str, Any] = {
    "history": {"kind": "masked_mean"},
    "near_past": {"kind": "masked_mean"},
}
"""An encoder for each sequence of `simulated_run`."""


def simulated_log(values: Mapping[str, Any]) -> Path:
    """Write the log of these values once; a later call finds it."""
    config = load_simulation(None, values)
    folder = _folder(config)
    if not folder.exists():
        simulate(config, folder)
    return folder


def simulated_run(values: Mapping[str, Any]) -> dict[str, Any]:
    """Give `data`, `schema`, `roles` and the task `click` of the log's run file.

    The near past is a sequence of its own beside the whole history, so that an encoder that weighs
    all events alike can tell the two apart.
    """
    config = load_simulation(None, values)
    run = run_values(config, _folder(config))
    schema = run["schema"]
    history = schema["history"]
    near = {name: {**one, "column": f"history_{name}"} for name, one in history["columns"].items()}
    schema["near_past"] = {**history, "max_length": config.history.near, "columns": near}
    return {
        **{name: run[name] for name in ("data", "roles")},
        "schema": schema,
        "tasks": {"click": run["tasks"]["click"]},
    }


def _folder(config: SimulationConfig) -> Path:
    return LOGS / config.digest()[:16]
