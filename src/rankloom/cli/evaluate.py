"""`rankloom evaluate`: metrics of a trained run on a log."""

from __future__ import annotations

from typing import Annotated

import typer

from rankloom.cli.options import Folder, row_bar


def evaluate(
    folder: Folder,
    split: Annotated[
        str, typer.Option(help="train, valid or test; or a name for --files.")
    ] = "test",
    files: Annotated[
        list[str] | None, typer.Option(help="Parquet files instead of the run file's; repeatable.")
    ] = None,
) -> None:
    """Evaluate a trained run; write evaluation.json and the report in its folder."""
    from rankloom import api

    result = api.load_result(folder)
    with row_bar("evaluating") as report:
        found = api.evaluate(result, split, files=tuple(files) if files else None, report=report)
    typer.echo(str(found))
    for column, by_value in found.slices.items():
        for value, tasks in by_value.items():
            for task, metrics in tasks.items():
                typer.echo(f"{column}={value}  {task}  {metrics.num_rows:,} rows  {metrics.line()}")
    typer.echo(f"{found.rows_per_s:,.0f} rows/s   report  {result.folder.report}")
