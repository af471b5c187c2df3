"""Export a trained run as an artifact, with golden requests from its own log."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from rankloom.api.evaluating import read_evaluations
from rankloom.api.result import TrainResult, load_result
from rankloom.artifact.export import About, Exported, check_request
from rankloom.artifact.export import export as export_model
from rankloom.artifact.golden import GoldenRequest
from rankloom.data.files import LogFiles, check_files, read_lines
from rankloom.data.plan import Decoder, decode_table
from rankloom.data.request import RequestDecoder
from rankloom.errors import DataError, SchemaError
from rankloom.evaluation import Scorer

NUM_REQUESTS = 8
MAX_CANDIDATES = 32
"""Of a golden request made of a flat log's lines."""


def export(
    result: TrainResult | str | Path,
    to: str | Path,
    *,
    quantize: Sequence[str] = (),
    golden: str | Path | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write what it takes to serve a trained run, verified.

    Args:
        result: What `train` gave, or a run folder.
        to: Folder to write, whole or not at all; must not be there yet.
        quantize: Of `tables`, `user`, `candidate`: what is stored in int8, or may run in bf16.
        golden: Parquet file to take golden requests from; default: the run's valid, test or train
            log.
        report: Is told what is done next.

    Raises:
        ArtifactError: The folder is there already or cannot be written.
        ConfigError: `quantize` names something else.
        DataError: The log cannot be read.
        HoistError: The network cannot be divided by rate.
        SchemaError: There is no feature of side item or cross.
    """
    check_request(Path(to), quantize)
    if not isinstance(result, TrainResult):
        result = load_result(result)
    run = result.run
    requests = _golden_requests(result, None if golden is None else Path(golden))
    evaluations = read_evaluations(result.folder)
    return export_model(
        Path(to),
        result.model,
        indexes={name: one.index for name, one in result.transforms.vocabularies.items()},
        statistics=result.transforms.statistics,
        golden=requests,
        about=About(
            run=run.config.to_dict(),
            metrics={split: one.to_dict() for split, one in evaluations.items()},
        ),
        quantize=quantize,
        report=report,
    )


def _golden_requests(result: TrainResult, file: Path | None) -> list[GoldenRequest]:
    """Take requests from the log and score them with the plain network, as training would."""
    run = result.run
    schema, layout = run.schema, run.config.data.layout
    decoder = Decoder(schema, result.transforms, layout=layout, with_labels=False)
    places = RequestDecoder(schema, {}).columns()
    if not places["candidates"]:
        raise SchemaError(
            "schema: an artifact scores candidates. Got no feature of side item or cross. Add one."
        )
    lines, kinds = _first_lines(_log(result, file), decoder.columns)
    if layout == "grouped":
        lines = [line for line in lines if line[places["candidates"][0]]]
    # In fp32 on the CPU, wherever and however it was trained: that is what programs must equal.
    scorer = Scorer(result.model, device=torch.device("cpu"), precision="fp32")
    wide = [*places["user"], *places["context"]]
    histories = {
        column for name in schema.sequences for column in _columns_of_history(schema, name)
    }
    requests = []
    for number, line in enumerate(lines[:NUM_REQUESTS]):
        if layout == "grouped":
            rows = [line]
            candidates = {name: line[name] for name in places["candidates"]}
        else:
            # A flat log has no requests: the items of the next lines are one user's candidates.
            # The last request has a single one.
            count = 1 if number == NUM_REQUESTS - 1 else MAX_CANDIDATES
            others = lines[number : number + count]
            rows = [{**other, **{name: line[name] for name in wide}} for other in others]
            candidates = {name: [row[name] for row in rows] for name in places["candidates"]}
        if number == 1:
            # One user without any history.
            empty: dict[str, Any] = {name: [] for name in histories}
            line, rows = {**line, **empty}, [{**row, **empty} for row in rows]
        batch = decode_table(pa.Table.from_pylist(rows, schema=kinds), decoder, where="golden")
        scores = {task: values.tolist() for task, values in scorer(batch).items()}
        requests.append(
            GoldenRequest(
                user={name: line[name] for name in places["user"]},
                candidates=candidates,
                context={name: line[name] for name in places["context"]},
                scores=scores,
            )
        )
    return requests


def _columns_of_history(schema: Any, name: str) -> list[str]:
    feature = schema.sequences[name]
    columns = [c.column for c in schema.id_columns() if c.feature == name]
    return [*columns, *([feature.time] if feature.time else [])]


def _log(result: TrainResult, file: Path | None) -> LogFiles:
    """Find a log of the run, the ones that training did not see first.

    Raises:
        DataError: None is there any more.
        SchemaError: The file lacks columns.
    """
    config = result.run.config.data
    options: dict[str, Any] = {
        "layout": config.layout,
        "with_labels": False,
        "transforms": result.transforms,
    }
    if file is not None:
        return check_files(file, result.run.schema, **options)
    problems = []
    for split in ("valid", "test", "train"):
        if getattr(config, split) is None:
            continue
        try:
            return check_files(config.files(split), result.run.schema, **options)
        except DataError as error:
            problems.append(str(error))
    raise DataError(
        f"{problems[-1]} Golden requests need a log: name a Parquet file with --golden."
    )


def _first_lines(log: LogFiles, columns: Sequence[str]) -> tuple[list[dict[str, Any]], pa.Schema]:
    """Read the first lines, as plain values, and their types."""
    lines: list[dict[str, Any]] = []
    for batch, _ in read_lines(log.segments(), columns):
        wanted = NUM_REQUESTS + MAX_CANDIDATES - len(lines)
        lines += [_plain(line) for line in batch.slice(0, wanted).to_pylist()]
        if len(lines) == NUM_REQUESTS + MAX_CANDIDATES:
            break
    return lines, batch.schema


def _plain(value: Any) -> Any:
    """Give a value as JSON has it: NaN, which stands for a missing number, becomes none."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
