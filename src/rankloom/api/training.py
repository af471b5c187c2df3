"""Train a run: from files to a run folder with the best checkpoint."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from rankloom.api.describing import model_line
from rankloom.api.evaluating import evaluate_split, read_evaluations, save_evaluations
from rankloom.api.reading import check_run_files, training_reader
from rankloom.api.result import RunFolder, TrainResult, new_model
from rankloom.api.run import Run, load_run
from rankloom.data.fit import fit_transforms
from rankloom.data.transforms import Transforms
from rankloom.errors import CheckpointError, ConfigError
from rankloom.evaluation import Evaluation
from rankloom.models import Model
from rankloom.training import Trainer, TrainerState
from rankloom.training.checkpoint import load_weights
from rankloom.training.hooks import ConsoleHook, Hook, JsonlHook, TensorBoardHook, terminal_console
from rankloom.training.monitor import monitored_metric
from rankloom.training.warm_start import warm_start

Printer = Callable[[str], None]
PARTS = ("checkpoints", "tensorboard", "transforms")


def train(
    run: Run,
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    printer: Printer = print,
) -> TrainResult:
    """Train a run.

    Args:
        run: From `load_run`.
        folder: The run folder; default: a new `runs/<name>`, with a number when it exists.
        resume: Go on from the folder's last checkpoint, bit for bit.
        overwrite: Remove an earlier run that stands in the folder.
        printer: Where plain lines go.

    Returns:
        The model with its best weights, and where it stands.

    Raises:
        ConfigError: The folder holds a run already, or parts of the run do not fit.
        DataError: A file of the log is missing or wrong.
        CheckpointError: A checkpoint cannot be written or read.
    """
    at = RunFolder(Path(folder) if folder is not None else _free_folder(run.name))
    _check_folder(at, run, resume=resume, overwrite=overwrite)
    # Nothing is written, and no earlier run removed, before all that can be checked is.
    check_run_files(run)
    transforms, is_fitted = _transforms(run, at, printer, resume=resume)
    model = new_model(run, transforms)
    if run.config.training.warm_start and not (resume and at.checkpoints.path("last")):
        _warm_start(run, model, transforms, printer)
    printer(model_line(run, model))
    trainer = _trainer(run, at, model, transforms, printer)
    if resume and trainer.resume():
        _say_resumed(at, trainer.state, printer)
    elif not resume:
        _claim(at, run)
    if is_fitted:
        transforms.save(at.transforms)
    outcome = trainer.run()
    if outcome.is_interrupted:
        printer(
            f"stopped   step {outcome.state.step} is saved in {outcome.checkpoint}; go on with: "
            f"rankloom train --resume {shlex.quote(str(at.path))}"
        )
    load_weights(at.checkpoints.path("best") or outcome.checkpoint, model)
    save_evaluations(at, run, read_evaluations(at))
    return TrainResult(
        at,
        run,
        model.train(False),
        transforms,
        evaluation=outcome.evaluation,
        is_interrupted=outcome.is_interrupted,
    )


def resume(folder: str | Path, *, printer: Printer = print) -> TrainResult:
    """Go on with the run of a folder, bit for bit where it stopped.

    Raises:
        ConfigError: The folder has no run file.
        CheckpointError: Its checkpoint is damaged.
    """
    return train(load_run(RunFolder(Path(folder)).run_file), folder, resume=True, printer=printer)


def fit(run: Run, *, printer: Printer = lambda _: None) -> Transforms:
    """Fit vocabularies and statistics on a run's training log.

    Raises:
        DataError: A file of the log is missing or wrong.
        SchemaError: Columns are missing or of the wrong type.
    """
    began = time.perf_counter()
    data = run.config.data
    transforms = fit_transforms(data.files("train"), run.schema, layout=data.layout)
    rows = sum(v.num_embeddings for v in transforms.vocabularies.values())
    printer(
        f"fitted    {len(transforms.vocabularies)} vocabularies of {rows:,} rows, "
        f"{len(transforms.statistics)} statistics   {time.perf_counter() - began:.1f} s"
    )
    return transforms


def _check_folder(at: RunFolder, run: Run, *, resume: bool, overwrite: bool) -> None:
    """Say why the run folder cannot be ours, if so, without touching it."""
    if resume and not at.run_file.is_file():
        raise ConfigError(f"{at.path}: holds no run to resume. Start it without --resume.")
    if resume:
        if load_run(at.run_file).config.digest() != run.config.digest():
            raise CheckpointError(
                f"{at.run_file}: differs from the run to resume. Resume without changes, or "
                "give another folder and set training.warm_start."
            )
    elif at.run_file.is_file() and not overwrite:
        raise ConfigError(
            f"{at.path}: holds a run already. Go on with --resume, start anew with "
            "--overwrite, or give another folder with --to."
        )
    elif not at.run_file.is_file():
        foreign = [name for name in PARTS if (at.path / name).exists()]
        if foreign:
            # Training removes old checkpoints there: they must be a run's.
            raise ConfigError(
                f"{at.path}: holds {', '.join(foreign)}, but no run. Give another folder with --to."
            )
    standing = next(path for path in (at.path, *at.path.absolute().parents) if path.exists())
    if not standing.is_dir() or not os.access(standing, os.W_OK):
        what = "cannot be written to" if standing.is_dir() else "is no folder"
        raise ConfigError(f"{at.path}: {standing} {what}. Give another folder with --to.")


def _claim(at: RunFolder, run: Run) -> None:
    """Make the run folder ours; what an earlier run left there goes."""
    try:
        if at.run_file.is_file():
            for name in PARTS:
                if (at.path / name).is_dir():
                    shutil.rmtree(at.path / name)
            for path in (at.metrics, at.evaluation, at.report):
                path.unlink(missing_ok=True)
        run.save(at.run_file)
    except OSError as error:
        raise ConfigError(
            f"{at.path}: cannot be written ({error.strerror}). Free some space, or give another "
            "folder with --to."
        ) from None


def _say_resumed(at: RunFolder, state: TrainerState, printer: Printer) -> None:
    if state.is_finished:
        printer(f"finished  {at.path} at step {state.step}: nothing is left to train")
        return
    printer(f"resumed   {at.path} at step {state.step}")
    # What was found with the weights of then is no result of this run.
    at.evaluation.unlink(missing_ok=True)


def _free_folder(name: str) -> Path:
    base = Path("runs") / name
    numbered = (Path(f"{base}-{number}") for number in count(2))
    return base if not base.exists() else next(path for path in numbered if not path.exists())


def _transforms(
    run: Run, at: RunFolder, printer: Printer, *, resume: bool
) -> tuple[Transforms, bool]:
    """Give the transforms of the run to resume, or fit them; and whether they were fitted."""
    if resume and (at.transforms / "transforms.json").is_file():
        return Transforms.load(at.transforms), False
    return fit(run, printer=printer), True


def _trainer(
    run: Run, at: RunFolder, model: Model, transforms: Transforms, printer: Printer
) -> Trainer:
    config = run.config
    has_groups = getattr(run.schema.roles, config.evaluation.gauc_by) is not None
    reader = training_reader(run, transforms)
    if reader.sampling is not None:
        printer(
            f"sampled   about {reader.rows_per_epoch:,} of {reader.num_rows:,} rows an epoch: "
            f"{reader.sampling.ratio:.3g} of the negatives of {reader.sampling.task}"
        )
    return Trainer(
        model,
        config.training,
        reader,
        at.path,
        hooks=lambda state: _hooks(run, at, state, printer),
        evaluate=_validation(run, transforms, model) if config.data.valid else None,
        metric=monitored_metric(
            run.schema,
            config.training.early_stopping,
            config.evaluation.metrics,
            has_groups=has_groups,
        )
        if config.data.valid
        else "",
    )


def _warm_start(run: Run, model: Model, transforms: Transforms, printer: Printer) -> None:
    source = run.config.training.warm_start
    assert source is not None
    old = RunFolder(Path(source))
    checkpoint = old.checkpoints.path("best") or old.checkpoints.path("last")
    if checkpoint is None:
        raise CheckpointError(f"training.warm_start: {source} has no checkpoint. Train it first.")
    found = warm_start(
        model,
        transforms,
        checkpoint=checkpoint,
        old_schema=load_run(old.run_file).schema,
        old_transforms=Transforms.load(old.transforms),
    )
    printer(f"warm start from {source}: {found}")


def _hooks(run: Run, at: RunFolder, state: TrainerState, printer: Printer) -> list[Hook]:
    if state.is_finished:
        return []
    console = terminal_console() if printer is print else None
    return [
        ConsoleHook(run.config.training.epochs, printer=printer, console=console),
        JsonlHook(at.metrics, num_records=state.num_records),
        TensorBoardHook(at.tensorboard, from_step=state.step),
    ]


def _validation(run: Run, transforms: Transforms, model: Model) -> Callable[[], Evaluation]:
    return lambda: evaluate_split(run, transforms, model, "valid")
