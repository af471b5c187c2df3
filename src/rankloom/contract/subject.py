"""An architecture under test: in its slot of a tiny model, with every other slot at its default."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn

from rankloom.config import ArchitectureSpec, Choice, ChoiceOf
from rankloom.data.batch import Batch
from rankloom.data.sample import sample_batch
from rankloom.data.statistics import Moments, Quantiles
from rankloom.errors import ConfigError
from rankloom.heads import HEADS
from rankloom.interaction import INTERACTIONS
from rankloom.models import Model, ModelConfig, build_model
from rankloom.schema import (
    BinaryTask,
    DenseFeature,
    QuantileEncoding,
    Schema,
    SequenceColumn,
    SequenceFeature,
    SparseFeature,
)
from rankloom.sequence import SEQUENCES
from rankloom.tokenization import TOKENIZATIONS

SLOTS: dict[str, dict[str, ArchitectureSpec]] = {
    "interaction": INTERACTIONS,
    "tokenization": TOKENIZATIONS,
    "sequence": SEQUENCES,
    "head": HEADS,
}
DIM = 8
ROWS_OF_REQUEST = (3, 1, 4, 2)

SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"hidden_dims": (24, 16)},
    "dcn_v2": {"num_layers": 2, "hidden_dims": (24, 16)},
    "rankmixer": {"num_layers": 2},
    "tokenmixer_large": {"num_layers": 4},
    "semantic_groups": {
        "groups": {
            "profile": ("user", "age"),
            "taste": ("history",),
            "moment": ("hour",),
            "item": ("item",),
            "style": ("tags", "price"),
        },
        "token_dim": 24,
        "global_token": True,
    },
    "per_feature": {"token_dim": 24},
    "shared_bottom": {"hidden_dims": (8,)},
    "solar": {"dim": 16},
    "transformer": {"dim": 16},
    "lmn": {"num_slots": 64, "top_k": 4, "dim": 8, "hidden_dim": 16},
}
"""Config values that keep the contract quick, and those that have no default."""

PARTNERS: dict[str, dict[str, Any]] = {
    "tokens": {"kind": "tokenmixer_large", "num_layers": 2},
    "flat": {"kind": "mlp", **SMALL["mlp"]},
    "fields": {"kind": "rankloom.contract.probe:FieldsProbe"},
}
"""The interaction beside what is tested, by the form it takes."""


def contract_schema(*, with_numbers: bool = True) -> Schema:
    """Give a small schema with a feature of every kind and side.

    Args:
        with_numbers: Whether there is a dense feature of width 1; `fields` need one width.
    """
    features: dict[str, Any] = {
        "user": SparseFeature(side="user", num_embeddings=20),
        "age": DenseFeature(side="user", encode=QuantileEncoding(num_buckets=4)),
        "history": SequenceFeature(
            side="user",
            columns={"item": SequenceColumn(table="item")},
            max_length=12,
            time="history_time",
        ),
        "hour": SparseFeature(side="context", num_embeddings=24),
        "item": SparseFeature(side="item", num_embeddings=30),
        "tags": SparseFeature(side="item", num_embeddings=10, pooling="mean"),
    }
    if with_numbers:
        features["price"] = DenseFeature(side="item")
    tasks = {
        "click": BinaryTask(label="click"),
        "buy": BinaryTask(label="buy", given="click"),
    }
    return Schema(features, tasks=tasks)


@dataclass(frozen=True)
class Subject:
    """One architecture, and how to build tiny models around it."""

    slot: str
    """interaction, tokenization, sequence or head."""
    choice: Choice
    """The class and its config."""
    schema: Schema = field(default_factory=contract_schema)
    """What the tiny model reads."""

    @classmethod
    def of(cls, target: str, values: dict[str, Any] | None = None) -> Subject:
        """Find an architecture by its registered name or its `package.module:Class`.

        Raises:
            ConfigError: There is none, or its config refuses `values`.
        """
        for slot, table in SLOTS.items():
            if target in table:
                return cls.in_slot(slot, target, values)
        everything = {name: spec for table in SLOTS.values() for name, spec in table.items()}
        slot = slot_of(ChoiceOf(everything).validate({"kind": target, **(values or {})}).cls)
        return cls.in_slot(slot, target, values)

    @classmethod
    def in_slot(cls, slot: str, target: str, values: dict[str, Any] | None = None) -> Subject:
        """Put a class into a slot."""
        given = {"kind": target, **SMALL.get(target, {}), **(values or {})}
        choice = ChoiceOf(SLOTS[slot]).validate(given)
        takes_fields = "fields" in {
            getattr(choice.cls, "gives", None),
            getattr(choice.cls, "takes", None),
        }
        return cls(slot, choice, contract_schema(with_numbers=not takes_fields))

    @cached_property
    def table_sizes(self) -> dict[str, int]:
        """Rows of the tiny tables."""
        return {name: source.num_embeddings or 0 for name, source in self.schema.tables().items()}

    def model_config(self) -> ModelConfig:
        """Give the tiny model's config, with the architecture in its slot."""
        values: dict[str, Any] = {"embedding": {"embedding_dim": DIM, "init_std": 0.3}}
        takes = getattr(self.choice.cls, "takes", getattr(self.choice.cls, "gives", "tokens"))
        values["interaction"] = PARTNERS[takes]
        # A linear head: what is learned is the interaction's merit.
        values["head"] = {"kind": "shared_bottom", "hidden_dims": ()}
        if takes == "tokens":
            # Six tokens with the global one: T divides the width, as RankMixer needs.
            values["tokenization"] = {"kind": "semantic_groups", **SMALL["semantic_groups"]}
        if self.slot == "sequence":
            values["sequence"] = {"history": self.choice}
        else:
            values[self.slot] = self.choice
        return ModelConfig.model_validate(values)

    def build(self, *, seed: int = 0) -> Model:
        """Build the tiny model."""
        return build_model(
            self.model_config(),
            self.schema,
            table_sizes=self.table_sizes,
            statistics={"price": Moments(0.0, 1.0), "age": Quantiles((-0.7, 0.0, 0.7))},
            seed=seed,
        )

    def module(self, model: Model) -> nn.Module:
        """Give the architecture's own module in a tiny model."""
        network = model.network
        if self.slot == "sequence":
            return network.encoders["history_history"]
        return getattr(network, self.slot)

    def batch(self, *, rows_of_request: tuple[int, ...] = ROWS_OF_REQUEST, seed: int = 0) -> Batch:
        """Draw a batch: several requests, one of them with an empty history."""
        generator = torch.Generator().manual_seed(seed)
        return sample_batch(
            self.schema, self.table_sizes, rows_of_request=rows_of_request, generator=generator
        )

    def logits(self, model: Model, batch: Batch) -> torch.Tensor:
        """Score a batch in evaluation mode: (B, K)."""
        model.train(False)
        with torch.no_grad():
            output = model.network(model.embedder(batch).inputs)
        return torch.stack([output.logits[task] for task in self.schema.tasks], dim=1)


def slot_of(cls: type[Any]) -> str:
    """Tell which slot a class is made for, by what it declares; a head declares nothing.

    Raises:
        ConfigError: It is no module.
    """
    if not issubclass(cls, nn.Module):
        raise ConfigError(
            f"{cls.__module__}:{cls.__name__}: is no torch.nn.Module. See "
            "rankloom.layers.protocols for what each slot promises."
        )
    declared = {"takes": "interaction", "gives": "tokenization", "reads_candidate": "sequence"}
    return next((slot for name, slot in declared.items() if hasattr(cls, name)), "head")
