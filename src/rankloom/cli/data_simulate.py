"""`rankloom data simulate`: a log whose ceiling is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rankloom.cli.options import Overrides, row_bar


def simulate(
    config: Annotated[
        Path | None,
        typer.Argument(
            help="YAML of sizes and strengths; default values without it.",
            metavar="SIMULATION.yaml",
        ),
    ] = None,
    to: Annotated[Path, typer.Option(help="Folder to write.")] = Path("data/simulated"),
    overrides: Overrides = None,
) -> None:
    """Write an industrial-looking log with the true probabilities beside each row."""
    from rankloom.data.simulate import load_simulation
    from rankloom.data.simulate import simulate as write

    loaded = load_simulation(config, overrides or [])
    with row_bar("simulating") as progress:
        summary = write(loaded, to, progress=progress)
    for line in summary_lines(summary):
        typer.echo(line)
    typer.echo(f"log       {to}          run file  {to / 'run.yaml'}")
    typer.echo(f"next      rankloom train {to / 'run.yaml'}")


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """Give what a log turned out to be as lines.

    Args:
        summary: What `simulation.json` holds.
    """
    distinct = "  ".join(f"{name} {count:,}" for name, count in summary["distinct"].items())
    lines = [f"distinct  {distinct}   {summary['mean_history_events']:.0f} events a history"]
    for name, split in summary["splits"].items():
        rates = "  ".join(f"{task} {rate:.2%}" for task, rate in split["rate"].items())
        lines.append(
            f"{name:<8}  {split['rows']:,} rows in {split['requests']:,} requests   {rates}   "
            f"watch {split['mean_watch_s']:.2f} s"
        )
    # The ceiling is what a model is compared with on the test log.
    split = summary["splits"]["test"]
    for task in ("click", "click_unbiased", "like", "buy"):
        auc, gauc = split["oracle_auc"].get(task), split["oracle_gauc"].get(task)
        lines.append(f"oracle    {task:<15} AUC {_figure(auc)}  GAUC {_figure(gauc)}")
    for part, share in summary["share_of_logit_variance"].items():
        without = split["oracle_auc"].get(f"click_unbiased without {part}")
        beside = "" if without is None else f"   AUC without it {_figure(without)}"
        lines.append(f"signal    {part:<15} {share:6.1%} of the logit's variance{beside}")
    return lines


def _figure(value: float | None) -> str:
    return "none (one label only)" if value is None else f"{value:.4f}"
