"""The only place that wires slots: from a config and a schema to embedder and network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from rankloom.config import Choice, ChoiceOf, Config
from rankloom.data.statistics import Statistics
from rankloom.embedding import Embedder, EmbeddingConfig, FusedTables
from rankloom.errors import ConfigError, did_you_mean, join_problems
from rankloom.heads import HEADS
from rankloom.interaction import INTERACTIONS
from rankloom.layers.memory import MemoryTable, memory_tables
from rankloom.layers.protocols import FeatureLayout, Layout
from rankloom.models.network import Network
from rankloom.schema import Rate, Schema
from rankloom.sequence import SEQUENCES
from rankloom.tokenization import TOKENIZATIONS

DEFAULT_TOKENIZATION = {"flat": "flat", "fields": "fields", "tokens": "per_feature"}


class ModelConfig(Config):
    """What fills the slots."""

    embedding: EmbeddingConfig = EmbeddingConfig()
    """Widths of the tables."""
    sequence: dict[str, Annotated[Choice, ChoiceOf(SEQUENCES)]] = {}
    """Sequence feature -> its encoder; default masked_mean."""
    tokenization: Annotated[Choice, ChoiceOf(TOKENIZATIONS)] | None = None
    """How inputs become what the interaction takes; default: the plain one of that form."""
    interaction: Annotated[Choice, ChoiceOf(INTERACTIONS)]
    """The backbone."""
    head: Annotated[Choice, ChoiceOf(HEADS)] = Field(
        default_factory=lambda: ChoiceOf(HEADS).validate("shared_bottom")
    )
    """From the backbone to a logit per task."""


@dataclass(frozen=True)
class Model:
    """An embedder and a network that fit each other."""

    embedder: Embedder
    """Batch -> inputs; owns the tables."""
    network: Network
    """Inputs -> logits."""
    schema: Schema
    """The features and tasks they were built for."""

    def to(self, device: torch.device | str) -> Model:
        """Move both to a device, in place."""
        self.embedder.to(device)
        self.network.to(device)
        return self

    def train(self, mode: bool = True) -> Model:
        """Switch both to training or evaluation mode, in place."""
        self.embedder.train(mode)
        self.network.train(mode)
        return self

    def sparse_tables(self) -> list[FusedTables | MemoryTable]:
        """Give what the sparse optimizer trains: the embedder's tables, and memories'."""
        return [*self.embedder.table_groups(), *memory_tables(self.network)]


def build_model(
    config: ModelConfig,
    schema: Schema,
    *,
    table_sizes: Mapping[str, int],
    statistics: Mapping[str, Statistics] | None = None,
    seed: int = 0,
) -> Model:
    """Build a model whose initial values depend on the seed alone.

    Args:
        config: What fills the slots.
        schema: Features and tasks.
        table_sizes: Table -> num_embeddings.
        statistics: Dense feature -> what the training log says of it.
        seed: Of all initial values.

    Raises:
        ConfigError: Parts do not fit each other; all problems of the wiring at once.
        SchemaError: The features do not fit the parts.
    """
    _check_wiring(config, schema)
    generator = torch.Generator().manual_seed(seed)
    interaction = config.interaction
    embedder = Embedder(
        schema,
        table_sizes,
        statistics or {},
        config.embedding,
        sets=_wish(interaction, "embedding_sets", {}),
        length_multiple={
            name: _wish(choice, "length_multiple", 8) for name, choice in config.sequence.items()
        },
        generator=generator,
    )
    network = build_network(config, embedder.layout(), generator=generator)
    return Model(embedder, network, schema)


def build_network(config: ModelConfig, layout: Layout, *, generator: torch.Generator) -> Network:
    """Build the network for a layout."""
    encoders: dict[str, nn.Module] = {}
    features = dict(layout.features)
    for name, sequence in layout.sequences.items():
        choice = config.sequence.get(name) or ChoiceOf(SEQUENCES).validate("masked_mean")
        missing = [c for c in sequence.columns if c not in sequence.candidate]
        if choice.cls.reads_candidate and missing:
            raise ConfigError(
                f"model.sequence.{name}: {choice.kind} compares events with the candidate, but no "
                f"item feature shares the table of {', '.join(missing)}. Give one the same table."
            )
        sequence = replace(sequence, features=layout.features)
        encoder = choice.cls(choice.config, sequence, generator=generator)
        encoders[name] = encoder
        rate = Rate.CANDIDATE if encoder.reads_candidate else sequence.rate
        features[name] = FeatureLayout(width=encoder.num_tokens * encoder.out_dim, rate=rate)
    inner = replace(layout, features=features)
    takes = config.interaction.cls.takes
    chosen = config.tokenization or ChoiceOf(TOKENIZATIONS).validate(DEFAULT_TOKENIZATION[takes])
    if chosen.cls.gives != takes:
        raise ConfigError(
            f"model.tokenization: {config.interaction.kind} takes {takes}, {chosen.kind} gives "
            f"{chosen.cls.gives}. Use {DEFAULT_TOKENIZATION[takes]} or leave it out."
        )
    tokenization = chosen.cls(chosen.config, inner, generator=generator)
    inner = replace(inner, tokens=tokenization.tokens)
    interaction = config.interaction.cls(config.interaction.config, inner, generator=generator)
    inner = replace(inner, num_layers=len(interaction.layers), out_dim=interaction.out_dim)
    head = config.head.cls(config.head.config, inner, generator=generator)
    return Network(
        layout,
        encoders=encoders,
        tokenization=tokenization,
        interaction=interaction,
        head=head,
        generator=generator,
    )


def _wish(choice: Choice, name: str, default: Any) -> Any:
    """Ask an architecture what it needs of the embedder, if it says so."""
    ask = getattr(choice.cls, name, None)
    return default if ask is None else ask(choice.config)


def _check_wiring(config: ModelConfig, schema: Schema) -> None:
    problems = [
        f"model.sequence.{name}: no sequence feature has this name."
        f"{did_you_mean(name, schema.sequences)}"
        for name in config.sequence
        if name not in schema.sequences
    ]
    if not schema.tasks:
        problems.append("tasks: is empty. Name at least one task with its label.")
    if config.embedding.unified != schema.unified:
        problems.append(
            "model.embedding.unified: is not the schema's. Got two that differ. Make the schema "
            "with unified=config.embedding.unified."
        )
    if not schema.features:
        problems.append("schema: is empty. Name at least one feature.")
    if problems:
        raise ConfigError(join_problems(problems, where="run file" if problems[1:] else ""))
