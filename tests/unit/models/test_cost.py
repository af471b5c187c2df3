from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rankloom.config import Choice
from rankloom.data.sample import sample_batch
from rankloom.losses import Loss
from rankloom.models import Model, ModelConfig, build_model
from rankloom.models.cost import count_parameters, model_cost, training_flops
from rankloom.schema import BinaryTask, Schema, SparseFeature

SIZES = {"user": 4, "hour": 3, "item": 6, "tags": 5}


def make(schema: Schema, **slots: Any) -> Model:
    values = {"embedding": {"embedding_dim": 8}, **slots}
    return build_model(ModelConfig.model_validate(values), schema, table_sizes=SIZES)


def mlp_model() -> Model:
    features = {name: SparseFeature(side="item", num_embeddings=4) for name in ("user", "item")}
    schema = Schema(features, tasks={"click": BinaryTask(label="c"), "buy": BinaryTask(label="b")})
    return make(
        schema,
        interaction={"kind": "mlp", "hidden_dims": [32, 10]},
        head={"kind": "shared_bottom", "hidden_dims": [6]},
    )


def test_an_mlp_counted_by_hand() -> None:
    cost = model_cost(mlp_model())
    parts = {part.name: part for part in cost.parts}
    assert list(parts) == ["embedder", "tokenization", "interaction", "head"]
    # 2 features x 8 = 16 -> 32 -> 10, then for each of 2 tasks 10 -> 6 -> 1.
    assert parts["interaction"].parameters == (16 * 32 + 32) + (32 * 10 + 10)
    assert parts["head"].parameters == 2 * ((10 * 6 + 6) + (6 + 1))
    assert parts["interaction"].flops_per_row == 2 * (16 * 32 + 32 * 10)
    assert parts["head"].flops_per_row == 2 * 2 * (10 * 6 + 6)
    assert parts["tokenization"].flops_per_row == parts["embedder"].flops_per_row == 0
    assert cost.parameters == parts["interaction"].parameters + parts["head"].parameters
    assert cost.flops_per_row == 2 * (16 * 32 + 32 * 10) + 4 * 66


def test_tables_are_counted_apart() -> None:
    cost = model_cost(mlp_model())
    assert {table.name: table.num_embeddings for table in cost.tables} == SIZES
    assert cost.table_parameters == 8 * sum(SIZES.values())
    assert {table.name: table.num_bytes for table in cost.tables}["item"] == 6 * 8 * 4


def test_a_memory_is_counted_as_a_table(tiny_schema: Schema) -> None:
    memory = {"kind": "lmn", "num_slots": 100, "top_k": 4, "dim": 6}
    model = make(tiny_schema, interaction={"kind": "mlp"}, sequence={"history": memory})
    cost = model_cost(model)
    assert (cost.tables[-1].name, cost.tables[-1].num_bytes) == ("history/memory", 100 * 6 * 4)
    assert cost.parameters == count_parameters(model.network) - 100 * 6


DEEP = {"kind": "tokenmixer_large", "num_layers": 3, "auxiliary_weight": 0.1}
SLOTS = {
    "interaction": DEEP,
    "tokenization": {"kind": "per_feature", "token_dim": 12},
    "sequence": {"history": {"kind": "din"}},
}


def test_the_parts_make_the_whole(tiny_schema: Schema) -> None:
    model = make(tiny_schema, **SLOTS)
    cost = model_cost(model)
    parts = {part.name: part for part in cost.parts}
    assert parts["sequence history"].flops_per_row > 0
    assert parts["auxiliary towers (training only)"].parameters == 12 + 1
    assert cost.parameters == count_parameters(model.network)
    batch = sample_batch(
        tiny_schema,
        SIZES,
        rows_of_request=(1,) * 64,
        generator=torch.Generator().manual_seed(0),
        max_history=9,
    )
    model.train(False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.network(model.embedder(batch).inputs)
    assert cost.flops_per_row == counter.get_total_flops() / 64


def test_a_call_within_a_call_counts_once(tiny_schema: Schema) -> None:
    model = mlp_model()
    interaction = model.network.interaction
    plain = model_cost(model)

    class Nested(type(interaction)):  # type: ignore[misc]
        def readout(self, state: Any) -> Any:
            return self.layers[0].hidden[0](self.embed_in(torch.zeros(64, 16)).x)[:, :10]

    interaction.__class__ = Nested
    nested = model_cost(model)
    pairs = zip(nested.parts, plain.parts, strict=True)
    more = {after.name: after.flops_per_row - before.flops_per_row for after, before in pairs}
    # The head calls the interaction's readout: it is the interaction's work, and once.
    assert more == {"embedder": 0, "tokenization": 0, "interaction": 2 * 16 * 32, "head": 0}


def test_counting_leaves_the_model_as_it_was(tiny_schema: Schema) -> None:
    model = make(tiny_schema, **SLOTS)
    model.train(True)
    before = {name: vars(one).keys() for name, one in model.network.named_modules()}
    model_cost(model)
    assert model.network.training
    assert {name: vars(one).keys() for name, one in model.network.named_modules()} == before


def test_training_costs_about_three_forwards() -> None:
    model = mlp_model()
    schema = model.schema
    generator = torch.Generator().manual_seed(0)
    sizes = {"user": 4, "item": 4}
    batch = sample_batch(schema, sizes, rows_of_request=(1,) * 8, generator=generator)
    random = torch.get_rng_state()
    found = training_flops(model, Loss(schema), batch)
    # Forward, gradient of the weights, gradient of the input: each as many as the forward.
    assert found == 3 * model_cost(model).flops_per_row
    assert all(parameter.grad is None for parameter in model.network.parameters())
    assert torch.equal(torch.get_rng_state(), random)


def test_a_choice_is_what_the_config_says(tiny_schema: Schema) -> None:
    config = ModelConfig.model_validate({"interaction": "mlp"})
    assert isinstance(config.head, Choice)
    assert config.head.kind == "shared_bottom"


@pytest.mark.parametrize("name", ["items", "type", "keys", "training"])
def test_a_sequence_or_a_task_may_be_called_anything(tiny_schema: Schema, name: str) -> None:
    features = {name: tiny_schema.features["history"], "item": tiny_schema.features["item"]}
    schema = Schema(features, tasks={name: BinaryTask(label="c")})
    model = make(schema, interaction=DEEP, tokenization=SLOTS["tokenization"])
    generator = torch.Generator().manual_seed(0)
    batch = sample_batch(schema, SIZES, rows_of_request=(2, 1), generator=generator)
    output = model.network(model.embedder(batch).inputs)
    assert output.logits[name].shape == (3,)
    assert output.auxiliary[f"after_2/{name}"].shape == (3,)
