"""Ali-CCP: what people saw, clicked and bought in Taobao's recommendations.

Xiao Ma et al., "Entire Space Multi-Task Model: An Effective Approach for Estimating Post-Click
Conversion Rate", SIGIR 2018, arXiv:1804.07931. Written grouped: the many ids of a user's past
stand once for all rows that follow each other with them, not once for each row.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rankloom.data.columns import Ints
from rankloom.data.datasets import PreparedDataset
from rankloom.data.datasets.ali_ccp_source import (
    CommonFeatures,
    parse_features,
    read_requests,
    run_starts,
)
from rankloom.data.datasets.click_log import SPLITS, TOO_FEW
from rankloom.data.datasets.delimited import Piece, read_delimited
from rankloom.data.datasets.list_store import list_array
from rankloom.data.datasets.split_writer import SplitWriter, writing_splits
from rankloom.data.datasets.splits import find_folder, first_existing

USER = {
    "101": "user_id", "121": "profile", "122": "group", "124": "gender", "125": "age",
    "126": "consumption_1", "127": "consumption_2", "128": "occupation", "129": "geography",
}  # fmt: skip
"""Field -> column; one id a request."""
PAST = {
    "109_14": "past_category", "110_14": "past_shop", "127_14": "past_brand",
    "150_14": "past_intention",
}  # fmt: skip
"""Several ids a request, each with a weight: what the user did in 14 days."""
ITEM = {"205": "item_id", "206": "category", "207": "shop", "216": "brand", "301": "position"}
"""One id a row."""
MATCH = {
    "210": "intention", "508": "match_category", "509": "match_shop", "702": "match_brand",
    "853": "match_intention",
}  # fmt: skip
"""Several ids a row, each with a weight; but for the intention, where past and item meet."""

_ADVICE = (
    "Put sample_skeleton_train.csv, common_features_train.csv, sample_skeleton_test.csv and "
    "common_features_test.csv of Ali-CCP (tianchi.aliyun.com, data set 408) into "
    "$RANKLOOM_DATA/ali_ccp."
)
_SAMPLE = {
    "train": "ali_ccp_train_sample.csv",
    "valid": "ali_ccp_val_sample.csv",
    "test": "ali_ccp_test_sample.csv",
}
_LABELS = ("click", "purchase")
_INTENTION = "210"
_OF_USER = {*USER.values(), *PAST.values(), *(f"{name}_weight" for name in PAST.values())}
_VALID_SHARE = 0.1
# A request has about sixty rows and some hundred ids of the past.
_ROW_GROUP_REQUESTS = 1024


def prepare_ali_ccp(
    destination: Path, *, seed: int = 0, report: Callable[[str], None]
) -> PreparedDataset:
    """Write train, valid and test, grouped: a line for each run of rows with the same user's past.

    `click` and `purchase` are lists of labels; those of `ITEM` and `MATCH` are lists too. Each
    column of `PAST` and `MATCH` has one with its weights beside it, `*_weight`.

    Args:
        destination: Folder to write to.
        seed: Of the draw of validation requests from the official training file. The sample keeps
            its own split.
        report: Called with each line of progress.

    Raises:
        DataError: There are no files or they are damaged, or `destination` cannot be written to.
    """
    folder = find_folder("ali_ccp", "tiny_samples", advice=_ADVICE)
    is_sample = folder.name == "tiny_samples"
    how = (
        f"with the sample's own split: {TOO_FEW}. Its ids are not the official ones, and each list "
        "of the past is cut to one id"
        if is_sample
        else f"test is the official test file, valid {_VALID_SHARE:.0%} of the training file's "
        f"requests, drawn (seed {seed}); the draw that papers use is not published"
    )
    notes = [f"ali_ccp: {folder}, {how}"]
    report(notes[0])
    with writing_splits(
        destination, SPLITS, sums=_LABELS, row_group_rows=_ROW_GROUP_REQUESTS
    ) as writer:
        if is_sample:
            for split, name in _SAMPLE.items():
                path = first_existing(folder, (name,), advice=_ADVICE)
                _write_sample(path, split, writer, report=report)
        else:
            dropped = _write_official(folder, writer, seed=seed, report=report)
            notes.append(f"ali_ccp: {dropped:,} rows with a purchase but no click were left out")
            report(notes[-1])
    parts = writer.notes("ali_ccp")
    for note in parts:
        report(note)
    return PreparedDataset(
        name="ali_ccp", folder=destination, rows=writer.rows, notes=(*notes, *parts)
    )


def _write_official(
    folder: Path, writer: SplitWriter, *, seed: int, report: Callable[[str], None]
) -> int:
    """Write all splits; give the number of rows left out."""
    generator = np.random.default_rng(seed)
    num_dropped = 0
    # All are looked for before the first is read, which takes long.
    paths = {
        (kind, file): first_existing(
            folder, (f"{kind}_{file}.csv", f"{kind}_{file}.csv.gz"), advice=_ADVICE
        )
        for file in ("train", "test")
        for kind in ("sample_skeleton", "common_features")
    }
    for file in ("train", "test"):
        skeleton, common_file = paths["sample_skeleton", file], paths["common_features", file]
        common = CommonFeatures(
            common_file,
            scratch=writer.scratch,
            one=USER,
            several=PAST,
            advice=_ADVICE,
            report=report,
        )
        for piece in read_requests(skeleton, flags=_LABELS, advice=_ADVICE, report=report):
            rows, lines = _rows(piece, common)
            num_dropped += len(piece.rows) - len(rows)
            if len(rows):
                starts = run_starts(pa.array(lines))
                requests = _requests(rows, starts, _user_columns(common, lines[starts]))
                is_valid = generator.random(len(starts)) < _VALID_SHARE
                if file == "test":
                    writer.write("test", requests)
                else:
                    writer.write("train", requests.filter(pa.array(~is_valid)))
                    writer.write("valid", requests.filter(pa.array(is_valid)))
    return num_dropped


def _rows(piece: Piece, common: CommonFeatures) -> tuple[pa.RecordBatch, Ints]:
    """Give the rows to keep, and their lines of the common features."""
    lines = common.find(piece)
    fields = (*ITEM, *MATCH)
    features = parse_features(piece, fields)
    columns = {name: piece.rows.column(name) for name in _LABELS}
    for field, name in ITEM.items():
        columns[name] = features.one(fields.index(field))
    for field, name in MATCH.items():
        lengths, ids, weights = features.several(fields.index(field))
        columns[name] = list_array(lengths, ids)
        columns[f"{name}_weight"] = list_array(lengths, weights)
    # Nobody buys what was not clicked: such rows are errors of the log, left out by all papers.
    is_kept = pc.greater_equal(columns["click"], columns["purchase"])
    kept = pa.RecordBatch.from_pydict(columns).filter(is_kept)
    return kept, lines[is_kept.to_numpy(zero_copy_only=False)]


def _user_columns(common: CommonFeatures, lines: Ints) -> dict[str, pa.Array]:
    columns = {"request_id": common.keys(lines)}
    for field, name in USER.items():
        columns[name] = common.one(field, lines)
    for field, name in PAST.items():
        columns[name], columns[f"{name}_weight"] = common.several(field, lines)
    return columns


def _requests(
    rows: pa.RecordBatch, starts: Ints, user_columns: dict[str, pa.Array]
) -> pa.RecordBatch:
    """Put the rows from each start on into lists, beside the columns of their users."""
    lengths = np.diff(starts, append=len(rows))
    row_columns = {name: list_array(lengths, rows.column(name)) for name in rows.schema.names}
    return pa.RecordBatch.from_pydict(user_columns | row_columns)


def _write_sample(
    path: Path, split: str, writer: SplitWriter, *, report: Callable[[str], None]
) -> None:
    """Write a file of one id a field, 0 where it is missing, and weights as `D<field>`."""
    weights = [f"D{field}" for field in (*PAST, *MATCH) if field != _INTENTION]
    ids = (*USER, *PAST, *ITEM, *MATCH)
    types = dict.fromkeys((*_LABELS, *ids), pa.int64()) | dict.fromkeys(weights, pa.float32())
    for piece in read_delimited(path, types, flags=_LABELS, advice=_ADVICE, report=report):
        columns = {name: piece.rows.column(name) for name in _LABELS}
        for field, name in (ITEM | USER).items():
            columns[name] = _null_for_zero(piece.rows.column(field))
        for field, name in (MATCH | PAST).items():
            found = _null_for_zero(piece.rows.column(field))
            lengths = found.is_valid().to_numpy(zero_copy_only=False).astype(np.int64)
            ones = pa.array(np.ones(len(found), np.float32))
            weight = ones if field == _INTENTION else piece.rows.column(f"D{field}")
            columns[name] = list_array(lengths, found.drop_null())
            columns[f"{name}_weight"] = list_array(lengths, weight.filter(found.is_valid()))
        rows = pa.RecordBatch.from_pydict(columns)
        of_user = [pc.cast(piece.rows.column(field), pa.string()) for field in (*USER, *PAST)]
        starts = run_starts(pc.binary_join_element_wise(*of_user, ",", null_handling="replace"))
        names = [name for name in columns if name in _OF_USER]
        first = rows.select(names).take(pa.array(starts))
        request = [f"{path.stem} {piece.first_line + start}" for start in starts]
        user_columns = {"request_id": pa.array(request)} | {n: first.column(n) for n in names}
        writer.write(split, _requests(rows.drop_columns(names), starts, user_columns))


def _null_for_zero(ids: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(ids, 0), pa.scalar(None, ids.type), ids)
