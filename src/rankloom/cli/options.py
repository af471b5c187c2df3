"""Options that several verbs share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

RunFile = Annotated[Path, typer.Argument(help="YAML run file.", metavar="RUN.yaml")]
Folder = Annotated[Path, typer.Argument(help="Run folder, as written by `rankloom train`.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Set a value of the run file; repeatable."),
]

LINE_EVERY_S = 30.0
"""Seconds between two lines of progress where there is no terminal."""


@contextmanager
def row_bar(title: str) -> Iterator[Callable[[int], None]]:
    """Show how many rows are done, on a terminal only."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done: progress.update(
            task, completed=done, description=f"{title} {done:,} rows"
        )


@contextmanager
def stage_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show what is being done: a bar on a terminal, a line now and then elsewhere."""
    console = Console(stderr=True)
    if console.is_terminal:
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("", total=None)
            yield lambda stage, done, total: progress.update(
                task, description=stage, completed=done, total=total
            )
        return
    last = time.monotonic()

    def line(stage: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY_S:
            last = time.monotonic()
            typer.echo(f"{stage}  {done:,} of {total:,} ({done / max(total, 1):.0%})")

    yield line
