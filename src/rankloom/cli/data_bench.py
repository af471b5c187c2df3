"""`rankloom data bench`: how fast each stage of reading a run's log is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankloom.cli.options import Overrides


def bench(
    source: Annotated[Path, typer.Argument(help="Run file or run folder.", metavar="RUN")],
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "train",
    seconds: Annotated[float, typer.Option(help="How long to measure, about.")] = 10.0,
    overrides: Overrides = None,
    model: Annotated[
        bool, typer.Option("--model", help="Time training steps too, to compare with.")
    ] = False,
) -> None:
    """Measure rows a second of each stage of reading a run's log, and say which one limits."""
    from rankloom import api

    found = api.bench_data(
        source, overrides or [], split=split, seconds=seconds, with_model=model, printer=typer.echo
    )
    typer.echo(str(found))
