"""Metrics of several processes, of which some are killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rankloom.errors import ConfigError
from rankloom.serving.telemetry import cells
from rankloom.serving.telemetry.metrics import Metrics

WORKER = """
import sys, pathlib, time
from rankloom.serving.telemetry.metrics import Metrics
metrics = Metrics(pathlib.Path(sys.argv[1]), process="compute")
metrics.set_queue(5)
metrics.serve_artifact("mine", "aaa")
for _ in range(1000):
    metrics.miss_deadline()
metrics.run_batch(candidates=1, requests=1)
print("counted", flush=True)
end = time.monotonic() + 20
while time.monotonic() < end:
    metrics.run_batch(candidates=1, requests=1)
"""


def worker(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "counted\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_a_killed_process_goes_on_counting_when_it_is_back(tmp_path: Path) -> None:
    front = Metrics(tmp_path, process="front")
    front.miss_deadline()
    first = worker(tmp_path)
    alive = front.snapshot()
    assert alive["deadline_misses"] == 1001
    assert alive["queue"] == 5
    assert set(alive["memory_bytes"]) == {"compute", "front"}
    kill(first)
    dead = front.snapshot()
    # What it counted stays; what it stated about itself holds no more.
    assert dead["deadline_misses"] == 1001
    assert dead["batches"]["count"] >= alive["batches"]["count"] > 0
    assert dead["queue"] == 0
    assert dead["artifacts"] == []
    assert set(dead["memory_bytes"]) == {"front"}
    second = worker(tmp_path)
    again = front.snapshot()
    assert again["deadline_misses"] == 2001
    assert again["batches"]["count"] > dead["batches"]["count"]
    assert again["queue"] == 5
    assert len(list(tmp_path.iterdir())) == 2
    kill(second)


def test_what_the_process_before_stated_is_forgotten(tmp_path: Path) -> None:
    before = Metrics(tmp_path, process="front")
    before.begin_request()
    before.miss_deadline()
    del before
    after = Metrics(tmp_path, process="front")
    assert after.snapshot()["in_flight"] == 0
    assert after.snapshot()["deadline_misses"] == 1


def test_two_of_one_name_do_not_share_a_file(tmp_path: Path) -> None:
    one, other = Metrics(tmp_path, process="front"), Metrics(tmp_path, process="front")
    one.miss_deadline()
    other.miss_deadline()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["front-2.cells", "front.cells"]
    assert one.snapshot()["deadline_misses"] == 2


def test_a_file_that_is_being_made_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.cells").touch()
    (tmp_path / "b.cells").write_bytes(bytes(cells.FILE_BYTES))
    metrics = Metrics(tmp_path, process="front")
    metrics.miss_deadline()
    assert metrics.snapshot()["deadline_misses"] == 1


def test_without_space_further_series_are_left_out(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, process="front")
    for number in range(cells.FILE_BYTES // 64):
        metrics.count_oov({f"feature {number} of a very long name that takes space": 1})
    metrics.miss_deadline()
    metrics.miss_deadline()
    found = metrics.snapshot()
    assert 5_000 < len(found["oov"]) < 16_000
    assert found["deadline_misses"] == 0
    assert metrics.render()


def test_a_full_disk_is_an_error_at_the_start_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ConfigError, match=r"metrics cannot be kept there\. Got: .*No space left"):
        Metrics(tmp_path, process="front")


def test_all_space_is_taken_at_the_start(tmp_path: Path) -> None:
    Metrics(tmp_path, process="front")
    found = (tmp_path / "front.cells").stat()
    assert 512 * found.st_blocks >= found.st_size == cells.FILE_BYTES
