"""The embedder: looks up, pools and encodes; stands outside the captured graph.

It owns every table, and is what sharding replaces. Per-request columns stay at R rows.

Shapes: R requests, B rows, L history length (padded on the left), V jagged values, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from rankloom.config import Config
from rankloom.data.batch import Batch, Events, Jagged
from rankloom.data.statistics import Statistics
from rankloom.embedding.numeric import QuantileEncoder, numeric_encoder
from rankloom.embedding.tables import FusedTables, Lookup, TableConfig
from rankloom.errors import SchemaError, did_you_mean, join_problems
from rankloom.layers.protocols import EventInputs, FeatureLayout, Inputs, Layout, SequenceLayout
from rankloom.ops.segment import segment_sum
from rankloom.schema import Rate, Schema, UnifiedConfig

MAIN_SET = "main"
"""The embedding set that every feature has."""


class EmbeddingConfig(Config):
    """Widths and initial values of the tables."""

    embedding_dim: PositiveInt = 16
    """Width of every table that does not state its own."""
    init_std: PositiveFloat = 0.01
    """Deviation of the initial values."""
    tables: dict[str, TableConfig] = {}
    """Table -> what differs from the above; `unified` is the one that `unified` makes."""
    unified: UnifiedConfig | None = None
    """Keeps many tables of ids in one, by salted hashes; without it, each stands by itself."""


class Embedded(NamedTuple):
    """What one batch became."""

    inputs: Inputs
    """For the network."""
    lookups: tuple[Lookup, ...]
    """For the sparse optimizer."""


def set_key(name: str, embedding_set: str) -> str:
    """Name a feature or a table in an embedding set: `item_id`, or `item_id@fm`."""
    return name if embedding_set == MAIN_SET else f"{name}@{embedding_set}"


class Embedder(nn.Module):
    """Turns a `Batch` into the network's `Inputs`.

    Args:
        schema: The features.
        table_sizes: Table -> num_embeddings.
        statistics: Dense feature -> what the training log says of it.
        config: Widths and initial values.
        sets: Further embedding sets a model asks for: name -> width. Each sparse and each
            quantile-encoded feature then has one more vector, from a table of its own.
        ids: Features whose raw ids `Inputs.ids` carries.
        length_multiple: Sequence -> what its padded length is a multiple of; default 8.
        generator: Source of the initial values; without one the tables are set afterwards.

    Raises:
        SchemaError: `config.tables` names a table that no feature has.
    """

    def __init__(
        self,
        schema: Schema,
        table_sizes: Mapping[str, int],
        statistics: Mapping[str, Statistics],
        config: EmbeddingConfig,
        *,
        sets: Mapping[str, int] | None = None,
        ids: tuple[str, ...] = (),
        length_multiple: Mapping[str, int] | None = None,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.schema = schema
        self._columns = {(c.feature, c.name): c for c in schema.id_columns()}
        self.config = config
        self.sets = {MAIN_SET: config.embedding_dim, **(sets or {})}
        self.ids = ids
        self.length_multiple = dict(length_multiple or {})
        self._numeric = {
            name: numeric_encoder(name, feature, statistics.get(name))
            for name, feature in schema.dense.items()
        }
        # A prefix, because a feature may be called what a module dictionary calls its methods.
        self.numeric = nn.ModuleDict({f"feature_{n}": one for n, one in self._numeric.items()})
        sizes = dict(table_sizes)
        for name, encoder in self._numeric.items():
            if isinstance(encoder, QuantileEncoder):
                sizes[name] = encoder.num_embeddings
        self._check_tables(sizes)
        self.table_dims = {name: self._dim_of(name, MAIN_SET) for name in sizes}
        by_dim: dict[int, dict[str, int]] = {}
        for embedding_set in self.sets:
            for name, size in sizes.items():
                if embedding_set == MAIN_SET or name not in self._sequence_only_tables():
                    dim = self._dim_of(name, embedding_set)
                    by_dim.setdefault(dim, {})[set_key(name, embedding_set)] = size
        deviations = {set_key(name, one): self._std_of(name) for name in sizes for one in self.sets}
        self.groups = nn.ModuleList(
            FusedTables(group, dim, init_std=deviations, generator=generator)
            for dim, group in sorted(by_dim.items())
        )
        self._keys = self._plan_keys()

    def forward(self, batch: Batch) -> Embedded:
        """Look up and encode what a batch has; serving embeds a user apart from its candidates.

        Returns:
            Inputs at R and B rows, and what was looked up. The looked-up vectors are leaves that
            require gradient when gradients are enabled; no autograd node spans a table.
        """
        ids = self._ids(batch)
        lookups: list[Lookup] = []
        found: dict[str, Tensor] = {}
        for group, keys in zip(self.groups, self._keys, strict=True):
            wanted = {key: ids[source] for key, (source, _) in keys.items() if source in ids}
            if not wanted:
                continue
            assert isinstance(group, FusedTables)
            flat = {key: value.flatten() for key, value in wanted.items()}
            lookup = group.look_up(flat, {key: keys[key][1] for key in wanted})
            lookups.append(lookup)
            parts = lookup.vectors.split([len(value) for value in flat.values()])
            for (key, value), part in zip(wanted.items(), parts, strict=True):
                # The vectors of a value's several rows stand side by side.
                found[key] = part if value.dim() == 1 else _joined(part, value.shape[1])
        inputs = Inputs(
            features=self._features(batch, found),
            sequences={
                name: self._events(name, batch.sequences[name], found)
                for name in self.schema.sequences
                if name in batch.sequences
            },
            ids={name: ids[name] for name in self.ids if name in ids},
            request_index=batch.request_index,
            slots=batch.slots,
            slot_of_row=batch.slot_of_row,
        )
        return Embedded(inputs, tuple(lookups))

    def layout(self) -> Layout:
        """Say what the network will be given."""
        features: dict[str, FeatureLayout] = {}
        for embedding_set in self.sets:
            for name, feature in self.schema.features.items():
                width = self._width_of(name, embedding_set)
                if width:
                    key = set_key(name, embedding_set)
                    features[key] = FeatureLayout(width=width, rate=feature.rate)
        return Layout(
            features=features,
            sequences={name: self._sequence_layout(name) for name in self.schema.sequences},
            tasks=tuple(self.schema.tasks),
            tables={
                name: (size, group.dim)
                for group in self.table_groups()
                for name, size in group.sizes.items()
            },
        )

    def table_groups(self) -> list[FusedTables]:
        """Give the groups of tables, narrowest first."""
        return [group for group in self.groups if isinstance(group, FusedTables)]

    def tables(self) -> dict[str, Tensor]:
        """Give every table by logical name, as views that may be written."""
        return {name: group.table(name) for group in self.table_groups() for name in group.sizes}

    def _ids(self, batch: Batch) -> dict[str, Tensor]:
        """Give every column of ids, flat."""
        ids: dict[str, Tensor] = {}
        for name, value in batch.ids.items():
            ids[name] = value.values if isinstance(value, Jagged) else value
        for name, events in batch.sequences.items():
            for column, values in events.columns.items():
                ids[f"{name}.{column}"] = values
        for name, encoder in self._numeric.items():
            if isinstance(encoder, QuantileEncoder) and name in batch.numbers:
                ids[name] = encoder(batch.numbers[name])
        return ids

    def _features(self, batch: Batch, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        features: dict[str, Tensor] = {}
        for embedding_set in self.sets:
            for name in self.schema.features:
                key = set_key(name, embedding_set)
                if key in found:
                    features[key] = self._pool(name, batch.ids.get(name), found[key])
                elif name in batch.numbers and embedding_set == MAIN_SET:
                    features[key] = self._numeric[name](batch.numbers[name])
                elif name in batch.vectors and embedding_set == MAIN_SET:
                    features[key] = batch.vectors[name]
        return features

    def _pool(self, name: str, ids: Tensor | Jagged | None, vectors: Tensor) -> Tensor:
        if not isinstance(ids, Jagged):
            return vectors
        if ids.weights is not None:
            vectors = vectors * ids.weights.unsqueeze(1)
        pooled = segment_sum(vectors, ids.offsets)
        if self.schema.sparse[name].pooling == "mean":
            pooled = pooled / ids.offsets.diff().clamp(min=1).unsqueeze(1)
        return pooled

    def _events(self, name: str, events: Events, found: Mapping[str, Tensor]) -> EventInputs:
        columns = [found[f"{name}.{column}"] for column in events.columns]
        vectors = columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)
        lengths = events.offsets.diff()
        multiple = self.length_multiple.get(name, 8)
        longest = int(lengths.max()) if len(lengths) else 0
        length = max(multiple, -(-longest // multiple) * multiple)
        # Value v of request r stands at place L - (end of r) + v of its row: newest last.
        starts = torch.arange(1, len(lengths) + 1, device=lengths.device) * length
        shift = torch.repeat_interleave(
            starts - events.offsets[1:], lengths, output_size=len(vectors)
        )
        place = torch.arange(len(vectors), device=lengths.device) + shift
        padded = vectors.new_zeros(len(lengths) * length, vectors.shape[1])
        padded = padded.index_copy(0, place, vectors)
        mask = torch.zeros(len(padded), dtype=torch.bool, device=padded.device)
        mask[place] = True
        times = {}
        for key, value in events.times.items():
            if len(value) == len(vectors) and key != "age_newest":
                spread = value.new_zeros(len(padded)).index_copy(0, place, value)
                times[key] = spread.view(-1, length)
            else:
                times[key] = value
        return EventInputs(padded.view(len(lengths), length, -1), mask.view(-1, length), times)

    def _plan_keys(self) -> list[dict[str, tuple[str, str]]]:
        """Say for each group of tables which columns of ids it looks up: key -> (ids, table)."""
        plan: list[dict[str, tuple[str, str]]] = [{} for _ in self.groups]
        group_of = {
            name: number for number, group in enumerate(self.table_groups()) for name in group.sizes
        }
        columns = [(c.feature, c.name, c.stored_in) for c in self.schema.id_columns()]
        columns += [
            (name, None, name)
            for name, encoder in self._numeric.items()
            if isinstance(encoder, QuantileEncoder)
        ]
        for embedding_set in self.sets:
            for feature, inner, table in columns:
                if inner is not None and embedding_set != MAIN_SET:
                    continue
                source = f"{feature}.{inner}" if inner is not None else feature
                name = set_key(table, embedding_set)
                plan[group_of[name]][set_key(source, embedding_set)] = (source, name)
        return plan

    def _sequence_layout(self, name: str) -> SequenceLayout:
        feature = self.schema.sequences[name]
        inner = [c for c in self.schema.id_columns() if c.feature == name]
        items = {
            c.table: c.feature
            for c in self.schema.id_columns()
            if c.name is None
            and self.schema.features[c.feature].rate is Rate.CANDIDATE
            and self.schema.sparse[c.feature].pooling is None
        }
        return SequenceLayout(
            name=name,
            columns={str(c.name): self.table_dims[c.stored_in] * (c.lookups or 1) for c in inner},
            rate=feature.rate,
            candidate={str(c.name): items[c.table] for c in inner if c.table in items},
            max_length=feature.max_length,
            has_times=feature.time is not None,
        )

    def _width_of(self, name: str, embedding_set: str) -> int:
        if name in self.schema.sparse:
            column = self._columns[name, None]
            return self._dim_of(column.stored_in, embedding_set) * (column.lookups or 1)
        if name in self._numeric:
            if isinstance(self._numeric[name], QuantileEncoder):
                return self._dim_of(name, embedding_set)
            return 1 if embedding_set == MAIN_SET else 0
        if name in self.schema.vectors and embedding_set == MAIN_SET:
            return self.schema.vectors[name].dim
        return 0

    def _dim_of(self, table: str, embedding_set: str) -> int:
        own = self.config.tables.get(table, TableConfig()).embedding_dim
        return own if own and embedding_set == MAIN_SET else self.sets[embedding_set]

    def _std_of(self, table: str) -> float:
        return self.config.tables.get(table, TableConfig()).init_std or self.config.init_std

    def _sequence_only_tables(self) -> set[str]:
        columns = self._columns.values()
        shared = {c.stored_in for c in columns if c.name is None}
        return {c.stored_in for c in columns} - shared

    def _check_tables(self, sizes: Mapping[str, int]) -> None:
        problems = [
            f"model.embedding.tables.{name}: no feature has a table of this name."
            f"{did_you_mean(name, sizes)}"
            for name in self.config.tables
            if name not in sizes
        ]
        if problems:
            raise SchemaError(join_problems(problems, where="run file" if problems[1:] else ""))


def _joined(vectors: Tensor, count: int) -> Tensor:
    """Give (V, K * D) from (V * K, D)."""
    return vectors.reshape(len(vectors) // count, count * vectors.shape[1])
