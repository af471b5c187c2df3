"""MovieLens-100K: 943 users rate 1,682 films, September 1997 to April 1998.

F. Maxwell Harper and Joseph A. Konstan, "The MovieLens Datasets: History and Context", ACM
Transactions on Interactive Intelligent Systems 5(4), 2015.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from rankloom.data.datasets import PreparedDataset
from rankloom.data.datasets.movielens_source import MovieLensFiles, fetch_movielens
from rankloom.data.datasets.rating_log import RatingLog, Split, write_rating_log
from rankloom.errors import DataError

# Of the sorted ratings, so that it is the same for every source and form.
RATINGS_SHA256 = "c98970c48ae3e6b98bb44a3f6725d386b37e7817707570c2b7c30a7e395a02f2"

_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip
_USER_COLUMNS = ["user_id", "age", "gender", "occupation", "zip_code"]
_RATING_COLUMNS = ["user_id", "item_id", "rating", "timestamp"]


def prepare_movielens(
    destination: Path,
    *,
    split: Split = "user_time",
    max_history: int = 200,
    report: Callable[[str], None],
) -> PreparedDataset:
    """Fetch the ratings and write train, valid and test rows with histories.

    Columns: user_id, age, gender, occupation, zip_code, item_id, release_year (null if unknown),
    genres (none if unknown), rating (1 to 5), timestamp (seconds), hour (UTC), weekday (Monday is
    0), request_id, history_item_id, history_rating, history_time and history_first_event (how many
    events of the user came before the first one kept).

    Args:
        destination: Folder to write to.
        split: Cut each user's requests by time, or all requests.
        max_history: The newest events of a history that are kept.
        report: Called with each line of progress.

    Raises:
        ConfigError: `split` is unknown or `max_history` is negative.
        DataError: No source can be reached, its data are damaged, or the folder cannot be written
            to.
    """
    files = fetch_movielens()
    log = parse_movielens(files)
    digest = ratings_digest(log)
    if digest != RATINGS_SHA256:
        raise DataError(
            f"MovieLens-100K: the ratings of {files.origin} are not the known ones. Got sha256 "
            f"{digest}, expected {RATINGS_SHA256}. Fetch the data anew, or take --data synthetic."
        )
    report(f"MovieLens-100K: {files.origin}, {len(log.rating):,} ratings, sha256 ok")
    return write_rating_log(
        log, destination, name="movielens", split=split, max_history=max_history, report=report
    )


def parse_movielens(files: MovieLensFiles) -> RatingLog:
    """Read the files of either form.

    Raises:
        DataError: A file is not of its form, or rates a user or an item that no file describes.
    """
    try:
        if files.form == "recbole":
            users, items, ratings = _parse_recbole(files)
        else:
            users, items, ratings = _parse_grouplens(files)
    except (pa.ArrowException, KeyError) as error:
        raise DataError(
            f"MovieLens-100K: {files.origin} cannot be parsed. Got: {error}. Fetch the data anew."
        ) from error
    numbers = {}
    for name, entities in (("user_id", users), ("item_id", items)):
        found = pc.index_in(ratings[name], entities[name])
        if found.null_count:
            raise DataError(
                f"MovieLens-100K: {files.origin}: ratings name a {name} that is not described. "
                f"Got {found.null_count} of them. Fetch the data anew."
            )
        numbers[name] = found.to_numpy().astype(np.int64)
    return RatingLog(
        users=users,
        items=items,
        user=numbers["user_id"],
        item=numbers["item_id"],
        rating=ratings["rating"].to_numpy(),
        timestamp=ratings["timestamp"].to_numpy(),
    )


def ratings_digest(log: RatingLog) -> str:
    """Sha256 over the lines `user item rating timestamp` in order of the three last ids as text."""
    lines = pc.binary_join_element_wise(
        log.users["user_id"].take(pa.array(log.user)),
        log.items["item_id"].take(pa.array(log.item)),
        pc.cast(pa.array(log.rating), pa.string()),
        pc.cast(pa.array(log.timestamp), pa.string()),
        " ",
    )
    ordered = lines.take(pc.sort_indices(lines)).to_pylist()
    return hashlib.sha256("\n".join(ordered).encode()).hexdigest()


def _parse_recbole(files: MovieLensFiles) -> tuple[pa.Table, pa.Table, pa.Table]:
    users = _read_text(files.users, "\t", None)
    items = _read_text(files.items, "\t", None)
    ratings = _read_text(files.ratings, "\t", None)
    classes = items["class"].to_pylist()
    genres = [[name for name in text.split(" ") if name in _GENRES[1:]] for text in classes]
    return _users(users), _items(items["item_id"], items["release_year"], genres), _ratings(ratings)


def _parse_grouplens(files: MovieLensFiles) -> tuple[pa.Table, pa.Table, pa.Table]:
    users = _read_text(files.users, "|", _USER_COLUMNS)
    about = ["item_id", "title", "release_date", "video_release_date", "url"]
    items = _read_text(files.items, "|", [*about, *_GENRES])
    ratings = _read_text(files.ratings, "\t", _RATING_COLUMNS)
    # A few titles end otherwise, such as "(V)" after the year; their year counts as unknown.
    years = pc.struct_field(pc.extract_regex(items["title"], r"\((?P<year>\d{4})\)\s*$"), "year")
    flags = np.stack([items[name].to_numpy() == "1" for name in _GENRES[1:]], axis=1)
    genres = [[_GENRES[1 + place] for place in np.flatnonzero(row)] for row in flags]
    return _users(users), _items(items["item_id"], years, genres), _ratings(ratings)


def _read_text(content: bytes, delimiter: str, columns: list[str] | None) -> pa.Table:
    """Read delimited text with every column as string; `name:type` headers lose their type."""
    if columns is None:
        header = content.split(b"\n", 1)[0].decode().strip()
        columns, skipped = [name.partition(":")[0] for name in header.split(delimiter)], 1
    else:
        skipped = 0
    return pa.csv.read_csv(
        io.BytesIO(content),
        # GroupLens writes Latin-1; the recbole form is plain ASCII or UTF-8.
        pa.csv.ReadOptions(
            column_names=columns, skip_rows=skipped, encoding="utf8" if skipped else "latin1"
        ),
        pa.csv.ParseOptions(delimiter=delimiter, quote_char=False),
        pa.csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string())),
    )


def _users(text: pa.Table) -> pa.Table:
    users = text.select(_USER_COLUMNS)
    return users.set_column(1, "age", pc.cast(users["age"], pa.float64()))


def _items(ids: pa.ChunkedArray, years: pa.ChunkedArray, genres: list[list[str]]) -> pa.Table:
    is_year = pc.fill_null(pc.match_substring_regex(years, r"^\d{4}$"), fill_value=False)
    known = pc.if_else(is_year, years, pa.scalar(None, pa.string()))
    return pa.table(
        {
            "item_id": ids,
            "release_year": pc.cast(known, pa.int64()),
            "genres": pa.array(genres, pa.list_(pa.string())),
        }
    )


def _ratings(text: pa.Table) -> pa.Table:
    numbers = {name: pc.cast(text[name], pa.int64()) for name in ("rating", "timestamp")}
    return pa.table({"user_id": text["user_id"], "item_id": text["item_id"], **numbers})
