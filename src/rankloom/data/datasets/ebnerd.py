"""EBNeRD: articles shown, clicked and read on the front pages of Ekstra Bladet, with histories.

Johannes Kruse et al., "EB-NeRD: A Large-Scale Dataset for News Recommendation", RecSys Challenge
2024, arXiv:2410.03432. Written grouped: a line is an impression, its candidates are lists.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rankloom.data.columns import Ints, offsets_of
from rankloom.data.datasets import PreparedDataset
from rankloom.data.datasets.click_log import SPLITS, TOO_FEW
from rankloom.data.datasets.ebnerd_source import ADVICE, Chunk, read_chunks
from rankloom.data.datasets.list_store import ListStore, list_array
from rankloom.data.datasets.split_writer import SplitWriter, writing_splits
from rankloom.data.datasets.splits import find_folder, first_existing
from rankloom.data.event_times import runs_backwards
from rankloom.errors import ConfigError

_USER = ("is_sso_user", "gender", "postcode", "age", "is_subscriber")
_INTEGERS = ("impression_id", "user_id", "session_id", "article_id", "device_type", *_USER)
_BEHAVIORS = (
    *_INTEGERS, "impression_time", "article_ids_inview", "article_ids_clicked", "next_read_time",
)  # fmt: skip
_HISTORY = (
    "user_id", "impression_time_fixed", "article_id_fixed", "read_time_fixed",
    "scroll_percentage_fixed",
)  # fmt: skip
_ROW_GROUP_REQUESTS = 2048
_IMPRESSIONS_BETWEEN_REPORTS = 1_000_000
# One second below a power of two: the last bucket of seconds read is 15.
_MAX_READ_S = (1 << 16) - 2
_DAY_S, _HOUR_S = 86_400, 3600
# Later than any second of a log, so that user and second fit into one number.
_SECONDS_END = 1 << 34


def prepare_ebnerd(
    destination: Path, *, max_history: int = 200, report: Callable[[str], None]
) -> PreparedDataset:
    """Write train, valid and test, grouped: a line for each impression with a candidate.

    Of the candidates: item_id, click, and read_time_s, the seconds spent on the article that was
    clicked (0 where there was no click, null where it is unknown, as where two were clicked). The
    history is what the user read strictly before the impression's second, oldest first, with
    log2(1 + seconds read) in `history_read` and in `history_scroll` 0 for unknown, else 1 and a
    tenth of the per cent scrolled, both rounded down. How long and far the page itself was read is
    known only afterwards, and left out.

    Args:
        destination: Folder to write to.
        max_history: The newest events that are kept.
        report: Called with each line of progress.

    Raises:
        ConfigError: `max_history` is negative.
        DataError: There are no files or they are damaged, or `destination` cannot be written to.
    """
    if max_history < 0:
        raise ConfigError(f"data.max_history: must not be negative. Got {max_history}. Give 200.")
    folder = find_folder("ebnerd", "ebnerd_tiny", advice=ADVICE)
    sources: list[tuple[Path, Path, tuple[str, ...], tuple[float, ...]]]
    if folder.name == "ebnerd_tiny":
        how = f"by time, the first 80 % of impressions train, the last 10 % test: {TOO_FEW}"
        sources = [(*_files(folder, "ebnerd_tiny_"), SPLITS, (0.8, 0.9))]
    else:
        how = (
            "train is the official train, valid and test are the earlier and the later half of the "
            "official validation (the official test has no labels)"
        )
        sources = [
            (*_files(folder / "train"), SPLITS[:1], ()),
            (*_files(folder / "validation"), SPLITS[1:], (0.5,)),
        ]
    notes = [f"ebnerd: {folder}, {how}"]
    report(notes[0])
    with writing_splits(
        destination, SPLITS, sums=("click",), row_group_rows=_ROW_GROUP_REQUESTS
    ) as writer:
        for behaviors, history, splits, shares in sources:
            histories = _Histories(history, writer.scratch / splits[0], max_history)
            report(f"ebnerd: {history} read, {histories.num_users:,} users")
            _write(behaviors, histories, writer, splits=splits, shares=shares, report=report)
    parts = writer.notes("ebnerd")
    for note in parts:
        report(note)
    return PreparedDataset(
        name="ebnerd", folder=destination, rows=writer.rows, notes=(*notes, *parts)
    )


def _files(folder: Path, prefix: str = "") -> tuple[Path, Path]:
    """Find the behaviors and the histories."""
    behaviors, history = (
        first_existing(folder, (f"{prefix}{name}.parquet",), advice=ADVICE)
        for name in ("behaviors", "history")
    )
    return behaviors, history


def _write(
    path: Path,
    histories: _Histories,
    writer: SplitWriter,
    *,
    splits: tuple[str, ...],
    shares: tuple[float, ...],
    report: Callable[[str], None],
) -> None:
    """Write a file's impressions, cut into splits by time after these shares of them."""
    when = ("impression_time",)
    of_chunks = [chunk.seconds("impression_time") for chunk in read_chunks(path, when)]
    times = np.sort(np.concatenate([np.empty(0, np.int64), *of_chunks]))
    edges = times[[int(share * len(times)) for share in shares if len(times)]]
    num_read = 0
    for chunk in read_chunks(path, _BEHAVIORS):
        requests = _requests(chunk, histories)
        split_of = np.searchsorted(edges, requests.column("timestamp").to_numpy(), side="right")
        for number, split in enumerate(splits):
            writer.write(split, requests.filter(pa.array(split_of == number)))
        before, num_read = num_read, num_read + len(chunk.rows)
        if num_read // _IMPRESSIONS_BETWEEN_REPORTS > before // _IMPRESSIONS_BETWEEN_REPORTS:
            report(f"ebnerd: {num_read:,} impressions of {path} read")


