"""User tokens kept apart (UG-Sep, arXiv:2602.10455): what it costs in AUC, and what it saves.

Quality: RankMixer over 12 tokens, of which 6, 8 or 9 are the user's; as it is, separated, and
separated with compensation; trained on one log grouped by request and evaluated on 500,000 rows of
another. The three of one ratio and seed are compared on the same test rows. One epoch leaves all of
them far from the truth's AUC, so `long` cells train three, the rate falling to zero; `slow` cells
do so from a third of the rate, to see whether compensation learns too fast at the full one.

Latency: 500 candidates scored by the plain network and by the hoisted separated one, in turns, and
their blocks' FLOPs beside the law T_G / T.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import torch

from benchmarks.grouped_log import NUM_IDS, columns, write_grouped_log
from benchmarks.harness import ROOT, Cell, Row, by_variant, spread, take_turns
from rankloom import api
from rankloom.hoist import Hoisted, hoist
from rankloom.hoist.cost import cost_by_rate
from rankloom.models import Model, ModelConfig, build_model
from rankloom.models.example import example_batch
from rankloom.schema import BinaryTask, Rate, Schema, SparseFeature

LOGS = ROOT / ".bench" / "ug_sep"
NUM_TOKENS = 12
USER_TOKENS = {"1:1": 6, "2:1": 8, "3:1": 9}
SEPARATIONS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "separated": {"compensation": "none"},
    "compensated": {"compensation": "low_rank"},
}
SETTINGS: dict[str, Any] = {
    "ratios": list(USER_TOKENS),
    "seeds": 5,
    "train_rows": 599_970,
    "test_rows": 499_980,
    "token_dim": 72,
    "num_layers": 2,
    "long": {"ratios": ["1:1"], "epochs": 3, "schedule": "cosine"},
    "slow": {"ratios": ["1:1"], "epochs": 3, "schedule": "cosine", "lr": 1e-3},
    "latency": {"token_dim": 384, "num_layers": 2, "num_candidates": 500, "turns": 9},
    "repeats": 3,
}
# Student's t, two-sided 95 %, by degrees of freedom.
_T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def planned_cells(settings: Mapping[str, Any]) -> list[Cell]:
    """One cell for each ratio, way and seed; and one for each ratio's latency and repeat."""
    common = {key: settings[key] for key in ("train_rows", "test_rows", "token_dim", "num_layers")}
    cells = [
        Cell(f"latency {ratio}", repeat, {"ratio": ratio, **settings["latency"]})
        for repeat in range(settings["repeats"])
        for ratio in settings["ratios"]
    ]
    kinds: list[tuple[str, list[str], dict[str, Any]]] = [("", settings["ratios"], {})]
    for kind in ("long", "slow"):
        training = {key: value for key, value in settings[kind].items() if key != "ratios"}
        kinds.append((f" {kind}", settings[kind]["ratios"], training))
    return cells + [
        Cell(f"{ratio}{kind} {way}", seed, {"ratio": ratio, "way": way, **common, **training})
        for seed in range(settings["seeds"])
        for kind, ratios, training in kinds
        for ratio in ratios
        for way in SEPARATIONS
    ]


