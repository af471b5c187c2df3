"""The `rankloom` command: verbs, errors as one clear message, memory set up for large tensors."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from rankloom import __version__
from rankloom.cli import (
    check,
    data,
    describe,
    evaluate,
    export,
    items,
    models,
    predict,
    quickstart,
    serve,
    train,
    verify,
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
app.command("export")(export.export)
app.command("items")(items.items)
app.command("verify")(verify.verify)
app.command("serve")(serve.serve)
app.command("describe")(describe.describe)
app.command("check")(check.check)
app.command("models")(models.models)

STOPPED = "stopped: a training goes on with --resume from its last checkpoint"

ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(2**33),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**28),
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""What the system's libraries read at the start of a process. glibc keeps freed memory instead of
giving it back: by default each large tensor is mapped and faulted in anew, which can cost more than
the matmul that fills it. Idle threads sleep instead of spinning: spinning ones take the cores from
the thread that reads the log, and from every other process of a shared machine."""


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
    _set_up_environment()
    debug = "--debug" in sys.argv
    if debug:
        # Allowed anywhere on the line, as people add it after the fact.
        sys.argv = [one for one in sys.argv if one != "--debug"]
    # At the end, so that a file here hides nothing that is installed: an architecture of one's own.
    sys.path.append(str(Path.cwd()))
    try:
        app()
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            raise
        message, code = _explained(error)
        typer.echo(message, err=True)
        sys.exit(code)
    except SystemExit as stop:
        # Typer makes Ctrl-C an exit that says nothing.
        if isinstance(getattr(stop.__context__, "__cause__", None), KeyboardInterrupt):
            typer.echo(STOPPED, err=True)
        raise


def _explained(error: BaseException) -> tuple[str, int]:
    """Give what to print for an error, and the exit code."""
    if isinstance(error, RankLoomError):
        return str(error), 2
    if isinstance(error, KeyboardInterrupt):
        return STOPPED, 130
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        what = error.strerror or error
        return f"{where}{what}. Free some space, or give another place.", 2
    found = f"{type(error).__name__}: {' '.join(str(error).split())}"
    advice = "This should not happen. Run it again with --debug, and report what it shows."
    return f"rankloom: {found}. {advice}", 1


def _set_up_environment() -> None:
    """Start anew with what is missing of `ENVIRONMENT`; what a person has set is kept."""
    missing = {name: value for name, value in ENVIRONMENT.items() if name not in os.environ}
    if sys.platform == "linux" and missing:
        os.execve(  # noqa: S606 (the same program with the same arguments)
            sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **missing}
        )


if __name__ == "__main__":
    main()
