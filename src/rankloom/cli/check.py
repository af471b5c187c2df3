"""`rankloom check`: the contract suite on an architecture of one's own."""

from __future__ import annotations

from typing import Annotated

import typer

from rankloom.cli.options import Overrides


def check(
    target: Annotated[str, typer.Argument(help="package.module:Class, or a registered name.")],
    overrides: Overrides = None,
) -> None:
    """Run every assertion that an architecture must pass, on small random data."""
    from rankloom.contract import check_architecture

    failures = 0
    for outcome in check_architecture(target, overrides or []):
        typer.echo(f"{'ok  ' if outcome.error is None else 'FAIL'}  {outcome.name}")
        if outcome.error is not None:
            failures += 1
            typer.echo("      " + "\n      ".join(str(outcome.error).strip().splitlines()[:12]))
    if failures:
        typer.echo(f"{failures} of the contract's assertions failed", err=True)
        raise typer.Exit(1)
