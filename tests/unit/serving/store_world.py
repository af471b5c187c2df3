"""What tests of the feature store stand on: a schema of all kinds, a Redis, folders of items."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from tests.unit.data.test_request import (
    KINDS_OF_CANDIDATES,
    SCHEMA,
    VOCABULARIES,
    Values,
)

from rankloom.data.request import RequestDecoder
from rankloom.schema import Roles, Schema
from rankloom.serving.store.config import StoreConfig
from rankloom.serving.store.item_export import export_items
from rankloom.serving.store.items import ItemStore

ALL_KINDS = Schema(SCHEMA.features, roles=Roles(user="user_id", item="item_id", event_time="now"))
INDEXES = {name: one.index for name, one in VOCABULARIES.items()}
DECODER = RequestDecoder(ALL_KINDS, INDEXES)
CROSS = ("place", "discount")
ITEM_KINDS = {name: kind for name, kind in KINDS_OF_CANDIDATES.items() if name not in CROSS}
NUM_ITEMS = 40


def some_items(seed: int = 0) -> list[dict[str, Any]]:
    """Draw items 0 to 39, with values of every kind, nulls among them."""
    values = Values(seed)
    items = [{**values.candidate(), "item_id": number} for number in range(NUM_ITEMS)]
    return [{name: item[name] for name in ITEM_KINDS} for item in items]


def export(folder: Path, rows: list[dict[str, Any]], schema: Schema = ALL_KINDS) -> ItemStore:
    kinds = None if schema is not ALL_KINDS else ITEM_KINDS
    table = pa.Table.from_pylist(rows, schema=pa.schema(kinds) if kinds else None)
    pq.write_table(table, folder / "items.parquet")
    export_items(folder / "items.parquet", folder / "items", schema, indexes=INDEXES)
    return ItemStore(folder / "items")


class RedisServer:
    """A redis-server of one's own, that can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def config(self, **options: Any) -> StoreConfig:
        # A busy machine stalls longer than a server would let a request wait.
        return StoreConfig.model_validate({"redis": self.url, "timeout_ms": 2000.0, **options})

    def start(self) -> None:
        options = f"--port {self.port} --bind 127.0.0.1 --unixsocket {self.folder}/socket "
        options += f"--save --appendonly no --dir {self.folder}"
        self.process = subprocess.Popen(
            ["redis-server", *options.split()], stdout=subprocess.DEVNULL
        )
        with self.client() as client:
            for _ in range(500):
                try:
                    client.ping()
                except redis.ConnectionError:
                    time.sleep(0.02)
                else:
                    return
        raise AssertionError("redis-server did not start")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port)


@contextmanager
def running_redis(folder: Path) -> Iterator[RedisServer]:
    """Run a redis-server; skip where there is none, which CI must not do."""
    if shutil.which("redis-server") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI needs redis-server: .ci/run installs it")
        pytest.skip("needs redis-server: apt-get install redis-server")
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
