"""The contract for interactions that keep user tokens apart, and recipes with that option."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rankloom import api
from rankloom.contract import ASSERTIONS, SLOW_ASSERTIONS, Subject
from rankloom.data.sample import sample_batch
from rankloom.data.statistics import Quantiles
from rankloom.losses import Loss
from rankloom.models import build_model

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "rankmixer": ("rankmixer", {}),
    "rankmixer cheap": ("rankmixer", {"compensation": "cheap", "user_tokens": 4}),
    "rankmixer by request": ("rankmixer", {"rate": "request"}),
    "tokenmixer_large": ("tokenmixer_large", {}),
    "tokenmixer_large cheap": ("tokenmixer_large", {"compensation": "cheap", "user_tokens": 4}),
    "tokenmixer_large by request": ("tokenmixer_large", {"rate": "request"}),
}


def subject_of(variant: str) -> Subject:
    kind, separation = VARIANTS[variant]
    return Subject.in_slot("interaction", kind, {"separation": separation})


@pytest.mark.parametrize("assertion", ASSERTIONS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_separated_architecture(variant: str, assertion: str) -> None:
    ASSERTIONS[assertion](subject_of(variant))


@pytest.mark.slow
@pytest.mark.parametrize("assertion", SLOW_ASSERTIONS)
@pytest.mark.parametrize("variant", ["rankmixer", "tokenmixer_large"])
@pytest.mark.filterwarnings("ignore")
def test_separated_architecture_slowly(variant: str, assertion: str) -> None:
    SLOW_ASSERTIONS[assertion](subject_of(variant))


def test_user_stream_takes_user_tokens_only() -> None:
    subject = subject_of("tokenmixer_large")
    slots = subject.module(subject.build()).slots
    assert (slots.streams.num_user, slots.streams.num_candidate) == (2, 4)


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("frappe_rankmixer", {"model.interaction.separation.rate": "request"}),
        ("movielens_tokenmixer_large", {"model.interaction.separation": {"user_tokens": 4},
                                        "model.tokenization.user_global_token": True}),
    ],
)  # fmt: skip
def test_recipe_builds_and_steps_separated(recipe: str, overrides, generator) -> None:
    run = api.load_run(RECIPES / f"{recipe}.yaml", overrides)
    sizes = {name: source.num_embeddings or 50 for name, source in run.schema.tables().items()}
    statistics = dict.fromkeys(run.schema.dense, Quantiles((0.0, 1.0)))
    model = build_model(run.config.model, run.schema, table_sizes=sizes, statistics=statistics)
    batch = sample_batch(run.schema, sizes, rows_of_request=(1,) * 8, generator=generator)
    output = model.network(model.embedder(batch).inputs)
    losses = Loss(run.schema, auxiliary_weights=model.network.auxiliary_weights)(output, batch)
    losses.total.backward()
    assert losses.total.isfinite()
    missing = [n for n, p in model.network.interaction.named_parameters() if p.grad is None]
    assert missing == []
