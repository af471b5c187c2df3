"""`rankloom data group` and `data ungroup`: one layout of a log made of the other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankloom.cli.options import stage_bar
from rankloom.errors import ConfigError

if TYPE_CHECKING:
    from rankloom.schema import Schema

Inputs = Annotated[list[str], typer.Argument(help="Parquet files or patterns.", metavar="IN...")]
Output = Annotated[
    Path,
    typer.Option(
        help="A .parquet file to write, or a folder that gets a file for each; must not be there."
    ),
]
Candidates = Annotated[
    str | None,
    typer.Option(
        help="Comma-separated columns with one value a row; the others are the request's."
    ),
]
RunOption = Annotated[
    Path | None, typer.Option(help="Run file that says whose its columns are.", metavar="RUN.yaml")
]


def group(
    inputs: Inputs,
    to: Output,
    by: Annotated[
        str | None, typer.Option(help="Column that names the request; default: the run file's.")
    ] = None,
    candidate_columns: Candidates = None,
    run: RunOption = None,
) -> None:
    """Write a flat log with one line a request, its candidates' columns as lists."""
    from rankloom.data.regroup import group_log

    chosen, schema = _sides(candidate_columns, run)
    began = time.perf_counter()
    with stage_bar() as report:
        found = group_log(inputs, to, by=by, candidates=chosen, schema=schema, report=report)
    order = (
        "the rows of each follow each other"
        if found.is_contiguous
        else "not all of whose rows followed each other: now in the order of first appearance, "
        "requests and the rows of each"
    )
    typer.echo(f"requests  {found.num_requests:,} in {found.num_rows:,} rows, {order}")
    _say_columns(found.request_columns, found.candidate_columns)
    typer.echo(f"grouped   {to}  {_size(to)}  {time.perf_counter() - began:.1f} s")


def ungroup(
    inputs: Inputs,
    to: Output,
    candidate_columns: Candidates = None,
    run: RunOption = None,
) -> None:
    """Write a grouped log with one line a row; undoes `group`."""
    from rankloom.data.regroup import ungroup_log

    chosen, schema = _sides(candidate_columns, run)
    began = time.perf_counter()
    with stage_bar() as report:
        found = ungroup_log(inputs, to, candidates=chosen, schema=schema, report=report)
    typer.echo(f"requests  {found.num_requests:,} in {found.num_rows:,} rows")
    if found.num_empty:
        typer.echo(f"          {found.num_empty:,} had no candidates, and are in no row")
    _say_columns(found.request_columns, found.candidate_columns)
    typer.echo(f"flat      {to}  {_size(to)}  {time.perf_counter() - began:.1f} s")


def _sides(candidates: str | None, run: Path | None) -> tuple[list[str] | None, Schema | None]:
    if candidates is not None and run is not None:
        raise ConfigError(
            "--candidate-columns: says the same as --run. Got both. Give one of the two."
        )
    if run is not None:
        from rankloom import api

        return None, api.load_run(run).schema
    if candidates is None:
        return None, None
    return [name.strip() for name in candidates.split(",") if name.strip()], None


def _say_columns(request: Sequence[str], candidate: Sequence[str]) -> None:
    for title, names in (("request", request), ("candidate", candidate)):
        typer.echo(f"{title:<9} {len(names)} columns: {', '.join(names)}")


def _size(to: Path) -> str:
    files = [to] if to.is_file() else sorted(to.iterdir())
    return f"{sum(file.stat().st_size for file in files) / 1e6:,.1f} MB"
