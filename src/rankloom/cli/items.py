"""`rankloom items`: items by id, so that clients of the server need not send their features."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from rankloom.cli.options import stage_bar


def items(
    source: Annotated[
        list[str],
        typer.Argument(
            help="Parquet files or patterns: one line an item, or a flat or grouped log, of which "
            "an item's last line counts.",
            metavar="IN...",
        ),
    ],
    artifact: Annotated[
        Path, typer.Option(help="Artifact that will score; says which columns items have.")
    ],
    to: Annotated[Path, typer.Option(help="Folder to write; must not be there yet.")],
    item: Annotated[
        str | None, typer.Option(help="Column of the ids; default: the artifact's roles.item.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="Comma-separated columns to look up; clients send the others."),
    ] = None,
) -> None:
    """Write what an artifact reads of each item, for the server to look it up by id."""
    from rankloom.artifact.manifest import VOCABULARIES, read_manifest
    from rankloom.artifact.vocabularies import read_indexes
    from rankloom.serving.store.item_export import export_items

    manifest, _ = read_manifest(artifact)
    indexes = read_indexes(artifact / VOCABULARIES, manifest.vocabularies)
    chosen = None
    if columns is not None:
        chosen = [name.strip() for name in columns.split(",") if name.strip()]
    began = time.perf_counter()
    with stage_bar() as report:
        done = export_items(
            source,
            to,
            manifest.schema_of_log,
            item=item,
            columns=chosen,
            indexes=indexes,
            report=report,
        )
    typer.echo(f"items     {done.num_items:,} of {done.num_rows:,} rows, the last of each item")
    if done.num_nameless:
        typer.echo(f"          {done.num_nameless:,} rows without {done.item} were left out")
    typer.echo(f"columns   {', '.join(done.columns)}, by {done.item}")
    seconds = time.perf_counter() - began
    typer.echo(f"written   {done.num_bytes / 1e6:,.1f} MB  {done.folder}  {seconds:.1f} s")
