"""Amazon product reviews: what users reviewed, and how, beside items drawn at random.

Julian McAuley et al., "Image-based Recommendations on Styles and Substitutes", SIGIR 2015 (2014);
Jianmo Ni et al., "Justifying Recommendations using Distantly-Labeled Reviews and Fine-Grained
Aspects", EMNLP 2019 (2018); Yupeng Hou et al., "Bridging Language and Items for Retrieval and
Recommendation", arXiv:2403.03952 (2023). Written from their published layouts and tested on
generated files of exactly these, not on the real ones:

- 2014 and 2018, `reviews_<category>_5.json.gz` and `<category>_5.json.gz`: an object a line with
  reviewerID, asin, overall (1 to 5), unixReviewTime (seconds, whole days) and texts;
- 2023, `<category>.jsonl.gz`: an object a line with user_id, parent_asin, rating, timestamp
  (milliseconds) and texts; or `<category>.csv.gz` with the columns user_id, parent_asin, rating,
  timestamp, and others such as history, which is not read.

Texts and the products' metadata are not read. Many users review several products at once, so a
history of things strictly older may be shorter than what the user reviewed before in file order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rankloom.data.datasets import PreparedDataset
from rankloom.data.datasets.delimited import first_line, read_delimited, read_json_lines
from rankloom.data.datasets.partitions import Partitions, count_partitions, one_array
from rankloom.data.datasets.sequences import SPLITS, Negatives, Sequences, write_sequences
from rankloom.data.datasets.split_writer import writing_splits
from rankloom.data.datasets.splits import find_folder
from rankloom.data.key_counter import KeyCounter
from rankloom.errors import ConfigError, DataError

FOLDER = "amazon"
_ADVICE = (
    "Download a category's reviews from https://amazon-reviews-2023.github.io, or the 5-core ones "
    "of 2014 or 2018 from https://jmcauley.ucsd.edu/data/amazon, and put the file into "
    f"$RANKLOOM_DATA/{FOLDER}."
)
_ENDINGS = (".json", ".jsonl", ".csv")
_MEMORY_KEYS = 20_000_000


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """The names of a year's fields, and how its times become seconds."""

    user: str
    item: str
    rating: str
    time: str
    ticks_per_second: int


_OLD = _Layout(
    user="reviewerID", item="asin", rating="overall", time="unixReviewTime", ticks_per_second=1
)
_NEW = _Layout(
    user="user_id", item="parent_asin", rating="rating", time="timestamp", ticks_per_second=1000
)


def prepare_amazon(
    destination: Path,
    *,
    file: str = "",
    num_negatives: int = 4,
    test_negatives: int = 99,
    max_history: int = 50,
    seed: int = 0,
    report: Callable[[str], None],
) -> PreparedDataset:
    """Write train, valid and test rows: products reviewed beside products drawn.

    Columns: user_id, item_id, label (reviewed), request_id, timestamp (seconds), rating (1 to 5, 0
    for a negative), history_item_id, history_rating, history_time, history_first_event; see
    `sequences` for the split and the negatives. Memory holds the keys of all products and a part of
    the users at a time.

    Args:
        destination: Folder to write to.
        file: Name of the file in the folder; not needed where there is one.
        num_negatives: Items drawn for each item taken in train and valid.
        test_negatives: The same in test.
        max_history: The newest events of a history that are kept.
        seed: Of the draw.
        report: Called with each line of progress.

    Raises:
        ConfigError: A number is out of range, or there are several files and none is named.
        DataError: The file is absent or damaged, or `destination` cannot be written to.
    """
    negatives = Negatives(fit=num_negatives, test=test_negatives)
    path = _find(file)
    with writing_splits(destination, SPLITS, sums=("label",)) as writer:
        counter = KeyCounter(memory_keys=_MEMORY_KEYS, name=path.name, folder=writer.scratch)
        parts = Partitions(
            writer.scratch / "reviews", key="user_id", count=count_partitions([path])
        ).fill(_pieces(path, report), see=lambda piece: counter.add(piece.column("item_id")))
        keys, _ = counter.finish(min_count=1, max_size=None)
        items = pa.table({"item_id": pc.cast(keys, pa.string())})
        report(f"{path.name}: {len(items):,} products")
        for number, reviews in enumerate(parts):
            write_sequences(
                writer,
                _sequences(reviews, items),
                items,
                negatives=negatives,
                max_history=max_history,
                generator=np.random.default_rng([seed, number]),
            )
    notes = (
        f"Amazon {path.name}, leave-one-out",
        negatives.note(seed=seed),
        *writer.notes("amazon"),
    )
    for note in notes:
        report(note)
    return PreparedDataset(name="amazon", folder=destination, rows=writer.rows, notes=notes)


def _find(file: str) -> Path:
    folder = find_folder(FOLDER, advice=_ADVICE)
    found = [path for path in sorted(folder.iterdir()) if _ending(path) in _ENDINGS]
    if file:
        found = [path for path in found if path.name == file]
    if not found:
        raise DataError(f"{folder}: has no {file or 'file in JSON lines or CSV'}. {_ADVICE}")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ConfigError(f"data.file: the folder has several. Got {names}. Name one.")
    return found[0]


def _ending(path: Path) -> str:
    """Give what the name ends in, without the ending of compression."""
    return Path(path.name.removesuffix(".gz").removesuffix(".zst")).suffix


def _pieces(path: Path, report: Callable[[str], None]) -> Iterator[pa.RecordBatch]:
    """Give user_id, item_id, rating and timestamp in seconds."""
    layout = _OLD if f'"{_OLD.user}"' in first_line(path) else _NEW
    types = {
        layout.user: pa.string(),
        layout.item: pa.string(),
        layout.rating: pa.float64(),
        layout.time: pa.int64(),
    }
    read = read_delimited if _ending(path) == ".csv" else read_json_lines
    for piece in read(path, types, filled=types, advice=_ADVICE, report=report):
        user, item, rating, time = (piece.rows.column(name) for name in types)
        outside = pc.or_(pc.less(rating, 1), pc.greater(rating, 5))
        piece.refuse(layout.rating, outside, rule="must be from 1 to 5")
        yield pa.RecordBatch.from_arrays(
            [user, item, rating, pc.divide(time, layout.ticks_per_second)],
            ["user_id", "item_id", "rating", "timestamp"],
        )


def _sequences(reviews: pa.Table, items: pa.Table) -> Sequences:
    place = pc.index_in(reviews["item_id"], value_set=one_array(items["item_id"]))
    columns = {name: one_array(reviews[name]) for name in reviews.column_names}
    rating = pc.cast(columns["rating"], pa.int64())
    return Sequences(
        user_id=columns["user_id"],
        item=place.to_numpy().astype(np.int64),
        time=columns["timestamp"].to_numpy(),
        shared={"timestamp": columns["timestamp"]},
        outcomes={"rating": rating},
        history=pa.table(
            {"item_id": columns["item_id"], "rating": rating, "time": columns["timestamp"]}
        ),
    )
