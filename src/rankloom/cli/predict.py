"""`rankloom predict`: score a Parquet file into another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankloom.cli.options import Folder, row_bar


def predict(
    folder: Folder,
    source: Annotated[Path, typer.Argument(help="Parquet file of rows to score.")],
    to: Annotated[Path, typer.Option(help="Parquet file to write.")],
    columns: Annotated[
        list[str] | None,
        typer.Option(help="Column of the source to keep; repeatable; default: the roles'."),
    ] = None,
) -> None:
    """Score every row of a Parquet file; labels need not be there."""
    from rankloom import api

    with row_bar("scoring") as report:
        done = api.predict(folder, source, to, columns=columns, report=report)
    typer.echo(f"scored    {done:,} lines  {to}")
