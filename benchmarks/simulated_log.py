"""The simulated log that benchmarks share, and a run file for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT
from rankloom.config import read_yaml
from rankloom.data.simulate import load_simulation, simulate

LOGS = ROOT / ".bench" / "simulated"
NEAR = 20
LOG: dict[str, Any] = {
    "rows.train": 1_400_000,
    "rows.valid": 100_000,
    "rows.test": 500_000,
    "users.count": 10_000,
    "items.count": 20_000,
    "items.creators": 1_000,
    "history.length": 200,
    "history.near": NEAR,
    "history.initial": 150,
    "parts": True,
}
"""Two million rows, of which half a million are the test split."""
PAST = ("history", "near_past")
"""The sequences of `simulated_run`."""


def simulated_log(values: Mapping[str, Any]) -> Path:
    """Write the log of these values once; a later call finds it."""
    config = load_simulation(None, values)
    folder = LOGS / config.digest()[:16]
    if not folder.exists():
        simulate(config, folder)
    return folder


def simulated_run(folder: Path) -> dict[str, Any]:
    """Give `data`, `schema`, `roles` and the task `click` of a simulated log's run file.

    The near past is a sequence of its own beside the whole history, so that an encoder that weighs
    all events alike can tell the two apart.
    """
    values = read_yaml(folder / "run.yaml")
    schema = values["schema"]
    history = schema["history"]
    near = {name: {**one, "column": f"history_{name}"} for name, one in history["columns"].items()}
    schema["near_past"] = {**history, "max_length": NEAR, "columns": near}
    return {
        **{name: values[name] for name in ("data", "roles")},
        "schema": schema,
        "tasks": {"click": values["tasks"]["click"]},
    }
