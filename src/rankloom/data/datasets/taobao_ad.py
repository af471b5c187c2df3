"""Ali display advertising: 26,557,961 shown ads of Taobao in May 2017, with 22 days of behaviour.

Tianchi, data set 56, used by DIN's and DIEN's authors and by BARS' TaobaoAd. Written from its
published layout and tested on generated files of exactly that, not on the real ones:

- `raw_sample.csv`: user, time_stamp, adgroup_id, pid, nonclk, clk;
- `ad_feature.csv`: adgroup_id, cate_id, campaign_id, customer, brand (or NULL), price;
- `user_profile.csv`: userid, cms_segid, cms_group_id, final_gender_code, age_level, pvalue_level,
  shopping_level, occupation, new_user_class_level (its name ends in a blank);
- `behavior_log.csv`: user, time_stamp, btag (pv, cart, fav or buy), cate, brand; 723,268,134 rows.

Both logs are divided by user into temporary files beside the result (about 15 GB), then one part
after the other is joined; memory holds the ads, the profiles and one part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from rankloom.data.datasets import PreparedDataset
from rankloom.data.datasets.delimited import Types, read_delimited
from rankloom.data.datasets.histories import write_impressions
from rankloom.data.datasets.partitions import Partitions, count_partitions, left_join
from rankloom.data.datasets.split_writer import writing_splits
from rankloom.data.datasets.splits import find_folder, first_existing

FOLDER = "taobao_ad"
_ADVICE = (
    "Download raw_sample, ad_feature, user_profile and behavior_log from "
    "https://tianchi.aliyun.com/dataset/56 and put the four .csv files into "
    f"$RANKLOOM_DATA/{FOLDER} (plain, .gz or .zst)."
)
_PROFILE = (
    "cms_segid", "cms_group_id", "final_gender_code", "age_level", "pvalue_level",
    "shopping_level", "occupation", "new_user_class_level",
)  # fmt: skip
_COLUMNS: dict[str, Types] = {
    "raw_sample": {
        "user": pa.int64(), "time_stamp": pa.int64(), "adgroup_id": pa.int64(),
        "pid": pa.string(), "clk": pa.int64(),
    },
    "ad_feature": {
        "adgroup_id": pa.int64(), "cate_id": pa.int64(), "campaign_id": pa.int64(),
        "customer": pa.int64(), "brand": pa.int64(), "price": pa.float64(),
    },
    "user_profile": {"userid": pa.int64()} | dict.fromkeys(_PROFILE, pa.int64()),
    "behavior_log": {
        "user": pa.int64(), "time_stamp": pa.int64(), "btag": pa.string(), "cate": pa.int64(),
        "brand": pa.int64(),
    },
}  # fmt: skip
_NULLABLE = {"brand", *_PROFILE}
# Midnight in Beijing, where the eight days begin and end.
_UTC_OFFSET_S = 8 * 3600
_VALID_FROM = 1_494_518_400
_TEST_FROM = 1_494_604_800


def prepare_taobao_ad(
    destination: Path, *, max_history: int = 50, report: Callable[[str], None]
) -> PreparedDataset:
    """Write shown ads with the user's profile and behaviour: train, valid and test.

    Train is 6 to 11 May, valid 12 May, test 13 May 2017, the last as published; Beijing time. Ads
    and users without attributes keep nulls. Columns: user_id, timestamp (seconds), adgroup_id, pid
    (the place shown at), clk, hour, weekday (Monday is 0), those of the ad and of the profile,
    request_id, history_btag, history_cate, history_brand, history_time, history_first_event.

    Args:
        destination: Folder to write to.
        max_history: The newest events of a history that are kept.
        report: Called with each line of progress.

    Raises:
        ConfigError: `max_history` is negative.
        DataError: A file is absent or damaged, or `destination` cannot be written to.
    """
    folder = find_folder(FOLDER, advice=_ADVICE)
    paths = {
        name: first_existing(
            folder, (f"{name}.csv", f"{name}.csv.gz", f"{name}.csv.zst"), advice=_ADVICE
        )
        for name in _COLUMNS
    }

    def read(name: str) -> Iterator[pa.RecordBatch]:
        pieces = read_delimited(
            paths[name],
            _COLUMNS[name],
            filled=_COLUMNS[name].keys() - _NULLABLE,
            flags=_COLUMNS[name].keys() & {"clk"},
            advice=_ADVICE,
            report=report,
        )
        return (piece.rows for piece in pieces)

    ads = pa.Table.from_batches(read("ad_feature"))
    users = pa.Table.from_batches(read("user_profile"))
    count = count_partitions([paths["raw_sample"], paths["behavior_log"]])
    with writing_splits(destination, ("train", "valid", "test"), sums=("clk",)) as writer:
        shown = Partitions(writer.scratch / "shown", key="user", count=count)
        shown.fill(read("raw_sample"))
        behaviour = Partitions(writer.scratch / "behaviour", key="user", count=count)
        behaviour.fill(read("behavior_log"))
        for number, (part, events) in enumerate(zip(shown, behaviour, strict=True)):
            rows = _rows(part, ads, users)
            time = rows["timestamp"].to_numpy()
            write_impressions(
                writer,
                rows,
                user="user_id",
                events=events.drop_columns("user").rename_columns({"time_stamp": "time"}),
                event_user=events["user"].to_numpy(),
                splits={
                    "train": time < _VALID_FROM,
                    "valid": (time >= _VALID_FROM) & (time < _TEST_FROM),
                    "test": time >= _TEST_FROM,
                },
                max_history=max_history,
            )
            report(f"users: part {number + 1} of {count}")
    notes = (
        "TaobaoAd: train 6 to 11 May, valid 12 May, test 13 May 2017, Beijing time",
        *writer.notes("taobao_ad"),
    )
    for note in notes:
        report(note)
    return PreparedDataset(name="taobao_ad", folder=destination, rows=writer.rows, notes=notes)


def _rows(shown: pa.Table, ads: pa.Table, users: pa.Table) -> pa.Table:
    """Add the calendar, the ad's and the user's columns to what was shown."""
    rows = shown.rename_columns({"user": "user_id", "time_stamp": "timestamp"})
    local = rows["timestamp"].to_numpy() + _UTC_OFFSET_S
    rows = rows.append_column("hour", pa.array(local // 3600 % 24))
    # 1 January 1970 was a Thursday; Monday is 0.
    rows = rows.append_column("weekday", pa.array((local // 86_400 + 3) % 7))
    rows = left_join(rows, ads, key="adgroup_id", other_key="adgroup_id")
    return left_join(rows, users, key="user_id", other_key="userid")
