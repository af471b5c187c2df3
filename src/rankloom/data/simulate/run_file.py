"""A run file that fits a simulated log: features, roles, tasks and a model to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rankloom.data.simulate.config import SimulationConfig
from rankloom.data.simulate.world import ITEM_ATTRIBUTES, MOMENT_ATTRIBUTES, USER_ATTRIBUTES


def run_values(config: SimulationConfig, folder: Path) -> dict[str, Any]:
    """Give a run file's values.

    Args:
        config: Of the log.
        folder: Where the log stands.
    """
    sizes = {
        "item_id": config.items.count,
        "category": config.items.categories,
        "creator": config.items.creators,
    }
    schema: dict[str, Any] = {
        "user_id": _ids("user", config.users.count),
        **{name: _ids("user", count) for name, count in USER_ATTRIBUTES.items()},
        "history": {
            "side": "user",
            "kind": "sequence",
            "time": "history_time",
            "first_event": "history_first_event",
            "max_length": config.history.length,
            "columns": {name: {"table": name} for name in sizes},
        },
        **{name: _ids("context", count) for name, count in MOMENT_ATTRIBUTES.items()},
        "scenario": _ids("context", config.requests.scenarios),
        **{name: _ids("item", count) for name, count in sizes.items()},
        **{name: _ids("item", count) for name, count in ITEM_ATTRIBUTES.items()},
        "duration_s": {"side": "item", "kind": "dense", "encode": {"kind": "log"}},
        # The ceiling without the position is that of candidates at the first place.
        "position": {
            **_ids("item", config.requests.candidates[1]),
            "training_only": {"serving_default": 0},
        },
    }
    return {
        "data": {
            **{split: str(folder / split / "*.parquet") for split in ("train", "valid", "test")},
            "layout": config.layout,
        },
        "schema": schema,
        "roles": {
            "user": "user_id",
            "item": "item_id",
            "request": "request_id",
            "event_time": "timestamp",
            "position": "position",
            "scenario": "scenario",
        },
        "tasks": {
            "click": {"kind": "binary", "label": "click"},
            "like": {"kind": "binary", "label": "like", "given": "click"},
            "watch_s": {"kind": "positive", "label": "watch_s", "loss_weight": 0.01},
            "buy": {"kind": "binary", "label": "buy", "given": "click"},
        },
        "model": {
            "embedding": {"embedding_dim": 16},
            "sequence": {"history": {"kind": "din"}},
            "tokenization": {
                "kind": "semantic_groups",
                "token_dim": 64,
                "groups": {
                    "user": ["user_id"],
                    "profile": list(USER_ATTRIBUTES),
                    "moment": [*MOMENT_ATTRIBUTES, "scenario"],
                    "taste": ["history"],
                    "item": ["item_id", "creator"],
                    "content": ["category", *ITEM_ATTRIBUTES, "duration_s", "position"],
                },
            },
            "interaction": {"kind": "tokenmixer_large", "num_layers": 2},
            "head": {"kind": "shared_bottom", "hidden_dims": [64]},
        },
        "training": {
            "epochs": 1,
            "batch_size": 2048,
            "dense": {"kind": "adamw", "lr": 1e-3},
            "sparse": {"kind": "rowwise_adagrad", "lr": 0.05},
        },
        "evaluation": {"metrics": ["auc", "gauc", "log_loss", "calibration"]},
    }


def _ids(side: str, count: int) -> dict[str, Any]:
    return {"side": side, "kind": "sparse", "num_embeddings": count}
