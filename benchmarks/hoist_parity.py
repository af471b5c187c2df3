"""Hoisted programs beside the plain network, for every registered architecture.

Each architecture stands in its slot of the contract's small model. Per precision, the largest
|a - b| / max(1, |b|) of the logits over: several requests, one of them with an empty history; one
candidate; 4,096 candidates; sixteen equal candidates; many requests of one candidate. The values
that are held for a request are checked, in the plain graph, to have no gradient path from a
candidate's input and not to change with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Cell, Row
from rankloom.contract import Subject
from rankloom.contract.subject import SLOTS
from rankloom.hoist import hoist
from rankloom.hoist.verify import check_border, in_fp64, largest_error
from rankloom.layers.protocols import Inputs

BOUNDS = {"fp64": 1e-10, "fp32": 1e-5, "bf16": 5e-2}
"""Allowed errors. bf16 keeps 8 bits: a few roundings in another order."""
SETTINGS: dict[str, Any] = {
    "architectures": sorted(f"{slot}/{name}" for slot, table in SLOTS.items() for name in table),
    "seeds": 3,
}


def planned_cells(settings: Mapping[str, Any]) -> list[Cell]:
    """One cell for each architecture and seed."""
    return [
        Cell(name, seed) for seed in range(settings["seeds"]) for name in settings["architectures"]
    ]


def run_cell(cell: Cell) -> dict[str, Any]:
    """Hoist one architecture and compare it in each precision."""
    slot, name = cell.variant.split("/")
    subject = Subject.in_slot(slot, name)
    errors = {}
    held: list[str] = []
    for precision in BOUNDS:
        model = subject.build(seed=cell.repeat).train(False)
        is_wide = precision == "fp64"
        if is_wide:
            model.network.double()
        batches = [
            in_fp64(one) if is_wide else one for one in _batches(subject, model, cell.repeat)
        ]
        hoisted = hoist(model.network, batches[0])
        low = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()
        with low:
            errors[precision] = largest_error(model.network, hoisted, batches)
        if is_wide:
            held = check_border(model.network, hoisted, batches[0])
    return {"errors": errors, "held_values": len(held)}


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """The largest error of each architecture, and whether all are within their bounds."""
    worst: dict[str, dict[str, float]] = {}
    for row in rows:
        found = worst.setdefault(row["variant"], dict.fromkeys(BOUNDS, 0.0))
        for precision, error in row["measured"]["errors"].items():
            found[precision] = max(found[precision], error)
    return {
        "bounds": BOUNDS,
        "largest_errors": worst,
        "all_within_bounds": all(
            found[precision] <= bound
            for found in worst.values()
            for precision, bound in BOUNDS.items()
        ),
        "held_values": {row["variant"]: row["measured"]["held_values"] for row in rows},
    }


def _batches(subject: Subject, model: Any, seed: int) -> Iterator[Inputs]:
    shapes = ((3, 1, 4, 2), (1,), (4096,), (16,), (1,) * 40)
    for number, shape in enumerate(shapes):
        batch = subject.batch(rows_of_request=shape, seed=10 * seed + number)
        if shape == (16,):
            item = batch.ids["item"]
            assert isinstance(item, Tensor)
            batch = replace(batch, ids={**batch.ids, "item": item[:1].expand(16).clone()})
        with torch.no_grad():
            yield model.embedder(batch).inputs
