"""Weights in int8: latency of the user program at 1, 4 and 16 users, and the error of scores.

The user program of a RankMixer with 8 of 16 tokens the user's (UG-Sep) has 151 MB of fp32 weights,
more than a processor's cache holds: for few users its time is that of reading them. It runs

- `fp32`: as it was trained;
- `float`: weights dequantized when the artifact is loaded: the same time by construction;
- `packed`: int8 values held in fp16, widened in registers, where torch has kernels for that;

in turns. Errors are those of the scores of 32 candidates, with weights as they are initialised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Cell, Row, by_variant, spread, take_turns
from rankloom.artifact.quantize import quantize_weights
from rankloom.artifact.tuning import candidate_in_bf16, ways_of_user_program
from rankloom.embedding.int8_tables import Int8Tables, quantize_rows
from rankloom.hoist import Programs, hoist
from rankloom.hoist.capture import inputs_by_path
from rankloom.models import Model, ModelConfig, build_model
from rankloom.models.example import example_batch
from rankloom.schema import BinaryTask, Rate, Schema, SparseFeature

NUM_IDS = 1000
SETTINGS: dict[str, Any] = {
    "token_dim": 768,
    "num_layers": 2,
    "num_users": [1, 4, 16],
    "num_candidates": 32,
    "turns": 15,
    "repeats": 3,
}
CPU = torch.device("cpu")


def planned_cells(settings: Mapping[str, Any]) -> list[Cell]:
    """One cell for each number of users and repeat, and one for the errors of each seed."""
    size = {key: settings[key] for key in ("token_dim", "num_layers")}
    latency = [
        Cell(f"R={users}", repeat, {**size, "R": users, "turns": settings["turns"]})
        for repeat in range(settings["repeats"])
        for users in settings["num_users"]
    ]
    errors = [
        Cell("score error", seed, {**size, "N": settings["num_candidates"]})
        for seed in range(settings["repeats"])
    ]
    return latency + errors


def run_cell(cell: Cell) -> dict[str, Any]:
    """Time the user program's ways, or compare scores."""
    model = _model(cell.options, seed=cell.repeat)
    with torch.inference_mode():
        programs = hoist(model.network, model.embedder(example_batch(model)).inputs).programs
        if cell.variant == "score error":
            return _errors(model, programs, cell.options["N"])
        return _latency(model, programs, cell.options["R"], cell.options["turns"])


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Speed-ups over fp32 by number of users; errors by what is quantized."""
    groups = by_variant(rows)
    errors = groups.pop("score error", [])
    return {
        "speedup_over_fp32": {
            variant: {
                way: spread(one["speedup"][way] for one in group) for way in group[0]["speedup"]
            }
            for variant, group in groups.items()
        },
        "largest_score_error": {
            part: max(one[part] for one in errors) for part in (errors[0] if errors else {})
        },
    }


def _latency(model: Model, programs: Programs, num_users: int, turns: int) -> dict[str, Any]:
    user = programs.by_rate[Rate.USER]
    quantized, _ = quantize_weights(user)
    values = _values(model, (1,) * num_users)
    ways = {"fp32": user, **ways_of_user_program(quantized, CPU)}
    seconds = take_turns({way: _call(one, values) for way, one in ways.items()}, turns)
    weights = sum(one.numel() for one in user.module.buffers())
    return {
        "weights_mb": {"fp32": 4 * weights / 1e6, "file": _num_bytes(quantized) / 1e6},
        "ms": {way: 1e3 * median(times) for way, times in seconds.items()},
        "weights_gb_per_s": 4e-9 * weights / median(seconds["fp32"]),
        "speedup": {
            way: median(a / b for a, b in zip(seconds["fp32"], seconds[way], strict=True))
            for way in ways
            if way != "fp32"
        },
    }


def _errors(model: Model, programs: Programs, count: int) -> dict[str, float]:
    """Give the largest difference of a probability by what is quantized."""
    values = _values(model, (count,))
    exact = _scores(programs, values)
    quantized, _ = quantize_weights(programs.by_rate[Rate.USER])
    found = {}
    for way, program in ways_of_user_program(quantized, CPU).items():
        by_rate = {**programs.by_rate, Rate.USER: program}
        found[f"user weights, {way}"] = _scores(Programs(by_rate, programs.one_request), values)
    # One candidate: where there are no bf16 units, they are emulated.
    one = _values(model, (1,))
    bf16 = _scores(candidate_in_bf16(programs, CPU), one) - _scores(programs, one)
    groups = model.embedder.table_groups()
    for number, group in enumerate(groups):
        model.embedder.groups[number] = Int8Tables(group, *quantize_rows(group.weight))
    found["tables"] = _scores(programs, _values(model, (count,)))
    errors = {part: float((scores - exact).abs().max()) for part, scores in found.items()}
    return {**errors, "candidate in bf16": float(bf16.abs().max())}


def _scores(programs: Programs, values: Mapping[str, Tensor]) -> Tensor:
    state = programs.user_state(values)
    state |= programs.request_state(values, state)
    return programs.results(values, state)[0].double().sigmoid()


def _values(model: Model, rows_of_request: tuple[int, ...]) -> Mapping[str, Tensor]:
    batch = example_batch(model, rows_of_request=rows_of_request)
    return inputs_by_path(model.embedder(batch).inputs)


def _call(program: Any, values: Mapping[str, Tensor]) -> Any:
    return lambda: program(values)


def _num_bytes(program: Any) -> int:
    return sum(one.numel() * one.element_size() for one in program.module.buffers())


def _model(options: Mapping[str, Any], *, seed: int) -> Model:
    features = {
        f"{side}_{number}": SparseFeature(side=side, num_embeddings=NUM_IDS)  # type: ignore[arg-type]
        for side in ("user", "item")
        for number in range(8)
    }
    schema = Schema(features, tasks={"click": BinaryTask(label="label")})
    values = {
        "embedding": {"embedding_dim": 32, "init_std": 0.3},
        "tokenization": {
            "kind": "semantic_groups",
            "groups": {f"group_{name}": [name] for name in features},
            "token_dim": options["token_dim"],
        },
        "interaction": {
            "kind": "rankmixer",
            "num_layers": options["num_layers"],
            "expansion": 2,
            "separation": {"compensation": "none"},
        },
        "head": {"kind": "shared_bottom", "hidden_dims": []},
    }
    return build_model(
        ModelConfig.model_validate(values),
        schema,
        table_sizes=dict.fromkeys(schema.tables(), NUM_IDS),
        seed=seed,
    ).train(False)
