"""`rankloom describe`: what a model costs, and the JSON Schema of run files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rankloom.cli.options import Overrides
from rankloom.errors import ConfigError


def describe(
    source: Annotated[
        Path | None, typer.Argument(help="Run file or run folder.", metavar="RUN")
    ] = None,
    overrides: Overrides = None,
    candidates: Annotated[
        int | None,
        typer.Option(help="Show what one request of so many candidates costs at each rate."),
    ] = None,
    json_schema: Annotated[
        bool, typer.Option("--json-schema", help="Print the run file's JSON Schema, for editors.")
    ] = False,
) -> None:
    """Show parameters, FLOPs and bytes per row by part, and table memory."""
    from rankloom import api

    if json_schema:
        typer.echo(json.dumps(api.run_json_schema(), indent=2))
        return
    if source is None:
        raise ConfigError("rankloom describe: give a run file or a run folder.")
    if source.is_dir():
        result = api.load_result(source)
        run, model = result.run, result.model
    else:
        run = api.load_run(source, overrides or [])
        model = api.new_model(run, api.fit(run))
    typer.echo(api.describe(run, model))
    if candidates is not None:
        typer.echo("\n" + api.describe_request(model, candidates))
