"""Products divided by rate (MaRI, arXiv:2602.23105): FLOPs beside the formula, and latency.

A request of N candidates is scored

- `plain`: every column of every candidate, by the network as it is written;
- `neat`: hoisted, all columns of one rate in one product;
- `fragmented`: hoisted, a product for each feature;
- `cached`: as `neat`, with the user's state found in a cache.

The four take turns. The formula: of the first products' FLOPs, `N (d_u + d_i) O`, there are left
`(d_u + N d_i) O`; the rest of the network is as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import torch

from benchmarks.harness import Cell, Row, by_variant, spread, take_turns
from rankloom.hoist import Hoisted, Options, hoist
from rankloom.hoist.cost import cost_by_rate
from rankloom.layers.protocols import Inputs
from rankloom.models import Model, ModelConfig, build_model
from rankloom.models.example import example_batch
from rankloom.schema import BinaryTask, Rate, Schema, SparseFeature

DIM = 16
NUM_FEATURES = {"user": 60, "context": 6, "item": 24}
MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"interaction": {"kind": "mlp", "hidden_dims": [512, 256, 128]}},
    "dcn_v2": {
        "interaction": {
            "kind": "dcn_v2",
            "structure": "parallel",
            "num_layers": 2,
            "hidden_dims": [512, 256, 128],
        }
    },
    "rankmixer tokens": {
        "tokenization": {
            "kind": "semantic_groups",
            "token_dim": 256,
            "groups": {
                "user": [f"user_{n}" for n in range(NUM_FEATURES["user"])],
                "moment": [f"context_{n}" for n in range(NUM_FEATURES["context"])],
                "item": [f"item_{n}" for n in range(NUM_FEATURES["item"])],
            },
            "global_token": True,
        },
        "interaction": {"kind": "rankmixer", "num_layers": 1, "expansion": 1},
    },
}
SETTINGS: dict[str, Any] = {
    "models": list(MODELS),
    "num_candidates": [500, 2000],
    "turns": 15,
    "repeats": 3,
}
SIDES = ("plain", "neat", "fragmented", "cached")


def planned_cells(settings: Mapping[str, Any]) -> list[Cell]:
    """One cell for each model, number of candidates and repeat."""
    return [
        Cell(f"{model} N={count}", repeat, {"model": model, "N": count, "turns": settings["turns"]})
        for repeat in range(settings["repeats"])
        for model in settings["models"]
        for count in settings["num_candidates"]
    ]


def run_cell(cell: Cell) -> dict[str, Any]:
    """Build, hoist in both layouts, count, and time."""
    model = _model(cell.options["model"], seed=cell.repeat)
    count = cell.options["N"]
    network = model.network
    with torch.no_grad():
        example = model.embedder(example_batch(model)).inputs
        inputs = model.embedder(example_batch(model, rows_of_request=(count,))).inputs
        neat = hoist(network, example, Options(layout="neat"))
        fragmented = hoist(network, example, Options(layout="fragmented"))
        cost = cost_by_rate(network, neat, inputs)
        state = neat.user_state(inputs)
        calls: dict[str, Callable[[], Any]] = {
            "plain": lambda: network(inputs),
            "neat": lambda: neat(inputs),
            "fragmented": lambda: fragmented(inputs),
            "cached": lambda: _from_state(neat, inputs, state),
        }
        seconds = take_turns(calls, cell.options["turns"])
    after = sum(cost.flops_at(rate) for rate in Rate)
    return {
        "plain_flops": cost.plain_flops,
        "hoisted_flops": after,
        "formula_flops": _formula(model, cost.plain_flops, count),
        "ms": {side: 1e3 * median(values) for side, values in seconds.items()},
        "speedup": {side: median(seconds["plain"]) / median(seconds[side]) for side in SIDES[1:]},
    }


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """FLOPs, and the spread of the speed-ups over the repeats."""
    return {
        variant: {
            "hoisted_over_formula_flops": median(
                one["hoisted_flops"] / one["formula_flops"] for one in group
            ),
            "saved_flops_share": median(
                1 - one["hoisted_flops"] / one["plain_flops"] for one in group
            ),
            "speedup": {side: spread(one["speedup"][side] for one in group) for side in SIDES[1:]},
        }
        for variant, group in by_variant(rows).items()
    }


def _formula(model: Model, plain: float, count: int) -> float:
    """Take from the plain FLOPs what the formula saves.

    Each first product over all features has d_u + d_r columns that N - 1 candidates need no more;
    what is of one rate alone, such as a user's group, is wholly computed once.
    """
    shared = DIM * (NUM_FEATURES["user"] + NUM_FEATURES["context"])
    names = dict(model.network.named_parameters())
    total = DIM * sum(NUM_FEATURES.values())
    first = sum(
        weight.shape[0]
        for name, weight in names.items()
        if not name.startswith("head") and weight.dim() == 2 and weight.shape[1] >= total
    )
    alone = sum(
        weight.numel()
        for name, weight in names.items()
        if name.endswith(("group_user.project.weight", "group_moment.project.weight"))
    )
    repeated_crosses = _later_crosses(model, total)
    return plain - 2 * (count - 1) * (shared * (first - repeated_crosses) + alone)


def _later_crosses(model: Model, total: int) -> int:
    """Count the outputs of cross layers after the first, whose inputs are mixed already."""
    crosses = [
        weight.shape[0]
        for name, weight in model.network.named_parameters()
        if "cross" in name and weight.dim() == 2 and weight.shape[1] >= total
    ]
    return sum(crosses[1:])


def _from_state(hoisted: Hoisted, inputs: Inputs, state: dict[str, Any]) -> Any:
    return hoisted.score(inputs, {**state, **hoisted.request_state(inputs, state)})


def _model(name: str, *, seed: int) -> Model:
    features = {
        f"{side}_{number}": SparseFeature(side=side, num_embeddings=1000)  # type: ignore[arg-type]
        for side, count in NUM_FEATURES.items()
        for number in range(count)
    }
    schema = Schema(features, tasks={"click": BinaryTask(label="click")})
    values = {
        "embedding": {"embedding_dim": DIM},
        "head": {"kind": "shared_bottom", "hidden_dims": []},
        **MODELS[name],
    }
    sizes = dict.fromkeys(schema.tables(), 1000)
    model = build_model(
        ModelConfig.model_validate(values), schema, table_sizes=sizes, statistics={}, seed=seed
    )
    return model.train(False)