def _requests(chunk: Chunk, histories: _Histories) -> pa.RecordBatch:
    """Make lines of the impressions that have candidates."""
    lengths, articles = chunk.lists("article_ids_inview")
    chosen_lengths, chosen = chunk.lists("article_ids_clicked")
    row = np.repeat(np.arange(len(lengths)), lengths)
    chosen_row = np.repeat(np.arange(len(lengths)), chosen_lengths)
    click = np.isin(_pairs(row, articles), _pairs(chosen_row, chosen))
    read_s = chunk.numbers("next_read_time")
    read_s[np.bincount(row, weights=click, minlength=len(lengths)) > 1] = np.nan
    read_s = np.where(click, read_s[row], 0)
    seconds = chunk.seconds("impression_time")
    users = chunk.integers("user_id")
    columns = {
        "request_id": chunk.integers("impression_id"),
        "user_id": users,
        "session_id": chunk.integers("session_id"),
        **{name: chunk.integers(name) for name in _USER},
        "device_type": chunk.integers("device_type"),
        "page_id": chunk.integers("article_id"),
        "timestamp": seconds,
        "hour": seconds // _HOUR_S % 24,
        # 1 January 1970 was a Thursday; Monday is 0.
        "weekday": (seconds // _DAY_S + 3) % 7,
        **histories.columns(users, seconds),
        "item_id": list_array(lengths, articles),
        "click": list_array(lengths, click.astype(np.int64)),
        "read_time_s": list_array(lengths, pa.array(read_s, from_pandas=True)),
    }
    return pa.RecordBatch.from_pydict(columns).filter(pa.array(lengths > 0))


def _pairs(row: Ints, article: Ints) -> Ints:
    return row << 32 | article


class _Histories:
    """What each user of a file read, oldest first; all but the lengths stays on disk."""

    def __init__(self, path: Path, scratch: Path, max_history: int) -> None:
        scratch.mkdir()
        kinds = {"time": np.int64, "item_id": np.int64, "read": np.int64, "scroll": np.int64}
        self._store = ListStore(scratch, "history", kinds)
        self._max_history = max_history
        users = [np.empty(0, np.int64)]
        for chunk in read_chunks(path, _HISTORY):
            users.append(chunk.integers("user_id").to_numpy())
            self._store.add(*_events(chunk))
        self._store.seal()
        self._users = pa.array(np.concatenate(users))

    @property
    def num_users(self) -> int:
        return len(self._users)

    def columns(self, users: pa.Array, seconds: Ints) -> dict[str, pa.Array]:
        """Give the columns of the histories that (n,) users have before the (n,) seconds."""
        found = pc.index_in(users, self._users)
        is_known = found.is_valid().to_numpy(zero_copy_only=False)
        place = pc.fill_null(found, 0).to_numpy().astype(np.int64)
        offsets = self._store.offsets
        starts, ends = np.zeros(len(place), np.int64), np.zeros(len(place), np.int64)
        starts[is_known] = offsets[place[is_known]]
        ends[is_known] = self._ends(place[is_known], seconds[is_known])
        kept = np.maximum(starts, ends - self._max_history)
        columns = {
            f"history_{name}": list_array(ends - kept, self._store.take(name, kept, ends - kept))
            for name in ("item_id", "read", "scroll", "time")
        }
        return columns | {"history_first_event": pa.array(kept - starts)}

    def _ends(self, place: Ints, seconds: Ints) -> Ints:
        """Find where the events before the seconds end, among all events."""
        unique, inverse = np.unique(place, return_inverse=True)
        starts = self._store.offsets[unique]
        lengths = self._store.offsets[unique + 1] - starts
        owner = np.repeat(np.arange(len(unique)), lengths)
        keys = owner * _SECONDS_END + self._store.take("time", starts, lengths)
        before = np.searchsorted(keys, inverse * _SECONDS_END + seconds)
        ends: Ints = starts[inverse] + before - offsets_of(lengths)[inverse]
        return ends


def _events(chunk: Chunk) -> tuple[Ints, dict[str, npt.NDArray[Any]]]:
    """Give the events of users as lengths and values, each user's in order of time."""
    lengths, articles = chunk.lists("article_id_fixed")
    time = chunk.list_seconds("impression_time_fixed", lengths)
    read_s = np.nan_to_num(chunk.list_numbers("read_time_fixed", lengths))
    scrolled = np.nan_to_num(chunk.list_numbers("scroll_percentage_fixed", lengths), nan=-1)
    values: dict[str, npt.NDArray[Any]] = {
        "time": time,
        "item_id": articles,
        "read": np.log2(1 + np.clip(read_s, 0, _MAX_READ_S)).astype(np.int64),
        "scroll": 1 + np.clip(scrolled, -1, 100).astype(np.int64) // 10,
    }
    if runs_backwards(time, offsets_of(lengths)).any():
        order = np.lexsort((time, np.repeat(np.arange(len(lengths)), lengths)))
        values = {name: value[order] for name, value in values.items()}
    return lengths, values
