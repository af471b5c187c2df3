"""docs/serving.md as a script: its blocks are run in order, as a reader would."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.integration.served import is_running
from tests.integration.small import environment

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
SMALL = "--set model.tokenization.token_dim=16 --set model.interaction.num_layers=1"
PATIENT = "--set front.deadline_ms=60000"


def blocks(text: str, *languages: str) -> list[tuple[str, str]]:
    """Give the fenced blocks of some languages: language, content."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(language, block) for language, block in found if language in languages]


def part(begin: str, end: str | None = None) -> str:
    """Give what stands between two headings."""
    text = TEXT[TEXT.index(f"\n{begin}\n") :]
    return text if end is None else text[: text.index(f"\n{end}\n")]


class Reader:
    """Follows the document in a folder of its own.

    Other ports are taken, a busy machine is given time, and models are made smaller.

    Args:
        folder: Where commands run.
        data: Of `$RANKLOOM_DATA`.
        ports: That of the document -> the one to take.
    """

    def __init__(self, folder: Path, data: Path, ports: dict[int, int]) -> None:
        self.folder = folder
        self._ports = ports
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = environment(RANKLOOM_DATA=str(data), PATH=path)
        self.names: dict[str, Any] = {"__name__": "__main__"}
        """What Python blocks have defined."""
        shutil.copytree(ROOT / "recipes", folder / "recipes", dirs_exist_ok=True)

    def run(self, language: str, block: str) -> str:
        """Run a block; gives what a shell's printed.

        Raises:
            AssertionError: A command failed.
        """
        for port, taken in self._ports.items():
            block = block.replace(f"127.0.0.1:{port}", f"127.0.0.1:{taken}")
        block = re.sub(r'(deadline_ms"?(: |=))500\b', r"\g<1>60000", block)
        if language == "python":
            with contextlib.chdir(self.folder):
                exec(compile(block, "serving.md", "exec"), self.names)
            return ""
        return self._shell(block)

    def _shell(self, block: str) -> str:
        block = block.replace('6379/0"}', '6379/0", timeout_ms: 5000}')
        block = re.sub(r"^(rankloom train [^\\\n]*)", rf"\1 {SMALL}", block, flags=re.MULTILINE)
        serves = re.search(r"^(rankloom serve [^&\n]*)( &)?$", block, re.MULTILINE)
        if serves is not None:
            command = f"{serves[1]} --port {self._ports[8000]} {PATIENT} > server.log 2>&1 &"
            command += "" if serves[2] else "\necho $! > server.pid"
            block = block.replace(serves[0], command)
        if shutil.which("curl") is None:
            block = f"curl() {{ cat > /dev/null; }}\n{block}"
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", block],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        if serves is not None:
            self.wait_for("serving  http")
        return done.stdout

    def wait_for(self, line: str, timeout_s: float = 180.0) -> None:
        """Wait until the server has printed something."""
        log, until_s = self.folder / "server.log", time.monotonic() + timeout_s
        while line not in log.read_text():
            assert self.is_serving(), log.read_text()
            assert time.monotonic() < until_s, f"{line} is not in:\n{log.read_text()}"
            time.sleep(0.05)

    def is_serving(self) -> bool:
        """Tell whether the server runs."""
        pid = self.folder / "server.pid"
        return pid.exists() and is_running(int(pid.read_text()))

    def wait_for_end(self, timeout_s: float = 60.0) -> None:
        """Wait until the server has ended."""
        until_s = time.monotonic() + timeout_s
        while self.is_serving():
            assert time.monotonic() < until_s, (self.folder / "server.log").read_text()
            time.sleep(0.05)

    def end(self, number: int = signal.SIGTERM) -> None:
        """End the server, if it runs."""
        if self.is_serving():
            os.kill(int((self.folder / "server.pid").read_text()), number)
            self.wait_for_end()
