"""`rankloom serve`: answer requests with an artifact."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from rankloom.errors import ConfigError

STANDARD_OUTPUT = 1
OPTIONAL = ("starlette", "uvicorn", "uvloop", "httptools", "msgspec", "prometheus_client", "redis")


def serve(
    artifact: Annotated[
        Path, typer.Argument(help="Folder of an artifact, or a link to one that may be moved.")
    ],
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML file of the server's config.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen at; default: this machine only.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="0 takes a free one; default 8000.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Set a value of the config; repeatable."),
    ] = None,
) -> None:
    """Rank candidates over HTTP: JSON, MessagePack and the Open Inference Protocol."""
    try:
        from rankloom.serving.config import load_serve_config
        from rankloom.serving.supervisor import Supervisor
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL:
            raise
        raise ConfigError(
            f"rankloom serve: needs {error.name}, which is not installed. "
            "Install it with: pip install 'rankloom[serve]'"
        ) from None

    given: dict[str, Any] = {"host": host, "port": port}
    changes = [f"{name}={value}" for name, value in given.items() if value is not None]
    settings = load_serve_config(config, [*(overrides or []), *changes])
    Supervisor(artifact, settings, report=_say).run()


def _say(line: str) -> None:
    # A full disk, or nobody who reads, must not end the server: then the line is lost. Nothing may
    # stay in Python's buffer either, which is written once more at the end.
    with contextlib.suppress(OSError):
        os.write(STANDARD_OUTPUT, f"{line}\n".encode())
