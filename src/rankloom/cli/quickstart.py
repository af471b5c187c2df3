"""`rankloom quickstart`: real data, a trained ranker and scored rows, in one command."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from rankloom.cli.data import prepared_line
from rankloom.cli.options import Overrides
from rankloom.errors import ConfigError

SPLITS = ("train", "valid", "test")
RUN_FILE = Path(__file__).with_name("quickstart.yaml")


def quickstart(
    to: Annotated[Path, typer.Option(help="Run folder; replaced when it exists.")] = Path(
        "runs/quickstart"
    ),
    data: Annotated[
        str, typer.Option(help="movielens, or synthetic: made here, needs no network.")
    ] = "movielens",
    split: Annotated[
        str, typer.Option(help="user_time: each user's last rows; global_time: the last days.")
    ] = "user_time",
    overrides: Overrides = None,
) -> None:
    """Prepare a log, train TokenMixer-Large on it, evaluate it and score new rows."""
    from rankloom import api
    from rankloom.data.datasets import prepare_dataset

    if data not in {"movielens", "synthetic"}:
        raise ConfigError(f"rankloom quickstart --data: movielens or synthetic. Got {data!r}.")
    began = time.perf_counter()
    _check_folder(to)
    log = to / "data"
    paths = {part: json.dumps(str(log / part / "*.parquet")) for part in SPLITS}
    # A mistake in an option is found before anything is fetched.
    run = api.load_run(
        RUN_FILE, [f"data.{p}={path}" for p, path in paths.items()] + (overrides or [])
    )
    prepared = prepare_dataset(data, log, {"split": split}, report=typer.echo)
    typer.echo(
        f"{prepared_line(prepared.folder, prepared.rows)}   {time.perf_counter() - began:.0f} s"
    )
    result = api.train(run, to, overwrite=True)
    if result.is_interrupted:
        raise typer.Exit(130)
    typer.echo(str(api.evaluate(result, "test")))
    scored = to / "scored.parquet"
    count = api.predict(result, log / "test" / "part-0.parquet", scored)
    typer.echo(f"scored    {count:,} rows of the test log  {scored}")
    typer.echo(
        f"run       {to}   report  {result.folder.report}   {time.perf_counter() - began:.0f} s"
    )
    typer.echo(
        f"next      rankloom export {to} --to artifacts/{to.name}, or a run file of your own: "
        "rankloom train RUN.yaml"
    )


def _check_folder(to: Path) -> None:
    """Refuse a folder that holds something else than a quickstart."""
    if not to.is_dir() or (to / "run.yaml").is_file():
        return
    # Data without a run are those of a quickstart that was stopped early.
    others = [entry.name for entry in to.iterdir() if entry.name != "data"]
    if others:
        raise ConfigError(f"{to}: holds something else than a quickstart. Give another --to.")
