"""The `rankloom` command: verbs, errors as one clear message, memory set up for large tensors."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from rankloom import __version__
from rankloom.cli import (
    check,
    data,
    describe,
    evaluate,
    models,
    predict,
    quickstart,
    train,
)
from rankloom.errors import RankLoomError

app = typer.Typer(
    help="Train, evaluate and use large recommender ranking models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("quickstart")(quickstart.quickstart)
app.add_typer(data.app, name="data")
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("describe")(describe.describe)
app.command("check")(check.check)
app.command("models")(models.models)

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(2**33),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**28),
}
"""glibc keeps freed memory instead of giving it back: by default each large tensor is mapped and
faulted in anew, which can cost more than the matmul that fills it."""


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"rankloom {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Say it.")
    ] = False,
) -> None:
    """Train, evaluate and use large recommender ranking models."""


def main() -> None:
    """Run the command; an error is one message on standard error and never a traceback."""
    _set_up_allocator()
    debug = "--debug" in sys.argv
    if debug:
        # Allowed anywhere on the line, as people add it after the fact.
        sys.argv = [one for one in sys.argv if one != "--debug"]
    try:
        app()
    except RankLoomError as error:
        if debug:
            raise
        typer.echo(str(error), err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        if debug:
            raise
        typer.echo("stopped", err=True)
        sys.exit(130)
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        typer.echo(
            f"{where}{error.strerror or error}. Free some space, or give another place.", err=True
        )
        sys.exit(2)


def _set_up_allocator() -> None:
    """Start anew with the allocator's settings, which it reads only at the start of a process."""
    if sys.platform != "linux" or any(name in os.environ for name in ALLOCATOR):
        return
    os.execve(  # noqa: S606 (the same program with the same arguments)
        sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **ALLOCATOR}
    )


if __name__ == "__main__":
    main()
