"""The request log's files: when they are written, and what becomes of them on a full disk."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.serving.telemetry_counts import Counts, until

from rankloom.schema import Schema, SparseFeature
from rankloom.serving.request import RankRequest, RankResult, Served
from rankloom.serving.telemetry import request_log
from rankloom.serving.telemetry.request_log import RequestLog, RequestLogConfig

SERVED = Served(
    name="m",
    digest="a" * 64,
    schema=Schema({"item": SparseFeature(side="item", hash_buckets=50)}),
    columns={"user": [], "context": [], "candidates": ["item"]},
)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "LOOK_S", 0.01)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a folder on a disk of 64 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def opened(folder: Path, **options: Any) -> tuple[RequestLog, Counts]:
    counts = Counts()
    config = RequestLogConfig(folder=str(folder), **{"sample_rate": 1.0, **options})
    log = RequestLog(config, counts)
    log.begin(SERVED)
    return log, counts


def write(log: RequestLog, number: int, num_candidates: int = 1) -> None:
    items = np.random.default_rng(number).integers(0, 2**60, num_candidates)
    items[0] = number
    request = RankRequest(user={}, candidates={"item": items}, id=str(number))
    scores = np.zeros(num_candidates)
    log.write(request, RankResult(scores={}, blended=scores, order=items, digest="a" * 64))


def numbers(folder: Path) -> list[list[int]]:
    """Give the numbers of the requests of each file."""
    tables = map(pq.read_table, sorted(folder.glob("*.parquet")))
    return [[items[0] for items in table["item"].to_pylist()] for table in tables]


def test_a_file_ends_after_some_lines(tmp_path: Path) -> None:
    log, _ = opened(tmp_path / "new" / "folder", max_lines=2)
    for number in range(5):
        write(log, number)
    log.close()
    assert numbers(tmp_path / "new" / "folder") == [[0, 1], [2, 3], [4]]


def test_a_file_ends_after_some_bytes(tmp_path: Path) -> None:
    log, _ = opened(tmp_path, max_bytes=3 * 16 * 1000)
    for number in range(4):
        # 8 bytes an item, 8 a score, and some that name the request.
        write(log, number, 1000)
    log.close()
    assert numbers(tmp_path) == [[0, 1, 2], [3]]


def test_a_file_ends_at_some_age(tmp_path: Path) -> None:
    log, counts = opened(tmp_path, max_age_s=0.2)
    write(log, 0)
    write(log, 1)
    until(lambda: counts["written"] == 2)
    write(log, 2)
    time.sleep(0.1)
    assert counts["written"] == 2
    until(lambda: counts["written"] == 3)
    log.close()
    assert numbers(tmp_path) == [[0, 1], [2]]


def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "LOOK_S", 60.0)
    log, counts = opened(tmp_path, queue_bytes=25_000)
    for number in range(5):
        write(log, number, 1000)
    assert counts == {"queue_full": 2}
    log.close()
    assert numbers(tmp_path) == [[0, 1, 2]]


def test_lists_and_texts_count_by_their_lengths() -> None:
    def size(**user: Any) -> int:
        return request_log._size(RankRequest(user=user, candidates={"item": [1]}))

    assert size(a=[1] * 1000) > 30_000
    assert size(a=[[1] * 100] * 10) > 30_000
    assert size(a=["x" * 1000] * 30) > 30_000
    assert size(a="x" * 30_000) > 30_000
    assert size(a=np.zeros(4000)) > 30_000
    assert size(a=None, b=1, c=[], d=2.0) < 400
    rows = [{"tags": [1] * 10}] * 100
    assert request_log._size(RankRequest(user={}, candidates=rows)) > 30_000


def test_the_oldest_files_are_deleted(tmp_path: Path) -> None:
    (tmp_path / "requests.txt").write_text("x" * 100_000)
    log, counts = opened(tmp_path, max_lines=1, total_bytes=30_000)
    for number in range(6):
        write(log, number, 1000)
        until(lambda number=number: counts["written"] == number + 1)
    log.close()
    found = numbers(tmp_path)
    assert 1 < len(found) < 5
    assert found == [[number] for number in range(6)][-len(found) :]
    assert sum(path.stat().st_size for path in tmp_path.glob("*.parquet")) <= 30_000
    assert (tmp_path / "requests.txt").exists()


def test_a_full_disk_loses_lines_and_nothing_else(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ballast = small_disk / "ballast"
    log, counts = opened(small_disk, max_lines=1)
    write(log, 0, 1000)
    until(lambda: counts["written"] == 1)
    free = os.statvfs(small_disk)
    ballast.write_bytes(bytes(free.f_bavail * free.f_bsize - 4096))
    for number in (1, 2):
        write(log, number, 1000)
    until(lambda: counts["not_writable"] == 2)
    assert not [path for path in small_disk.iterdir() if path.name.endswith(".tmp")]
    ballast.unlink()
    write(log, 3, 1000)
    log.close()
    assert numbers(small_disk) == [[0], [3]]
    assert counts == {"written": 2, "not_writable": 2}
    told = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert len(told) == 2
    assert "No space left on device" in told[0]
    assert "2 lines were dropped" in told[1]


def test_a_folder_that_is_deleted_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    log, counts = opened(folder, max_lines=1)
    write(log, 0)
    until(lambda: counts["written"] == 1)
    next(folder.iterdir()).unlink()
    folder.rmdir()
    folder.write_text("no folder")
    write(log, 1)
    until(lambda: counts["not_writable"] == 1)
    folder.unlink()
    write(log, 2)
    log.close()
    assert numbers(folder) == [[2]]


WRITER = """
import sys
from tests.unit.serving.test_request_log_files import Path, opened, until, write
log, counts = opened(Path(sys.argv[1]), max_lines=3)
print("ready", flush=True)
for number in range(1_000_000):
    write(log, number, 20)
    if number == 400:
        until(lambda: counts["written"] >= 9)
        print("written", flush=True)
"""


def test_a_killed_process_leaves_whole_files(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert [writer.stdout.readline() for _ in range(2)] == ["ready\n", "written\n"]
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    found = [number for file in numbers(tmp_path) for number in file]
    assert len(found) >= 9
    assert found[:9] == list(range(9))
    # It may be killed while it writes.
    name = f".requests-x.parquet.{writer.pid}.tmp"
    (tmp_path / name).write_bytes(b"half")
    alive = f".requests-x.parquet.{os.getppid()}.tmp"
    (tmp_path / alive).write_bytes(b"half")
    log, _ = opened(tmp_path)
    write(log, 7)
    log.close()
    left = [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")]
    assert left == [alive]


def test_all_files_of_one_artifact_have_the_same_columns(tmp_path: Path) -> None:
    for _ in range(2):
        log, _ = opened(tmp_path, max_lines=2)
        for number in range(4):
            write(log, number)
        log.close()
    schemas = [pq.read_schema(path) for path in tmp_path.iterdir()]
    assert len(schemas) == 4
    assert all(one.equals(schemas[0], check_metadata=True) for one in schemas)
    assert schemas[0].field("item").type == pa.list_(pa.int64())
