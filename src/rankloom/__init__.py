"""RankLoom: train and serve large recommender ranking models.

import rankloom as rl

run = rl.load_run("run.yaml", {"training.epochs": 2})
result = rl.train(run)
print(rl.evaluate(result, "test"))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rankloom.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    RankLoomError,
    SchemaError,
)

if TYPE_CHECKING:
    from rankloom.api import (
        Run,
        TrainResult,
        describe,
        evaluate,
        fit,
        load_result,
        load_run,
        predict,
        resume,
        train,
    )
    from rankloom.config import Config

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "Config",
    "ConfigError",
    "DataError",
    "RankLoomError",
    "Run",
    "SchemaError",
    "TrainResult",
    "describe",
    "evaluate",
    "fit",
    "load_result",
    "load_run",
    "predict",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: torch takes a second."""
    if name == "Config":
        return importlib.import_module("rankloom.config").Config
    if name in __all__:
        return getattr(importlib.import_module("rankloom.api"), name)
    raise AttributeError(f"module 'rankloom' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
