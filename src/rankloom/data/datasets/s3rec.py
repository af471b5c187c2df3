"""Item sequences of S3-Rec: Amazon's Beauty and Sports and others, rows to rank by drawn negatives.

Kun Zhou et al., "S3-Rec: Self-Supervised Learning for Sequential Recommendation with Mutual
Information Maximization", CIKM 2020, arXiv:2008.07873. `<name>.txt` has a user a line, `user item
item ...` in the order taken, at least 5 items; `<name>_item2attributes.json` the attributes of each
item (categories and brands). There are no times. The paper ranks each last item among 99 drawn
ones, as the test rows here do; its code and later papers rank the whole catalogue.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rankloom.data.columns import offsets_of
from rankloom.data.datasets import PreparedDataset
from rankloom.data.datasets.partitions import one_array
from rankloom.data.datasets.sequences import SPLITS, Int64, Negatives, Sequences, write_sequences
from rankloom.data.datasets.split_writer import writing_splits
from rankloom.data.datasets.splits import find_folder, first_existing, read_bytes
from rankloom.errors import ConfigError, DataError

Subset = Literal["Beauty", "Sports_and_Outdoors", "Toys_and_Games", "LastFM", "Yelp"]

FOLDER = "s3rec_sequences"
_ADVICE = (
    "Copy the folder data of https://github.com/RUCAIBox/CIKM2020-S3Rec into "
    f"$RANKLOOM_DATA/{FOLDER} (plain, .gz or .zst)."
)


def prepare_s3rec(
    destination: Path,
    *,
    subset: Subset = "Beauty",
    num_negatives: int = 4,
    test_negatives: int = 99,
    max_history: int = 50,
    seed: int = 0,
    report: Callable[[str], None],
) -> PreparedDataset:
    """Write train, valid and test rows: items taken beside items drawn.

    Columns: user_id, item_id, attributes (a list), label, request_id, history_item_id,
    history_first_event; see `sequences` for the split and the negatives.

    Args:
        destination: Folder to write to.
        subset: Which of the sequences.
        num_negatives: Items drawn for each item taken in train and valid.
        test_negatives: The same in test.
        max_history: The newest events of a history that are kept.
        seed: Of the draw.
        report: Called with each line of progress.

    Raises:
        ConfigError: `subset` is unknown, or a number is out of range.
        DataError: The local folder is absent or damaged, or `destination` cannot be written to.
    """
    if subset not in get_args(Subset):
        raise ConfigError(
            f"data.subset: unknown. Got {subset!r}. Choose one of {', '.join(get_args(Subset))}."
        )
    negatives = Negatives(fit=num_negatives, test=test_negatives)
    folder = find_folder(FOLDER, advice=_ADVICE)
    user, item, time = _read_sequences(_find(folder, f"{subset}.txt"))
    items = _read_attributes(_find(folder, f"{subset}_item2attributes.json"), np.unique(item))
    found = pc.index_in(pa.array(item), value_set=one_array(items["item_id"]))
    report(f"{subset}: {len(np.unique(user)):,} users, {len(items):,} items, {len(item):,} events")
    sequences = Sequences(
        user_id=pa.array(user),
        item=found.to_numpy().astype(np.int64),
        time=time,
        shared={},
        outcomes={},
        history=pa.table({"item_id": item}),
    )
    with writing_splits(destination, SPLITS, sums=("label",)) as writer:
        write_sequences(
            writer,
            sequences,
            items,
            negatives=negatives,
            max_history=max_history,
            generator=np.random.default_rng(seed),
        )
    notes = (
        f"S3-Rec {subset}, leave-one-out",
        negatives.note(seed=seed),
        *writer.notes("s3rec"),
    )
    for note in notes:
        report(note)
    return PreparedDataset(name="s3rec", folder=destination, rows=writer.rows, notes=notes)


def _find(folder: Path, name: str) -> Path:
    return first_existing(folder, (name, f"{name}.zst", f"{name}.gz"), advice=_ADVICE)


def _read_sequences(
    path: Path,
) -> tuple[Int64, ...]:
    """Give each event's user, item and place in its user's sequence."""
    lines = pa.array(read_bytes(path).decode("ascii", errors="replace").splitlines())
    words = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(lines))
    lengths = pc.list_value_length(words).to_numpy().astype(np.int64)
    try:
        numbers = pc.cast(words.flatten(), pa.int64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{path}: must have whole numbers only, user and items. Got: {error}. {_ADVICE}"
        ) from error
    short = np.flatnonzero(lengths < 2)
    if len(short) or not len(lengths):
        where = f"line {short[0] + 1} is shorter" if len(short) else "no line"
        raise DataError(f"{path}: must have a user and items a line. Got {where}. {_ADVICE}")
    starts = offsets_of(lengths)[:-1]
    user = numbers[starts]
    if len(np.unique(user)) < len(user):
        raise DataError(f"{path}: must have each user in one line. Got one twice. {_ADVICE}")
    place = np.arange(len(numbers)) - np.repeat(starts, lengths)
    is_item = place > 0
    return np.repeat(user, lengths)[is_item], numbers[is_item], place[is_item]


def _read_attributes(path: Path, items: Int64) -> pa.Table:
    """Give `item_id` and its list of `attributes`; none where the file does not know the item."""
    try:
        known = {int(key): value for key, value in json.loads(read_bytes(path)).items()}
        lists = pa.array([known.get(item, []) for item in items.tolist()], pa.list_(pa.int64()))
    except (ValueError, AttributeError, TypeError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: must be an object of items and their lists of numbers. Got: {error}. "
            f"{_ADVICE}"
        ) from error
    return pa.table({"item_id": items, "attributes": lists})
