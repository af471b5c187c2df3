"""A server's own folder goes with it, and at the latest with the next server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rankloom.serving import folder
from rankloom.serving.folder import own_folder

CODE = """
import sys, time
from pathlib import Path
from rankloom.serving import folder
folder.MEMORY = Path(sys.argv[1])
"""
HOLD = "with folder.own_folder() as made: print(made, flush=True); time.sleep(60)"
START_OFTEN = """
for _ in range(100):
    with folder.own_folder() as made:
        (made / "x").touch()
        assert len(list(made.iterdir())) == 2
"""


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(folder, "MEMORY", tmp_path)
    return tmp_path


def run(code: str, memory: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CODE + code, str(memory)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_the_folder_of_a_killed_server_is_removed_by_the_next_one(memory: Path) -> None:
    (memory / "rankloom-data").mkdir()
    with run(HOLD, memory) as killed, run(HOLD, memory) as running:
        assert killed.stdout is not None
        assert running.stdout is not None
        abandoned = Path(killed.stdout.readline().strip())
        kept = Path(running.stdout.readline().strip())
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        assert abandoned.is_dir()
        with own_folder() as own:
            names = {one.name for one in memory.iterdir()}
            # What is not a server's is left alone, whatever its name.
            assert names == {own.name, kept.name, "rankloom-data"}
            assert own.parent == memory
        assert not own.exists()
        running.kill()


def test_servers_that_start_at_once_leave_each_other_alone(memory: Path) -> None:
    starting = [run(START_OFTEN, memory) for _ in range(3)]
    assert [one.wait(60) for one in starting] == [0, 0, 0]
    for one in starting:
        assert one.stdout is not None
        one.stdout.close()
    assert not list(memory.iterdir())
