"""How uvicorn serves a front end: one process, on a listening socket that it is given.

config = uvicorn_config(make_app(backend, front), front, drain_s=30.0)
uvicorn.Server(config).run(sockets=[listening])
"""

from __future__ import annotations

import math

import uvicorn
from starlette.types import ASGIApp

from rankloom.errors import ConfigError
from rankloom.serving.front.config import FrontConfig
from rankloom.serving.front.connection import connection_class


def uvicorn_config(app: ASGIApp, config: FrontConfig, *, drain_s: float) -> uvicorn.Config:
    """Give uvicorn's options.

    Logging is left as it is; uvicorn itself logs errors only. The caller binds the socket. A TLS
    handshake has asyncio's limit of 60 s and is not counted as a connection until it is done.

    Args:
        app: What answers.
        config: Limits and times.
        drain_s: For requests under way when the process is told to end; in whole seconds, up.

    Raises:
        ConfigError: The certificate or its key cannot be loaded.
    """
    result = uvicorn.Config(
        app,
        loop="uvloop",
        http=connection_class(config),
        ws="none",
        # An application without one would be asked, and its failure swallowed, with "auto".
        lifespan="on" if hasattr(app, "router") else "off",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        # What a client says of its address is not believed.
        proxy_headers=False,
        server_header=False,
        backlog=config.backlog,
        timeout_keep_alive=config.times.idle_s,
        timeout_graceful_shutdown=math.ceil(drain_s),
        ssl_certfile=config.tls.certificate if config.tls else None,
        ssl_keyfile=config.tls.key if config.tls else None,
    )
    try:
        result.load()
    except OSError as error:
        raise ConfigError(
            f"tls: the certificate or its key cannot be loaded ({error}). Give PEM files that "
            "belong together."
        ) from None
    return result
