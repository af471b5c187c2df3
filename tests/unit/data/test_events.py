from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from rankloom.data.columns import Lists, Plain
from rankloom.data.decode import IdMapping
from rankloom.data.events import RawEvents, decode_events
from rankloom.data.raw import Origin, RawColumn
from rankloom.errors import DataError
from rankloom.schema import IdSource

IDS = IdMapping(IdSource(num_embeddings=100), None, None)
ORIGIN = Origin("log.parquet", 10)

HISTORIES = [[1, 2, 3, 4], None, [5], [6, 7]]
SECONDS = [[100, 110, 110, 150], [], [7], [20, 25]]


def column(name: str, values: object, kind: pa.DataType | None = None) -> RawColumn:
    return RawColumn(name, pa.array(values, kind), ORIGIN)


def decode(
    *,
    max_length: int,
    time: object = None,
    event_time: object = None,
    first_event: object = None,
    other: object = None,
) -> tuple[Lists, dict[str, Plain]]:
    columns = {"item": column("item", HISTORIES)}
    if other is not None:
        columns["other"] = column("other", other)
    raw = RawEvents(
        columns=columns,
        time=None if time is None else column("time", time),
        event_time=None if event_time is None else column("now", event_time),
        first_event=None if first_event is None else column("first", first_event),
    )
    mappings = dict.fromkeys(columns, IDS)
    found = decode_events("h", raw, max_length=max_length, mappings=mappings)
    lists = found.pop(("sequences", "h"))
    assert isinstance(lists, Lists)
    return lists, {field: c for (field, _), c in found.items() if isinstance(c, Plain)}


def test_a_null_history_is_empty():
    lists, plain = decode(max_length=9)
    assert lists.offsets.tolist() == [0, 4, 4, 5, 7]
    assert lists.values["columns/item"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert plain["first_event"].values.tolist() == [0, 0, 0, 0]


def test_the_newest_events_are_kept_and_the_absolute_number_goes_on():
    lists, plain = decode(max_length=2, first_event=[30, 0, 0, 5])
    assert lists.offsets.tolist() == [0, 2, 2, 3, 5]
    assert lists.values["columns/item"].tolist() == [3, 4, 5, 6, 7]
    assert plain["first_event"].values.tolist() == [32, 0, 0, 5]


def test_gaps_are_to_the_previous_and_the_newest_event():
    lists, _ = decode(max_length=9, time=SECONDS)
    assert lists.values["times/gap_previous"].tolist() == [0, 10, 0, 40, 0, 0, 5]
    assert lists.values["times/gap_newest"].tolist() == [50, 40, 40, 0, 0, 5, 0]
    assert lists.values["times/gap_newest"].dtype == np.float32


def test_the_first_kept_event_has_its_gap_to_the_dropped_one():
    lists, _ = decode(max_length=1, time=SECONDS)
    assert lists.values["columns/item"].tolist() == [4, 5, 7]
    assert lists.values["times/gap_previous"].tolist() == [40, 0, 5]


def test_the_age_of_the_newest_event_is_never_negative_and_0_without_events():
    _, plain = decode(max_length=2, time=SECONDS, event_time=[160, 500, 10, 3])
    assert plain["age_newest"].values.tolist() == [10.0, 0.0, 3.0, 0.0]


def test_times_of_epoch_seconds_keep_their_gaps_exactly():
    seconds = [[1_700_000_000, 1_700_000_001, 1_700_000_003, 1_700_000_004], [], [7], [20, 25]]
    lists, _ = decode(max_length=9, time=seconds)
    assert lists.values["times/gap_previous"].tolist()[:4] == [0, 1, 2, 1]


def test_a_time_that_decreases_is_named():
    with pytest.raises(DataError, match=r"'time' must not decrease .* Got 24 in row 13"):
        decode(max_length=9, time=[[1, 2, 3, 4], [], [1], [25, 24]])


def test_an_earlier_time_in_the_next_row_is_fine():
    lists, _ = decode(max_length=9, time=[[5, 6, 7, 8], [], [1], [0, 0]])
    assert lists.values["times/gap_previous"].tolist() == [0, 1, 1, 1, 0, 0, 0]


def test_a_null_time_is_refused():
    with pytest.raises(DataError, match=r"'time' has no value. Got null in row 12"):
        decode(max_length=9, time=[[1, 2, 3, 4], [], [None], [2, 4]])


def test_aligned_columns_must_have_equal_lengths():
    with pytest.raises(
        DataError, match=r"'other' must have lists as long as 'item'. Got 1 .* beside 2 in row 13"
    ):
        decode(max_length=9, other=[[1, 2, 3, 4], [], [1], [2]])


def test_a_bad_event_is_named_by_its_row_also_when_events_were_dropped():
    with pytest.raises(DataError, match=r"'other' must be a whole number .* Got 300 in row 13"):
        decode(max_length=1, other=[[1, 2, 3, 4], [], [1], [1, 300]])
