"""A small artifact, written once: it has a program of each rate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.integration.small import small_train, small_values, write_small_log

from rankloom.api import TrainResult, export

# Seven tokens; a user's product has 2 * 32 * 70 weights.
MODEL: dict[str, Any] = {
    "embedding": {"embedding_dim": 32},
    "tokenization": {"kind": "per_feature", "token_dim": 70},
    "interaction": {"kind": "rankmixer", "num_layers": 1},
    "head": {"kind": "shared_bottom", "hidden_dims": [4]},
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    folder = tmp_path_factory.mktemp("artifact")
    values = small_values(write_small_log(folder / "log"))
    values |= {"model": MODEL, "training": values["training"] | {"epochs": 1}}
    return small_train(values, folder / "run")[0]


@pytest.fixture(scope="session")
def written(trained: TrainResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(trained, tmp_path_factory.mktemp("written") / "artifact").folder
