"""Evaluate a trained run on a log, and note what was found in its folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from rankloom.api.reading import evaluation_reader
from rankloom.api.result import RunFolder, TrainResult, load_result
from rankloom.api.run import Run
from rankloom.atomic import write_text
from rankloom.data.key_names import key_names
from rankloom.data.transforms import Transforms
from rankloom.errors import DataError
from rankloom.evaluation import Evaluation, Scorer, evaluate_model
from rankloom.evaluation.result import evaluation_from_dict
from rankloom.models import Model
from rankloom.ops.device import choose_device, choose_precision
from rankloom.report import write_report


def evaluate(
    result: TrainResult | str | Path,
    split: str = "test",
    *,
    files: tuple[str, ...] | None = None,
    report: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Evaluate a trained run; write `evaluation.json` and the report in its folder.

    Args:
        result: What `train` gave, or a run folder.
        split: train, valid or test of the run file; or a name for `files`.
        files: Parquet files to evaluate instead of the run file's.
        report: Is told the number of rows done so far.

    Raises:
        ConfigError: The run file has no such split.
        DataError: A file of the log is missing or wrong.
    """
    if not isinstance(result, TrainResult):
        result = load_result(result)
    evaluation = evaluate_split(
        result.run, result.transforms, result.model, split, files=files, report=report
    )
    known = {**read_evaluations(result.folder), split: evaluation}
    save_evaluations(result.folder, result.run, known)
    return evaluation


def evaluate_split(
    run: Run,
    transforms: Transforms,
    model: Model,
    split: str,
    *,
    files: tuple[str, ...] | None = None,
    report: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Evaluate a model on a split, without writing anything."""
    reader = evaluation_reader(run, transforms, files or run.config.data.files(split))
    names = {
        column: key_names(reader.log.paths, column)
        for column in (*run.config.evaluation.slices, run.schema.roles.scenario)
        if column is not None
    }
    with reader.batches(epoch=0) as reads:
        return evaluate_model(
            new_scorer(run, model),
            (read.batch for read in reads),
            run.config.evaluation,
            split=split,
            slice_name=lambda column, key: names[column].get(key, str(key)),
            report=report,
        )


def save_evaluations(folder: RunFolder, run: Run, evaluations: Mapping[str, Evaluation]) -> None:
    """Write `evaluation.json`, if there is anything to write, and the report.

    Raises:
        DataError: The folder cannot be written to, or the disk is full.
    """
    try:
        if evaluations:
            values = {name: one.to_dict() for name, one in evaluations.items()}
            write_text(folder.evaluation, json.dumps(values, indent=1))
        write_report(folder.report, name=run.name, metrics=folder.metrics, evaluations=evaluations)
    except OSError as error:
        raise DataError(
            f"{folder.path}: evaluation.json and report.html cannot be written "
            f"({error.strerror or error}). Free some space, then run: rankloom evaluate."
        ) from None


def new_scorer(run: Run, model: Model) -> Scorer:
    """Make a scorer on the device and in the precision that the run asks for."""
    device = choose_device(run.config.training.device)
    return Scorer(
        model, device=device, precision=choose_precision(run.config.training.precision, device)
    )


def read_evaluations(folder: RunFolder) -> dict[str, Evaluation]:
    """Read a run folder's `evaluation.json`; empty when there is none."""
    try:
        values = json.loads(folder.evaluation.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {split: evaluation_from_dict(one) for split, one in values.items()}
