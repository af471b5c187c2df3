"""`rankloom export`: write a trained run as an artifact to serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankloom.cli.options import Folder


def export(
    folder: Folder,
    to: Annotated[Path, typer.Option(help="Folder to write; must not be there yet.")],
    quantize: Annotated[
        str,
        typer.Option(
            help="Comma-separated: tables (int8 rows), user (its program's weights in int8), "
            "candidate (its program may run in bf16)."
        ),
    ] = "",
    golden: Annotated[
        Path | None,
        typer.Option(help="Parquet file to take golden requests from; default: the run's log."),
    ] = None,
) -> None:
    """Hoist a trained run and write it, verified, for serving."""
    from rankloom import api

    parts = [part.strip() for part in quantize.split(",") if part.strip()]
    done = api.export(
        folder, to, quantize=parts, golden=golden, report=lambda text: typer.echo(f"{text} ...")
    )
    typer.echo(f"exported  {done.num_bytes / 1e6:,.1f} MB  {done.folder}")
    typer.echo(f"verified  {done.verification}")
    for part, error in done.quantized.largest_error.items():
        typer.echo(f"quantized {part}: scores change by {error:.2g} at most")
    if done.quantized.parts:
        typer.echo(f"          int8 saves {done.quantized.saved_bytes / 1e6:,.1f} MB")
