"""A headless Chromium, driven by its DevTools protocol over two pipes."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CALL_S = 60.0
OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    # Containers give Chromium no namespaces of its own; what it shows here is ours.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--no-first-run",
    "--hide-scrollbars",
)
# Chromium reads commands from descriptor 3 and writes to 4.
LAUNCH = """
import fcntl, os, sys
given = [fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3]]
for to, one in zip((3, 4), given):
    os.dup2(one, to)
os.execvp(sys.argv[3], sys.argv[3:])
"""
KEYS = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowRight": 39, "Escape": 27, " ": 32}


class Tab:
    """One page, at first empty; notes what goes wrong in it and what it asks for."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._numbers = itertools.count(1)
        self._held = b""
        self._session: str | None = None
        self.errors: list[str] = []
        """Errors and warnings of its console."""
        self.urls: list[str] = []
        """What it asked for."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """Call a method of the protocol, and note what happened meanwhile."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != number:
            self._note(answer)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def run(self, expression: str) -> Any:
        """Evaluate JavaScript, and give its value; promises are awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str, *, seconds: float = 60.0) -> None:
        """Wait until JavaScript gives something true."""
        until_s = time.monotonic() + seconds
        while not self.run(f"Boolean({expression})"):
            assert time.monotonic() < until_s, (expression, self.errors, self.text())
            time.sleep(0.1)

    def open(self, url: str) -> None:
        """Load a page."""
        self.call("Page.navigate", url=url)
        self.wait_for(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def text(self) -> str:
        """Give what people read."""
        return str(self.run("document.body.innerText"))

    def size(self, width: int, height: int) -> None:
        """Set the window's size, as of a phone."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, scheme: str) -> None:
        """Prefer `light` or `dark`."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def press(self, key: str, *, with_control: bool = False) -> None:
        """Press a key, and let go of it."""
        about: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": KEYS[key]}
        if with_control:
            about["modifiers"] = 2
        if key in {"Enter", " "}:
            about["text"] = "\r" if key == "Enter" else " "
        self.call("Input.dispatchKeyEvent", type="keyDown", **about)
        about.pop("text", None)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def picture(self, *, is_whole: bool = False) -> bytes:
        """Give a PNG of the window, or of the whole page."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=is_whole)
        return base64.b64decode(answer["data"])

    def _read(self) -> dict[str, Any]:
        until_s = time.monotonic() + CALL_S
        while b"\0" not in self._held:
            ready, _, _ = select.select([self._from], [], [], max(0, until_s - time.monotonic()))
            piece = os.read(self._from, 1 << 16) if ready else b""
            assert piece, "Chromium has ended, or does not answer"
            self._held += piece
        message, _, self._held = self._held.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.urls.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in {"error", "warning"}:
                self.errors.append(json.dumps(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in {"error", "warning"}:
                self.errors.append(params["entry"]["text"])


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """Run a Chromium; skip where there is none, which CI must not do."""
    program = shutil.which("chromium")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI needs chromium: .ci/run installs it")
        pytest.skip("needs chromium: apt-get install chromium")
    reads, to_browser = os.pipe()
    from_browser, writes = os.pipe()
    command = [sys.executable, "-c", LAUNCH, str(reads), str(writes), program]
    process = subprocess.Popen(
        [*command, *OPTIONS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
        pass_fds=(reads, writes),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(reads)
    os.close(writes)
    try:
        yield Tab(to_browser, from_browser)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(to_browser)
        os.close(from_browser)
