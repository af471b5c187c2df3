"""Hoisting and scoring large networks: 1,000 features, and a history of 2,000 events.

For each: seconds to capture the network and to divide it, peak memory of the process before and
after, bytes of the programs as they are written, and latency of 500 candidates, plain and hoisted,
in turns. Each cell runs in a process of its own.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import torch

from benchmarks.harness import Cell, Row, by_variant, run_module, spread, take_turns
from rankloom.artifact.program_file import from_json, to_json
from rankloom.hoist import hoist
from rankloom.hoist.verify import largest_error
from rankloom.models import Model, ModelConfig, build_model
from rankloom.models.example import example_batch
from rankloom.schema import BinaryTask, Feature, Schema, SequenceColumn, SequenceFeature
from rankloom.schema import SparseFeature as Sparse

NUM_IDS = 1000
SETTINGS: dict[str, Any] = {
    "models": ["1000 features dcn_v2", "1000 features rankmixer", "2000 events din"],
    "num_candidates": 500,
    "turns": 5,
    "repeats": 3,
}


def planned_cells(settings: Mapping[str, Any]) -> list[Cell]:
    """One cell for each model and repeat."""
    options = {"N": settings["num_candidates"], "turns": settings["turns"]}
    return [
        Cell(model, repeat, {"model": model, **options})
        for repeat in range(settings["repeats"])
        for model in settings["models"]
    ]


def run_cell(cell: Cell) -> dict[str, Any]:
    """Measure one model in a process of its own."""
    found: dict[str, Any] = run_module("large_models", json.dumps(dict(cell.options)))
    return found


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Spreads by model."""
    keys = ("build_s", "hoist_s", "write_s", "read_s", "speedup", "program_mb", "peak_mb_of_hoist")
    return {
        model: {
            **{key: spread(one[key] for one in group) for key in keys},
            "num_nodes": group[0]["num_nodes"],
            "largest_error": max(one["largest_error"] for one in group),
            "ms": {way: median(one["ms"][way] for one in group) for way in group[0]["ms"]},
        }
        for model, group in by_variant(rows).items()
    }


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    """Build, hoist, write, read and time one model."""
    seconds: dict[str, float] = {}
    began = time.perf_counter()
    model = _model(options["model"])
    seconds["build_s"] = time.perf_counter() - began
    with torch.no_grad():
        example = model.embedder(example_batch(model)).inputs
        before = _peak_mb()
        began = time.perf_counter()
        hoisted = hoist(model.network, example)
        seconds["hoist_s"] = time.perf_counter() - began
        peak = _peak_mb()
        programs = hoisted.programs_for_one_request()
        began = time.perf_counter()
        texts = {rate: to_json(program) for rate, program in programs.items()}
        seconds["write_s"] = time.perf_counter() - began
        began = time.perf_counter()
        for rate, text in texts.items():
            from_json(text, dict(programs[rate].module.named_buffers()))
        seconds["read_s"] = time.perf_counter() - began
        batch = example_batch(model, rows_of_request=(options["N"],), full_histories=True)
        inputs = model.embedder(batch).inputs
        times = take_turns(
            {"plain": lambda: model.network(inputs), "hoisted": lambda: hoisted(inputs)},
            options["turns"],
        )
        error = largest_error(model.network, hoisted, [inputs])
    return {
        **seconds,
        "num_nodes": {
            rate.name.lower(): len(one.module.graph.nodes) for rate, one in programs.items()
        },
        "program_mb": sum(map(len, texts.values())) / 1e6,
        "peak_mb_before_hoist": before,
        "peak_mb_of_hoist": peak,
        "ms": {way: 1e3 * median(values) for way, values in times.items()},
        "speedup": median(a / b for a, b in zip(times["plain"], times["hoisted"], strict=True)),
        "largest_error": error,
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _model(name: str) -> Model:
    features, values = _long_history() if "events" in name else _many_features(name)
    schema = Schema(features, tasks={"click": BinaryTask(label="label")})
    return build_model(
        ModelConfig.model_validate(
            {**values, "head": {"kind": "shared_bottom", "hidden_dims": []}}
        ),
        schema,
        table_sizes=dict.fromkeys(schema.tables(), NUM_IDS),
    ).train(False)


def _many_features(name: str) -> tuple[dict[str, Feature], dict[str, Any]]:
    counts = {"user": 600, "context": 50, "item": 350}
    features: dict[str, Feature] = {
        f"{side}_{number}": Sparse(side=side, num_embeddings=NUM_IDS)  # type: ignore[arg-type]
        for side, count in counts.items()
        for number in range(count)
    }
    if "dcn_v2" in name:
        interaction = {
            "kind": "dcn_v2",
            "structure": "parallel",
            "num_layers": 2,
            "rank": 64,
            "hidden_dims": [512, 256],
        }
        return features, {"embedding": {"embedding_dim": 8}, "interaction": interaction}
    groups = {
        f"{side}_{number}": [f"{side}_{n}" for n in range(number, count, parts)]
        for (side, count), parts in zip(counts.items(), (8, 2, 6), strict=True)
        for number in range(parts)
    }
    return features, {
        "embedding": {"embedding_dim": 8},
        "tokenization": {"kind": "semantic_groups", "groups": groups, "token_dim": 256},
        "interaction": {"kind": "rankmixer", "num_layers": 2, "expansion": 2},
    }


def _long_history() -> tuple[dict[str, Feature], dict[str, Any]]:
    features: dict[str, Feature] = {
        "user": Sparse(side="user", num_embeddings=NUM_IDS),
        "item": Sparse(side="item", num_embeddings=NUM_IDS),
        "history": SequenceFeature(
            side="user", columns={"item": SequenceColumn(table="item")}, max_length=2000
        ),
    }
    return features, {
        "embedding": {"embedding_dim": 16},
        "sequence": {"history": {"kind": "din"}},
        "interaction": {"kind": "mlp", "hidden_dims": [128, 64]},
    }


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
