"""`rankloom data`: public data sets as Parquet logs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Prepare public data sets.", no_args_is_help=True)


@app.command("list")
def list_datasets() -> None:
    """List the data sets with their sources and terms."""
    from rankloom.data.datasets import DATASETS

    for name, spec in DATASETS.items():
        typer.echo(f"{name}\n  {spec.title}\n  source: {spec.source}\n  terms: {spec.terms}")


@app.command("prepare")
def prepare(
    name: Annotated[str, typer.Argument(help="A name of `rankloom data list`.")],
    to: Annotated[Path | None, typer.Option(help="Folder to write; default data/<name>.")] = None,
    split: Annotated[
        str | None, typer.Option(help="How to split, where the data set has a choice.")
    ] = None,
) -> None:
    """Write a data set as Parquet: train, valid and test."""
    from rankloom.data.datasets import prepare_dataset

    options = {} if split is None else {"split": split}
    found = prepare_dataset(name, to or Path("data") / name, report=typer.echo, **options)
    typer.echo(prepared_line(found.folder, found.rows))


def prepared_line(folder: Path, rows: dict[str, int]) -> str:
    """Give one line on a prepared data set."""
    counts = "  ".join(f"{split} {count:,}" for split, count in rows.items())
    return f"prepared  {folder}  {counts}"
