"""Two small artifacts: one whose candidates read the history, and a separated mixer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.integration.small import small_train, small_values, write_small_log

from rankloom.api import export

MODELS: dict[str, dict[str, Any]] = {
    "din": {
        "embedding": {"embedding_dim": 4},
        "sequence": {"history": {"kind": "din", "hidden_dims": [6]}},
        "interaction": {"kind": "mlp", "hidden_dims": [8]},
        "head": {"kind": "shared_bottom", "hidden_dims": [4]},
    },
    "separated": {
        "embedding": {"embedding_dim": 8},
        "tokenization": {"kind": "per_feature", "token_dim": 12},
        "interaction": {
            "kind": "rankmixer",
            "num_layers": 2,
            "separation": {"user_tokens": 3, "rate": "request"},
        },
        "head": {"kind": "shared_bottom", "hidden_dims": [4]},
    },
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def served_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_log(tmp_path_factory.mktemp("served_log") / "log")


@pytest.fixture(scope="session")
def artifacts(served_log: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> folder of an artifact."""
    found = {}
    for name, model in MODELS.items():
        folder = tmp_path_factory.mktemp(name)
        values = small_values(served_log)
        # DIN compares an event with the candidate, so that both need the same columns.
        history = values["schema"]["history"] | {"columns": {"item_id": {"table": "item"}}}
        values["schema"] = values["schema"] | {"history": history}
        values |= {"model": model, "training": values["training"] | {"epochs": 1}}
        result, _ = small_train(values, folder / "run")
        found[name] = export(result, folder / "artifact").folder
    return found
