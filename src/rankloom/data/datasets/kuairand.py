"""KuaiRand: short videos of Kuaishou in April and May 2022, some of them shown at random.

Chongming Gao et al., "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed
Videos", CIKM 2022, arXiv:2208.08696. Three variants of one layout: Pure (1,436,609 standard and
1,186,059 random rows), 1K (11,713,045 and 43,028) and 27K (322,278,385 and 1,186,059). Written from
the published layout and tested on generated files of exactly that, not on the real ones; v is
`pure`, `1k` or `27k`, and 27k's large files end in `_part<n>.csv`:

- `log_standard_4_08_to_4_21_<v>.csv`, `log_standard_4_22_to_5_08_<v>.csv` and
  `log_random_4_22_to_5_08_<v>.csv`: what was shown, with twelve kinds of feedback;
- `user_features_<v>.csv` and `video_features_basic_<v>.csv`.

`video_features_statistic_<v>.csv` is not read: it holds means over the whole month, days of the
test among them, so that it tells the labels. Of Pure's standard log only the videos of the random
log's pool were kept, so its histories have gaps.

The log is divided by video into temporary files beside the result, joined with the videos part by
part, and divided again by user; memory holds the users' features and one part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from rankloom.data.datasets import PreparedDataset
from rankloom.data.datasets.delimited import Piece, Types, read_delimited
from rankloom.data.datasets.histories import write_impressions
from rankloom.data.datasets.partitions import Partitions, count_partitions, left_join
from rankloom.data.datasets.split_writer import SplitWriter, writing_splits
from rankloom.data.datasets.splits import find_folder
from rankloom.errors import ConfigError, DataError

FOLDER = "kuairand"
_ADVICE = (
    "Download KuaiRand-Pure, -1K or -27K from https://kuairand.com and put the .csv files of its "
    f"folder data into $RANKLOOM_DATA/{FOLDER} (plain, .gz or .zst)."
)
_SPLITS = ("train", "valid", "test")
_RANDOM = "random"
_SUMS = ("is_click", "is_like", "long_view")
_FLAGS = (
    "is_click", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "long_view",
    "is_profile_enter", "is_rand",
)  # fmt: skip
_INTEGERS = (
    "user_id", "video_id", "date", "time_ms", "play_time_ms", "duration_ms", "profile_stay_time",
    "comment_stay_time", "tab",
)  # fmt: skip
_LOG: Types = dict.fromkeys((*_INTEGERS, *_FLAGS), pa.int64())
_NUMBERS = (
    "is_lowactive_period", "is_live_streamer", "is_video_author", "follow_user_num",
    "fans_user_num", "friend_user_num", "register_days",
    *(f"onehot_feat{number}" for number in range(18)),
)  # fmt: skip
# Whole numbers that the files write as "3.0" where the column has gaps.
_USERS: Types = {"user_id": pa.int64(), "user_active_degree": pa.string()} | dict.fromkeys(
    _NUMBERS, pa.float64()
)
_VIDEOS: Types = {
    "video_id": pa.int64(), "author_id": pa.int64(), "video_type": pa.string(),
    "upload_type": pa.string(), "music_id": pa.float64(), "music_type": pa.float64(),
    "tag": pa.string(),
}  # fmt: skip
_EVENT_COLUMNS = ("video_id", "author_id", "tab")
_UTC_OFFSET_S = 8 * 3600
_VALID_FROM = 2022_04_22
_TEST_FROM = 2022_04_29


def prepare_kuairand(
    destination: Path,
    *,
    variant: str = "",
    max_history: int = 50,
    report: Callable[[str], None],
) -> PreparedDataset:
    """Write what was shown, with histories of clicks: train, valid, test and, if there, random.

    Train is 8 to 21 April, valid 22 to 28 April, test 29 April to 8 May 2022. Random is the random
    log, all of it later than train. A history has the user's clicks (in a feed of one column: plays
    of 7 seconds, or to the end) of both logs. Columns: user_id, video_id, date, timestamp
    (seconds), hour and weekday (Beijing time, Monday is 0), tab (the scenario), duration_ms, the
    feedback, play_time_s, those of the video (tag as a list) and of the user, request_id,
    history_video_id, history_author_id, history_tab, history_time, history_first_event.

    Args:
        destination: Folder to write to.
        variant: pure, 1k or 27k; not needed where the folder has one.
        max_history: The newest events of a history that are kept.
        report: Called with each line of progress.

    Raises:
        ConfigError: `max_history` is negative, or `variant` is needed.
        DataError: A file is absent or damaged, or `destination` cannot be written to.
    """
    files = _find(variant)

    def read(kind: str, types: Types, filled: Collection[str]) -> Iterator[pa.RecordBatch]:
        flags = types.keys() & _FLAGS
        for path in files[kind]:
            for piece in read_delimited(
                path, types, filled=filled, flags=flags, advice=_ADVICE, report=report
            ):
                yield _whole(piece)

    users = pa.Table.from_batches(read("user_features", _USERS, ("user_id",)))
    count = count_partitions([*files["log"], *files["video_features_basic"]])
    has_random = any(path.name.startswith("log_random") for path in files["log"])
    splits = (*_SPLITS, _RANDOM) if has_random else _SPLITS
    with writing_splits(destination, splits, sums=_SUMS) as writer:
        log = Partitions(writer.scratch / "log", key="video_id", count=count)
        log.fill(read("log", _LOG, _LOG))
        videos = Partitions(writer.scratch / "videos", key="video_id", count=count)
        videos.fill(read("video_features_basic", _VIDEOS, ("video_id",)))
        shown = Partitions(writer.scratch / "shown", key="user_id", count=count)
        shown.fill(_with_videos(log, videos))
        for number, part in enumerate(shown):
            _write(writer, part, users, max_history=max_history)
            report(f"users: part {number + 1} of {count}")
    notes = (
        "KuaiRand: train 8 to 21 April, valid 22 to 28 April, test 29 April to 8 May 2022",
        *writer.notes("kuairand"),
    )
    for note in notes:
        report(note)
    return PreparedDataset(name="kuairand", folder=destination, rows=writer.rows, notes=notes)


def _find(variant: str) -> dict[str, list[Path]]:
    """Find the files of one variant by kind."""
    folder = find_folder(FOLDER, advice=_ADVICE)
    name = re.compile(
        r"(log|user_features|video_features_basic)(?:_(?:standard|random)_\d_\d\d_to_\d_\d\d)?"
        r"_(pure|1k|27k)(?:_part\d+)?\.csv(?:\.gz|\.zst)?"
    )
    found: dict[str, dict[str, list[Path]]] = {}
    for path in sorted([*folder.glob("*.csv*"), *folder.glob("data/*.csv*")]):
        matched = name.fullmatch(path.name)
        if matched is not None:
            found.setdefault(matched[2], {}).setdefault(matched[1], []).append(path)
    if (variant or len(found) != 1) and variant not in found:
        raise ConfigError(
            f"data.variant: the folder has {', '.join(sorted(found)) or 'none'}. "
            f"Got {variant!r}. Name one that it has. {_ADVICE}"
        )
    files = found[variant or next(iter(found))]
    missing = {"log", "user_features", "video_features_basic"} - files.keys()
    if missing:
        raise DataError(f"{folder}: has no file {', '.join(sorted(missing))}_*.csv. {_ADVICE}")
    return files


def _with_videos(log: Partitions, videos: Partitions) -> Iterator[pa.RecordBatch]:
    for shown, known in zip(log, videos, strict=True):
        joined = left_join(shown, known, key="video_id", other_key="video_id")
        yield from joined.combine_chunks().to_batches()


def _whole(piece: Piece) -> pa.RecordBatch:
    """Turn all real numbers into integers, which they are by the layout."""
    rows = piece.rows
    for place, (name, column) in enumerate(zip(rows.schema.names, rows.columns, strict=True)):
        if pa.types.is_floating(column.type):
            whole = pc.cast(column, pa.int64(), safe=False)
            differs = pc.not_equal(pc.cast(whole, column.type, safe=False), column)
            piece.refuse(name, pc.fill_null(differs, fill_value=False), rule="must be whole")
            rows = rows.set_column(place, name, whole)
    return rows


def _write(writer: SplitWriter, shown: pa.Table, users: pa.Table, *, max_history: int) -> None:
    """Write the rows of some users."""
    time = shown["time_ms"].to_numpy() // 1000
    local = time + _UTC_OFFSET_S
    columns = {name: shown[name] for name in shown.column_names if name != "time_ms"}
    columns |= {
        "timestamp": pa.array(time),
        "hour": pa.array(local // 3600 % 24),
        # 1 January 1970 was a Thursday; Monday is 0.
        "weekday": pa.array((local // 86_400 + 3) % 7),
        "play_time_s": pc.divide(pc.cast(shown["play_time_ms"], pa.float64()), 1000.0),
        "tag": pc.coalesce(
            pc.split_pattern(shown["tag"], ","), pa.scalar([], pa.list_(pa.string()))
        ),
    }
    rows = left_join(pa.table(columns), users, key="user_id", other_key="user_id")
    is_event = shown["is_click"].to_numpy() == 1
    events = rows.filter(pa.array(is_event))
    date, is_random = shown["date"].to_numpy(), shown["is_rand"].to_numpy() == 1
    write_impressions(
        writer,
        rows,
        user="user_id",
        events=pa.table(
            {name: events[name] for name in _EVENT_COLUMNS} | {"time": events["timestamp"]}
        ),
        event_user=events["user_id"].to_numpy(),
        splits={
            "train": ~is_random & (date < _VALID_FROM),
            "valid": ~is_random & (date >= _VALID_FROM) & (date < _TEST_FROM),
            "test": ~is_random & (date >= _TEST_FROM),
            _RANDOM: is_random,
        },
        max_history=max_history,
    )
