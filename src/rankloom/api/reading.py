"""A run's log: checked by its headers, and read as batches."""

from __future__ import annotations

from rankloom.api.run import SPLITS, Run
from rankloom.data.files import check_files
from rankloom.data.order import Order
from rankloom.data.plan import Decoder
from rankloom.data.reader import LogReader
from rankloom.data.sampling import NegativeSampling
from rankloom.data.transforms import Transforms
from rankloom.errors import DataError, RankLoomError, SchemaError
from rankloom.evaluation.evaluate import key_columns


def check_run_files(run: Run) -> None:
    """Look at the header of every file that a run reads, before anything is read.

    Raises:
        DataError: Files are missing or no Parquet; of all splits at once.
        SchemaError: Columns are missing or of the wrong type; of all splits at once.
    """
    data = run.config.data
    found: list[RankLoomError] = []
    for split in SPLITS:
        if getattr(data, split) is None:
            continue
        keys = () if split == "train" else key_columns(run.schema, run.config.evaluation)
        try:
            check_files(
                data.files(split),
                run.schema,
                layout=data.layout,
                keys=keys,
                training=split == "train",
            )
        except (DataError, SchemaError) as error:
            found.append(error)
    if found:
        text = "\n".join(dict.fromkeys(str(error) for error in found))
        raise (DataError(text) if isinstance(found[0], DataError) else SchemaError(text))


def training_reader(run: Run, transforms: Transforms) -> LogReader:
    """Read the training log, in the run's order, with as many negatives as the run keeps."""
    training, kept = run.config.training, run.config.data.keep_negatives
    sampling = None
    if kept is not None and kept.ratio < 1:
        sampling = NegativeSampling(kept.task, kept.ratio, training.seed)
    return LogReader(
        run.config.data.files("train"),
        Decoder(run.schema, transforms, layout=run.config.data.layout, training=True),
        batch_size=training.batch_size,
        sampling=sampling,
        order=Order(shuffle=training.shuffle, seed=training.seed, buffer_rows=training.buffer_rows),
        read_ahead=training.read_ahead,
    )


def evaluation_reader(
    run: Run, transforms: Transforms, files: tuple[str, ...], *, batch_size: int | None = None
) -> LogReader:
    """Read a log with labels, in the order it is stored in, with the keys of groups and slices."""
    evaluation = run.config.evaluation
    return LogReader(
        files,
        Decoder(
            run.schema,
            transforms,
            layout=run.config.data.layout,
            keys=key_columns(run.schema, evaluation),
        ),
        batch_size=batch_size or evaluation.batch_size or 2 * run.config.training.batch_size,
        order=Order(shuffle=False),
        read_ahead=run.config.training.read_ahead,
    )
