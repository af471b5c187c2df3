"""RankLoom: train and serve large recommender ranking models.

import rankloom as rl

run = rl.load_run("run.yaml", {"training.epochs": 2})
result = rl.train(run)
print(rl.evaluate(result, "test"))
rl.export(result, "artifacts/mine")
print(rl.load("artifacts/mine").score({"user_id": 7}, {"item_id": [3, 5]}))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rankloom.errors import (
    ArtifactError,
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
        export,
        fit,
        load_result,
        load_run,
        predict,
        resume,
        train,
    )
    from rankloom.artifact.ranker import Ranker, load
    from rankloom.artifact.verify import verify
    from rankloom.config import Config

__version__ = "0.1.0"

__all__ = [
    "ArtifactError",
    "CheckpointError",
    "Config",
    "ConfigError",
    "DataError",
    "RankLoomError",
    "Ranker",
    "Run",
    "SchemaError",
    "TrainResult",
    "describe",
    "evaluate",
    "export",
    "fit",
    "load",
    "load_result",
    "load_run",
    "predict",
    "resume",
    "train",
    "verify",
]

_ELSEWHERE = {
    "Config": "rankloom.config",
    "Ranker": "rankloom.artifact.ranker",
    "load": "rankloom.artifact.ranker",
    "verify": "rankloom.artifact.verify",
}
"""Names that `rankloom.api` does not have: a process that only serves imports none of it."""


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: torch takes a second."""
    if name in __all__:
        return getattr(importlib.import_module(_ELSEWHERE.get(name, "rankloom.api")), name)
    raise AttributeError(f"module 'rankloom' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