def run_cell(cell: Cell) -> dict[str, Any]:
    """Train and evaluate one model, or time one pair of them."""
    return _latency(cell) if cell.variant.startswith("latency") else _quality(cell)


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Paired differences with their intervals; speed-ups and FLOPs."""
    groups = by_variant(rows)
    found: dict[str, Any] = {"auc_minus_plain": {}, "latency": {}}
    for variant, group in groups.items():
        place, _, way = variant.rpartition(" ")
        if way not in {"separated", "compensated"}:
            continue
        plain = {one["seed"]: one["auc"] for one in groups.get(f"{place} plain", [])}
        pairs = [one["auc"] - plain[one["seed"]] for one in group if one["seed"] in plain]
        if pairs:
            found["auc_minus_plain"][variant] = paired_interval(pairs)
    for ratio in USER_TOKENS:
        timed = groups.get(f"latency {ratio}", [])
        if timed:
            found["latency"][ratio] = {
                **{f"speedup_{w}": spread(one["speedup"][w] for one in timed) for w in _TIMED},
                "block_flops_share": median(one["block_flops_share"] for one in timed),
                "law": 1 - USER_TOKENS[ratio] / NUM_TOKENS,
                "compensation_flops_share": median(
                    one["compensation_flops_share"] for one in timed
                ),
            }
    aucs = {name: group for name, group in groups.items() if not name.startswith("latency")}
    found["auc"] = {name: spread(one["auc"] for one in group) for name, group in aucs.items()}
    return found


def paired_interval(differences: Sequence[float]) -> dict[str, Any]:
    """Give mean and 95 % interval of paired differences, and whether it is narrow enough."""
    count = len(differences)
    if count < 2:
        return {"n": count, "mean": differences[0], "says": "not resolved"}
    half = _T95.get(count - 1, 1.96) * stdev(differences) / math.sqrt(count)
    mean = fmean(differences)
    is_resolved = count >= 5 and 2 * half <= 6e-4
    return {
        "n": count,
        "mean": mean,
        "interval": [mean - half, mean + half],
        "says": "resolved" if is_resolved else "not resolved",
    }


_TIMED = ("hoisted", "cached")


def _quality(cell: Cell) -> dict[str, Any]:
    options = cell.options
    rows = {"train": options["train_rows"], "test": options["test_rows"]}
    logs = {
        split: write_grouped_log(LOGS / f"{split}-{count}-crossed", num_rows=count, seed=seed)
        for seed, (split, count) in enumerate(rows.items())
    }
    run = api.load_run(
        {
            "data": {**{s: str(path) for s, path in logs.items()}, "layout": "grouped"},
            "schema": {
                name: {"side": side, "kind": "sparse", "num_embeddings": NUM_IDS}
                for side in ("user", "item")
                for name in columns(side)
            },
            "tasks": {"click": {"kind": "binary", "label": "label"}},
            "model": _model_values(options),
            "training": {
                "epochs": options.get("epochs", 1),
                "schedule": {"kind": options.get("schedule", "constant")},
                "batch_size": 1024,
                "dense": {"kind": "adamw", "lr": options.get("lr", 3e-3)},
                "sparse": {"kind": "adam", "lr": options.get("lr", 3e-3)},
                "seed": cell.repeat,
                "checkpoint_every_steps": None,
            },
            "evaluation": {"metrics": ["auc", "log_loss"], "num_resamples": 0},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        result = api.train(run, Path(folder) / "run", printer=lambda _: None)
        metrics = api.evaluate(result, "test").tasks["click"].metrics
    return {"seed": cell.repeat, "auc": metrics["auc"], "log_loss": metrics["log_loss"]}


def _latency(cell: Cell) -> dict[str, Any]:
    options = cell.options
    plain, separated, bare = (
        _model({**options, "way": way}, seed=cell.repeat)
        for way in ("plain", "compensated", "separated")
    )
    count = options["num_candidates"]
    with torch.no_grad():
        inputs = plain.embedder(example_batch(plain, rows_of_request=(count,))).inputs
        hoisted, without = _hoisted(separated), _hoisted(bare)
        state = hoisted.user_state(inputs)
        seconds = take_turns(
            {
                "plain": lambda: plain.network(inputs),
                "hoisted": lambda: hoisted(inputs),
                "cached": lambda: hoisted.score(
                    inputs, {**state, **hoisted.request_state(inputs, state)}
                ),
            },
            options["turns"],
        )
        costs = [
            cost_by_rate(model.network, one, inputs)
            for model, one in ((plain, _hoisted(plain)), (separated, hoisted), (bare, without))
        ]
    blocks = [next(part for part in cost.parts if part.name == "interaction") for cost in costs]
    whole = blocks[0].plain_flops
    with_it, without_it = (sum(block.flops.values()) for block in blocks[1:])
    return {
        "ms": {name: 1e3 * median(times) for name, times in seconds.items()},
        "speedup": {
            name: median(p / s for p, s in zip(seconds["plain"], seconds[name], strict=True))
            for name in _TIMED
        },
        "block_flops_share": without_it / whole,
        "candidate_block_flops_share": blocks[2].flops[Rate.CANDIDATE] / whole,
        "compensation_flops_share": (with_it - without_it) / whole,
    }


def _hoisted(model: Model) -> Hoisted:
    return hoist(model.network, model.embedder(example_batch(model)).inputs)


def _model_values(options: Mapping[str, Any]) -> dict[str, Any]:
    num_user = USER_TOKENS[options["ratio"]]
    groups = {
        f"{side}_{number}": columns(side)[number::count]
        for side, count in (("user", num_user), ("item", NUM_TOKENS - num_user))
        for number in range(count)
    }
    separation = SEPARATIONS[options["way"]]
    return {
        "embedding": {"embedding_dim": 16},
        "tokenization": {
            "kind": "semantic_groups",
            "groups": groups,
            "token_dim": options["token_dim"],
        },
        "interaction": {
            "kind": "rankmixer",
            "num_layers": options["num_layers"],
            "expansion": 2,
            **({} if separation is None else {"separation": separation}),
        },
        "head": {"kind": "shared_bottom", "hidden_dims": []},
    }


def _model(options: Mapping[str, Any], *, seed: int) -> Model:
    features = {
        name: SparseFeature(side=side, num_embeddings=NUM_IDS)  # type: ignore[arg-type]
        for side in ("user", "item")
        for name in columns(side)
    }
    schema = Schema(features, tasks={"click": BinaryTask(label="label")})
    return build_model(
        ModelConfig.model_validate(_model_values(options)),
        schema,
        table_sizes=dict.fromkeys(schema.tables(), NUM_IDS),
        seed=seed,
    ).train(False)
