"""Impressions as an Arrow table: a line a request in order of time, or a line a row."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rankloom.data.regroup.columns import marked
from rankloom.data.simulate.block import Impressions
from rankloom.data.simulate.people import People
from rankloom.data.simulate.world import MOMENT_ATTRIBUTES, World

ORACLE = "oracle_"
"""Prefix of the columns that hold the truth; no model may read them."""
CANDIDATE = "item_id"
"""The first column of the candidate; all after it are the candidate's too."""

_OFFSET = np.int32


def request_table(
    world: World, people: People, block: Impressions, *, first_request: int, with_parts: bool
) -> pa.Table:
    """Give a block's requests in order of time, a line each, their candidates' columns as lists.

    Args:
        world: Where items come from.
        people: The block's users.
        block: All that happened to them.
        first_request: Id of the first request.
        with_parts: Whether the parts of the logit are columns too.
    """
    columns = _request_columns(people, block) | _event_columns(world, block)
    columns |= _candidate_columns(world, block, with_parts=with_parts)
    order = np.argsort(block.requests["time"], kind="stable")
    ids = np.arange(first_request, first_request + len(order))
    table = pa.table(columns).take(pa.array(order)).add_column(0, "request_id", pa.array(ids))
    candidates = table.column_names[table.column_names.index(CANDIDATE) :]
    return table.cast(marked(table.schema, candidates, "request_id"))


def flat_table(requests: pa.Table) -> pa.Table:
    """Give a line for each candidate of a table with a line for each request."""
    requests = requests.combine_chunks()
    parent = pc.list_parent_indices(requests[CANDIDATE])
    first = requests.column_names.index(CANDIDATE)
    columns = {
        name: column.take(parent) if place < first else pc.list_flatten(column)
        for place, (name, column) in enumerate(
            zip(requests.column_names, requests.columns, strict=True)
        )
    }
    return pa.table(columns)


def _request_columns(people: People, block: Impressions) -> dict[str, pa.Array]:
    requests = block.requests
    user = requests["user"].astype(np.int64)
    values = {
        "user_id": (people.first_id + user).astype(np.int32),
        **{name: column[user] for name, column in people.attributes.items()},
        "timestamp": requests["time"],
        **{name: requests[name] for name in (*MOMENT_ATTRIBUTES, "scenario")},
    }
    return {name: pa.array(column) for name, column in values.items()}


def _event_columns(world: World, block: Impressions) -> dict[str, pa.Array]:
    item = block.events["item"].astype(np.int32)
    values = {
        "item_id": item,
        "category": world.items.category[item],
        "creator": world.items.creator[item],
        "time": block.events["time"],
    }
    lists = _lists({f"history_{name}": one for name, one in values.items()}, block, "num_events")
    return lists | {"history_first_event": pa.array(block.requests["first_event"])}


def _candidate_columns(
    world: World, block: Impressions, *, with_parts: bool
) -> dict[str, pa.Array]:
    items = world.items
    item = block.rows["item"].astype(np.int32)
    values = {
        CANDIDATE: item,
        "category": items.category[item],
        "creator": items.creator[item],
        **{name: column[item] for name, column in items.attributes.items()},
        "duration_s": items.duration_s[item],
        **{name: column for name, column in block.rows.items() if name != "item"},
        **{ORACLE + name: column for name, column in block.truth.items()},
    }
    if with_parts:
        values |= {f"{ORACLE}part_{name}": column for name, column in block.parts.items()}
    return _lists(values, block, "num_shown")


def _lists(
    values: dict[str, npt.NDArray[np.generic]], block: Impressions, lengths: str
) -> dict[str, pa.Array]:
    ends = np.cumsum(block.requests[lengths])
    offsets = pa.array(np.concatenate(([0], ends)).astype(_OFFSET))
    return {
        name: pa.ListArray.from_arrays(offsets, pa.array(column)) for name, column in values.items()
    }
