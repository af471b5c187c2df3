"""`rankloom train`: from a run file to a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankloom.cli.options import Overrides
from rankloom.errors import ConfigError


def train(
    run_file: Annotated[
        Path | None, typer.Argument(help="YAML run file.", metavar="RUN.yaml")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="Run folder to make; default runs/<name>.")
    ] = None,
    overrides: Overrides = None,
    resume: Annotated[
        Path | None, typer.Option(help="Run folder to go on with, bit for bit.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove a run that stands in the folder.")
    ] = False,
) -> None:
    """Train a model; evaluate it on the test log if there is one."""
    from rankloom import api

    if (run_file is None) == (resume is None):
        raise ConfigError("rankloom train: give either a run file or --resume FOLDER.")
    if resume is not None:
        if overrides or to or overwrite:
            raise ConfigError("rankloom train --resume: takes no --set, --to or --overwrite.")
        result = api.resume(resume)
    else:
        assert run_file is not None
        run = api.load_run(run_file, overrides or [])
        result = api.train(run, to, overwrite=overwrite)
    if result.is_interrupted:
        raise typer.Exit(130)
    if result.run.config.data.test is not None:
        typer.echo(str(api.evaluate(result, "test")))
    typer.echo(f"run       {result.folder.path}          report  {result.folder.report}")
