"""`rankloom verify`: score an artifact's golden requests again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of an artifact.")],
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")
    ] = "cpu",
) -> None:
    """Check an artifact's files and scores; the first tensor that differs is named."""
    from rankloom import api

    found = api.verify(folder, device=device)
    typer.echo(f"verified  {found}")
    for choice in found.choices:
        typer.echo(f"          {choice}")
