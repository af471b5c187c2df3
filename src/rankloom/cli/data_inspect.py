"""`rankloom data inspect`: a look at a log before training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankloom.cli.options import row_bar
from rankloom.errors import ConfigError

if TYPE_CHECKING:
    from rankloom.data.inspection.draft import Draft


def inspect(
    files: Annotated[
        list[str], typer.Argument(help="Parquet files of a log, or globs.", metavar="FILE...")
    ],
    test: Annotated[
        list[str] | None,
        typer.Option(help="Parquet files of the test log, to compare; repeatable."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Run file whose schema the log is checked against.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="Where to write a draft of a run file; must not be there.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="A label, such as 'rating >= 4'; repeatable. Default: found by names."),
    ] = None,
    limit_rows: Annotated[
        int | None, typer.Option(min=1, help="Read about so many lines, from all over the log.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 where a finding is an error.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything as one JSON document.")
    ] = False,
) -> None:
    """Show what a log's columns are and what looks wrong; draft a run file."""
    from rankloom.data.inspection.inspection import Options, inspect_log
    from rankloom.data.inspection.text import as_text

    if to is not None and to.exists():
        raise ConfigError(f"{to}: is there already. Give another --to, or remove it.")
    options = Options(**_of_run(run), labels=tuple(label or ()), limit_rows=limit_rows)
    with row_bar("inspecting") as report:
        found = inspect_log(files, test=test, options=options, report=report)
    typer.echo(json.dumps(found.to_dict(), allow_nan=False) if as_json else as_text(found))
    if to is not None:
        _write_draft(found.draft, to)
        if not as_json:
            typer.echo(f"draft   {to}")
    if strict and any(finding.severity == "error" for finding in found.findings):
        raise typer.Exit(1)


def _of_run(run_file: Path | None) -> dict[str, Any]:
    """Give what a run file says of the log."""
    if run_file is None:
        return {}
    from rankloom import api

    run = api.load_run(run_file)
    return {"schema": run.schema, "layout": run.config.data.layout}


def _write_draft(draft: Draft | None, to: Path) -> None:
    """Write a draft, checked to load."""
    from rankloom import api
    from rankloom.atomic import write_text

    if draft is None:
        raise ConfigError(
            f"{to}: cannot be drafted without a label and a feature. Got a log in which no column "
            "looks like a label. Name one with --label."
        )
    api.load_run(draft.values)
    write_text(to, draft.to_yaml())
