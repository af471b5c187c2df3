"""The peers' own virtual environment, and running one of them in it.

python -m benchmarks.peers.environment          # make it
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.peers.protocol import Task

ROOT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = ROOT / ".bench" / "peers"
PEERS = ("torch_rechub", "deepctr_torch", "fuxictr")

# torch comes first and alone: a later install that names it only as a range finds it satisfied
# and leaves the CPU build in place. The libraries come without their dependencies, which follow.
INSTALLS = (
    ("torch==2.13.0",),
    (
        "--no-deps",
        "torch-rechub==0.9.0",
        "deepctr-torch==0.3.0",
        "fuxictr==2.3.10",
    ),
    (
        "numpy==2.4.6",
        "pandas==3.1.1",
        "pyarrow==26.0.1",
        "scikit-learn==1.9.1",
        "tqdm==4.70.1",
        "polars==2.1.0",
        "h5py==3.16.0",
        "pyyaml>=6.0.1",
        "pydantic==2.14.3",
        "ray[data]==2.60.0",
    ),
)


def ensure_environment() -> Path:
    """Make the environment unless it holds just these packages already.

    Returns:
        Its Python.

    Raises:
        RuntimeError: An installation failed.
    """
    python, stamp = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "installed.json"
    wanted = json.dumps(INSTALLS)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"Installing the peers in {ENVIRONMENT.relative_to(ROOT)} (minutes)", flush=True)
    _call([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)])
    for packages in INSTALLS:
        _call([str(python), "-m", "pip", "install", "--quiet", *packages])
    stamp.write_text(wanted, encoding="utf-8")
    return python


def run_peer(
    peer: str,
    train: Path,
    valid: Path,
    task: Task,
    *,
    environ: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Train one peer in a process of its own and give its report.

    Args:
        peer: One of `PEERS`.
        train: Parquet file to train on.
        valid: Parquet file to score after the epoch.
        task: Shared settings; its threads are also set by OMP_NUM_THREADS.
        environ: Environment variables to add, such as the allocator's.

    Returns:
        The fields of `protocol.Report`.

    Raises:
        RuntimeError: It failed; the message ends with its last output.
    """
    python = ensure_environment()
    threads = {"OMP_NUM_THREADS": str(task.num_threads), "MKL_NUM_THREADS": str(task.num_threads)}
    module = f"benchmarks.peers.{peer}_dcnv2"
    command = [str(python), "-W", "ignore", "-m", module, str(train.resolve())]
    command += [str(valid.resolve()), "--task", json.dumps(asdict(task))]
    output = _call(command, environ={**os.environ, **threads, **(environ or {})})
    report: dict[str, Any] = json.loads(output.rstrip().rsplit("\n", 1)[-1])
    return report


def _call(command: list[str], *, environ: Mapping[str, str] | None = None) -> str:
    # Progress bars go to a file: a full pipe would stop the process.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            check=False,
        )
        log.seek(0)
        tail = log.read()[-2000:]
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command[:5])}: ended with {done.returncode}.\n{done.stdout[-1000:]}\n{tail}"
        )
    return done.stdout


if __name__ == "__main__":
    print(ensure_environment())
