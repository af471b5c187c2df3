"""The batch: user and context columns once per request, item and cross columns per row.

Shapes: R requests, B rows, V total jagged values, N candidates of the largest request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Jagged:
    """Lists of ids, row after row."""

    values: Tensor
    """(V,) int64."""
    offsets: Tensor
    """(R or B, + 1) int64. Row b owns `values[offsets[b]:offsets[b + 1]]`."""
    weights: Tensor | None = None
    """(V,). One weight per id, or none."""


@dataclass(frozen=True, kw_only=True)
class Events:
    """One sequence feature: aligned columns of events, oldest first."""

    columns: dict[str, Tensor]
    """Column -> (V,) int64 rows of its table."""
    offsets: Tensor
    """(R + 1,) int64."""
    first_event: Tensor
    """(R,) int64. Absolute number of the first kept event."""
    times: dict[str, Tensor] = field(default_factory=dict)
    """gap_previous and gap_newest (V,), age_newest (R,), in seconds, float32; empty without a
    time column. age_newest is there only if the log gives the row's time."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """R requests with their B rows; a flat log is the case R == B."""

    ids: dict[str, Tensor | Jagged]
    """Sparse feature -> (R or B,) int64 rows of its table, or lists of them."""
    numbers: dict[str, Tensor]
    """Dense feature -> (R or B,) float32; NaN only where the encoding has a row for missing."""
    vectors: dict[str, Tensor]
    """Vector feature -> (R or B, dim) float32."""
    sequences: dict[str, Events]
    """Sequence feature -> its events."""
    request_index: Tensor
    """(B,) int64, non-decreasing; every request has at least one row."""
    num_requests: int
    """R."""
    labels: dict[str, Tensor] = field(default_factory=dict)
    """Task -> (B,) float32."""
    masks: dict[str, Tensor] = field(default_factory=dict)
    """Task -> (B,) bool, only for tasks with a mask."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    """Task -> (B,) float32, only for tasks with a weight column."""
    keys: dict[str, Tensor] = field(default_factory=dict)
    """Column -> (B,) int64: whole numbers as they are, texts by their stable 64-bit hash. For
    groups and slices of evaluation."""
    slots: Tensor | None = None
    """(R, N) int64. Each request's rows, B for padding."""
    slot_of_row: Tensor | None = None
    """(B,) int64. Place of each row in the flattened slots."""

    @property
    def num_rows(self) -> int:
        """B."""
        return len(self.request_index)

    def to(self, device: torch.device | str) -> Self:
        """Give the batch on a device; itself when it is there already."""
        if self.request_index.device == torch.device(device):
            return self
        return _map_tensors(self, lambda t: t.to(device, non_blocking=True))

    def with_slots(self) -> Self:
        """Give the batch with `slots` and `slot_of_row` filled."""
        slots, slot_of_row = make_slots(self.request_index, self.num_requests)
        return replace(self, slots=slots, slot_of_row=slot_of_row)


def join_batches(batches: Sequence[Batch]) -> Batch:
    """Put batches of the same columns behind each other.

    Args:
        batches: At least one. Their slots are left out: another request may be the largest.
    """
    plain = [replace(one, slots=None, slot_of_row=None) for one in batches]
    joined: Batch = _join(plain)
    counts = torch.tensor([one.num_requests for one in batches])
    rows = torch.tensor([one.num_rows for one in batches])
    shift = torch.repeat_interleave(counts.cumsum(0) - counts, rows)
    return replace(
        joined,
        request_index=joined.request_index + shift.to(joined.request_index.device),
        num_requests=int(counts.sum()),
    )


def _join(parts: Sequence[Any]) -> Any:
    """Join tensors of nested dataclasses and dicts; `offsets` go on where the last ones end."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, dict):
        return {key: _join([part[key] for part in parts]) for key in first}
    if is_dataclass(first) and not isinstance(first, type):
        names = [one.name for one in fields(first)]
        joined = {name: _join([getattr(part, name) for part in parts]) for name in names}
        if "offsets" in joined:
            lengths = torch.cat([part.offsets.diff() for part in parts])
            joined["offsets"] = torch.cat((lengths.new_zeros(1), lengths.cumsum(0)))
        return replace(first, **joined)
    return first


def make_slots(request_index: Tensor, num_requests: int) -> tuple[Tensor, Tensor]:
    """Number the places of a padded (R, N) grid of candidates.

    Args:
        request_index: (B,) int64, non-decreasing.
        num_requests: R.

    Returns:
        slots: (R, N) int64. Row numbers, B for padding.
        slot_of_row: (B,) int64. r * N + n for the n-th row of request r.
    """
    num_rows = len(request_index)
    lengths = torch.bincount(request_index, minlength=num_requests)
    width = int(lengths.max()) if num_requests else 0
    first_row = lengths.cumsum(0) - lengths
    rows = torch.arange(num_rows, device=request_index.device)
    slot_of_row = request_index * width + rows - first_row[request_index]
    slots = torch.full((num_requests * width,), num_rows, device=request_index.device)
    slots[slot_of_row] = rows
    return slots.view(num_requests, width), slot_of_row


def _map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to every tensor of nested dataclasses and dicts."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _map_tensors(item, change) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: _map_tensors(getattr(value, f.name), change) for f in fields(value)}
        return replace(value, **changed)
    return value
