"""Run a benchmark: `python -m benchmarks.run NAME [--budget MINUTES] [--set KEY=JSON]`."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, ROOT, run_benchmark

DEFAULT_BUDGET_MIN = 40.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark and print its summary.

    Returns:
        0 when all cells are done, 3 when some are left for the next run, 130 after Ctrl-C, 2 for a
        wrong argument.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("name", choices=available(), help="a module of benchmarks/")
    parser.add_argument("--budget", type=float, default=DEFAULT_BUDGET_MIN, help="minutes")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=JSON", dest="changes")
    parser.add_argument("--results", type=Path, default=RESULTS, help="another folder, for trials")
    options = parser.parse_args(arguments)
    benchmark = importlib.import_module(f"benchmarks.{options.name}")
    settings = dict(benchmark.SETTINGS)
    for change in options.changes:
        key, _, text = change.partition("=")
        if key not in settings:
            parser.error(f"--set {change}: no setting {key!r}. Known: {', '.join(settings)}.")
        settings[key] = _value(text)

    path = options.results / f"{options.name}.json"
    try:
        is_complete = run_benchmark(
            options.name,
            benchmark,
            settings=settings,
            budget_s=60 * options.budget,
            results=options.results,
        )
    except KeyboardInterrupt:
        print(f"\nStopped. The finished cells are in {path}; the same command goes on.")
        return 130
    if path.exists():
        print(json.dumps(json.loads(path.read_text(encoding="ascii"))["summary"], indent=1))
    return 0 if is_complete else 3


def available() -> list[str]:
    """Name the modules of `benchmarks/` that plan cells."""
    plans = re.compile(r"^def planned_cells\(", re.MULTILINE)
    files = sorted((ROOT / "benchmarks").glob("*.py"))
    return [file.stem for file in files if plans.search(file.read_text(encoding="utf-8"))]


def _value(text: str) -> Any:
    """Read a setting as JSON; what is not JSON is a string."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


if __name__ == "__main__":
    sys.exit(main())
