"""`rankloom data`: public data sets as Parquet logs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankloom.cli.data_bench import bench
from rankloom.cli.data_group import group, ungroup
from rankloom.cli.data_inspect import inspect
from rankloom.cli.data_simulate import simulate

app = typer.Typer(help="Logs: public, simulated and your own.", no_args_is_help=True)
app.command("simulate")(simulate)
app.command("group")(group)
app.command("ungroup")(ungroup)
app.command("bench")(bench)
app.command("inspect")(inspect)


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
    choices: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Another choice of the data set; repeatable."
        ),
    ] = None,
) -> None:
    """Write a data set as Parquet: train, valid and test."""
    from rankloom.config.load import apply_overrides
    from rankloom.data.datasets import prepare_dataset

    options = apply_overrides({}, choices or ())
    if split is not None:
        options["split"] = split
    found = prepare_dataset(name, to or Path("data") / name, options, report=typer.echo)
    typer.echo(prepared_line(found.folder, found.rows))


def prepared_line(folder: Path, rows: dict[str, int]) -> str:
    """Give one line on a prepared data set."""
    counts = "  ".join(f"{split} {count:,}" for split, count in rows.items())
    return f"prepared  {folder}  {counts}"
