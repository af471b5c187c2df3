"""Where the log of a training goes: the terminal, metrics.jsonl, TensorBoard."""

from __future__ import annotations

import errno
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from rankloom.atomic import write_text
from rankloom.errors import DataError
from rankloom.evaluation import Evaluation

Printer = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """Means over the steps since the last record."""

    step: int
    """Steps made so far."""
    epoch: int
    """Epoch, counted from 0."""
    progress: float
    """Share of the epoch that is done."""
    losses: Mapping[str, float]
    """Task -> mean loss."""
    lr_dense: float
    """Learning rate of the dense optimizer."""
    lr_sparse: float
    """Learning rate of the sparse optimizer."""
    grad_norm: float | None
    """Norm of the dense gradient before clipping, in the last step."""
    rows_per_s: float
    """Rows trained a second."""
    flops_per_s: float
    """Multiply-adds count two; forward and backward."""
    matmul_share: float
    """That over this machine's own matmul rate."""
    auxiliary: Mapping[str, float] = field(default_factory=dict)
    """Auxiliary term -> mean."""

    def line(self) -> str:
        """Give the record as one line of text."""
        losses = " ".join(f"{task} {value:.4f}" for task, value in self.losses.items())
        return (
            f"loss {losses}   {_count(self.rows_per_s)} rows/s   "
            f"{_count(self.flops_per_s)}FLOP/s ({self.matmul_share:.0%} of this machine's "
            "matmul rate)"
        )


class Hook(Protocol):
    """Is told what happens in a training."""

    def on_step(self, record: StepRecord) -> None:
        """Some steps were made."""

    def on_evaluation(self, evaluation: Evaluation, *, step: int) -> None:
        """The validation log was evaluated."""

    def close(self) -> None:
        """The training has ended, well or not."""


class ConsoleHook:
    """A bar per epoch on a terminal, plain lines elsewhere.

    Args:
        num_epochs: Epochs planned.
        printer: Where plain lines go.
        console: Draws the bar; none for plain lines only.
    """

    def __init__(
        self, num_epochs: int, *, printer: Printer = print, console: Console | None = None
    ) -> None:
        self.num_epochs = num_epochs
        self.print = printer
        self.console = console if console is not None and console.is_terminal else None
        self.progress: Progress | None = None
        self.task: TaskID | None = None
        self.epoch = -1

    def on_step(self, record: StepRecord) -> None:
        """Move the bar, or print a line."""
        name = f"epoch {record.epoch + 1}/{self.num_epochs}"
        if self.console is None:
            self.print(f"{name} {record.progress:4.0%}  {record.line()}")
            return
        if self.progress is None or record.epoch != self.epoch:
            self.close()
            self.epoch = record.epoch
            self.progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TaskProgressColumn(),
                TextColumn("{task.fields[line]}"),
                console=self.console,
            )
            self.progress.start()
            self.task = self.progress.add_task(name, total=1.0, line="")
        assert self.task is not None
        self.progress.update(self.task, completed=record.progress, line=record.line())

    def on_evaluation(self, evaluation: Evaluation, *, step: int) -> None:  # noqa: ARG002
        """Print the table."""
        self.close()
        self.print(str(evaluation))

    def close(self) -> None:
        """End the bar."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


class JsonlHook:
    """`metrics.jsonl`: one JSON object a line, `kind` step or evaluation.

    Args:
        path: The file; appended to.
        num_records: Records to keep; a resumed run makes the later ones again.

    Raises:
        DataError: It cannot be written.
    """

    def __init__(self, path: Path, *, num_records: int = 0) -> None:
        self.path = path
        with _writing(path):
            if path.is_file():
                # The last line may be half written if the process was killed.
                kept = read_metrics(path)[:num_records]
                write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: on a full disk nothing is left over that closing would have to write.
            self.file = path.open("ab", buffering=0)

    def on_step(self, record: StepRecord) -> None:
        """Write the record."""
        self._write({"kind": "step", **vars(record)})

    def on_evaluation(self, evaluation: Evaluation, *, step: int) -> None:
        """Write the metrics of each task."""
        metrics = {
            f"{task}/{name}": None if math.isnan(value) else value
            for task, found in evaluation.tasks.items()
            for name, value in found.metrics.items()
        }
        self._write(
            {"kind": "evaluation", "step": step, "split": evaluation.split, "metrics": metrics}
        )

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _write(self, record: Mapping[str, Any]) -> None:
        line = (json.dumps(record) + "\n").encode()
        with _writing(self.path):
            if self.file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class TensorBoardHook:
    """TensorBoard events, a file for each start.

    The events are written here and not by `SummaryWriter`: its thread meets a full disk alone, and
    nothing but a traceback tells of it.

    Args:
        folder: Of the event files.
        from_step: Later steps of earlier event files are hidden: a resumed run makes them again.

    Raises:
        DataError: It cannot be written.
    """

    def __init__(self, folder: Path, *, from_step: int = 0) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2  # slow, and needed here only
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.events, self.summaries = event_pb2, summary_pb2
        # Digits as wide as a second's count: the files are read in the order of their names.
        self.path = folder / f"events.out.tfevents.{time.time_ns():019d}.{os.getpid()}"
        with _writing(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self.file = self.path.open("wb", buffering=0)
        self.writer = RecordWriter(self.file)
        start = self.events.SessionLog(status=self.events.SessionLog.START)
        self._write(file_version="brain.Event:2")
        self._write(step=from_step + 1, session_log=start)

    def on_step(self, record: StepRecord) -> None:
        """Write one scalar for each number."""
        scalars = {f"loss/{task}": value for task, value in record.losses.items()}
        scalars |= {f"auxiliary/{name}": value for name, value in record.auxiliary.items()}
        scalars |= {
            "speed/rows_per_s": record.rows_per_s,
            "speed/flops_per_s": record.flops_per_s,
            "speed/matmul_share": record.matmul_share,
            "optimizer/lr_dense": record.lr_dense,
            "optimizer/lr_sparse": record.lr_sparse,
        }
        if record.grad_norm is not None:
            scalars["optimizer/grad_norm"] = record.grad_norm
        self._write_scalars(scalars, record.step)

    def on_evaluation(self, evaluation: Evaluation, *, step: int) -> None:
        """Write one scalar for each metric."""
        scalars = {
            f"{evaluation.split}/{task}/{name}": value
            for task, found in evaluation.tasks.items()
            for name, value in found.metrics.items()
        }
        self._write_scalars(scalars, step)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _write_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        values = [
            self.summaries.Summary.Value(tag=name, simple_value=value)
            for name, value in scalars.items()
        ]
        self._write(step=step, summary=self.summaries.Summary(value=values))

    def _write(self, **parts: Any) -> None:
        with _writing(self.path):
            event = self.events.Event(wall_time=time.time(), **parts)
            self.writer.write(event.SerializeToString())


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read `metrics.jsonl`; a half-written last line does not count."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def terminal_console() -> Console | None:
    """Give a console to draw bars on, if standard output is a terminal."""
    return Console() if sys.stdout.isatty() else None


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say which file could not be written, and how to go on."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}). The last checkpoint is "
            "untouched. Free some space, then go on with --resume."
        ) from error


def _count(value: float) -> str:
    """Write 61234 as `61.2k`, 2.2e12 as `2.20 T` and so on."""
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{letter if letter == 'k' else ' ' + letter}"
    return f"{value:.3g} "
