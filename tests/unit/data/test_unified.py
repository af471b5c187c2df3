"""Ids of the unified table: by the definition, alike on both paths, colliding as expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from rankloom.data.batch import Jagged
from rankloom.data.fit import fit_transforms
from rankloom.data.plan import Decoder, decode_table
from rankloom.data.request import RequestDecoder
from rankloom.data.transforms import Transforms, table_sizes
from rankloom.errors import SchemaError
from rankloom.schema import (
    Schema,
    SequenceColumn,
    SequenceFeature,
    SparseFeature,
    UnifiedConfig,
    VocabularyConfig,
)

WORD = 2**64 - 1


def mix(word: int) -> int:
    """Splitmix64, on Python's whole numbers."""
    word = (word + 0x9E3779B97F4A7C15) & WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD
    return word ^ (word >> 31)


def hash_of(value: int | str, seed: int) -> int:
    if isinstance(value, int):
        return mix(mix(seed) ^ (value & WORD))
    data = value.encode()
    state = mix(mix(seed) ^ len(data))
    for start in range(0, len(data), 8):
        state = mix(state ^ int.from_bytes(data[start : start + 8], "little"))
    return state


def rows_by_hand(
    value: int | str | None, *, table: str, lookups: int, buckets: int, place: int
) -> list[int]:
    if value is None:
        return [buckets + place] * lookups
    word = hash_of(value, 0) if isinstance(value, str) else value
    return [hash_of(word, hash_of(table, number)) % buckets for number in range(lookups)]


def decoded(schema: Schema, columns: dict[str, Any]) -> Any:
    table = pa.table(columns)
    return decode_table(table, Decoder(schema, Transforms(), with_labels=False))


def test_rows_are_those_of_the_definition() -> None:
    unified = UnifiedConfig(hash_buckets=97, lookups={"city": 3, "item": 2})
    features = {name: SparseFeature(side="user") for name in ("user", "city")}
    schema = Schema({**features, "item": SparseFeature(side="item")}, unified=unified)
    values: dict[str, list[Any]] = {
        "user": [7, -3, None, 2**62],
        "city": ["", None, "Zürich", "a text of thirty bytes or more"],
        "item": [7, 7, -3, 0],
    }
    ids = decoded(schema, values).ids
    for place, (table, lookups) in enumerate({"user": 1, "city": 3, "item": 2}.items()):
        expected = [
            rows_by_hand(value, table=table, lookups=lookups, buckets=97, place=place)
            for value in values[table]
        ]
        assert ids[table].tolist() == expected
    # 97 shared rows, and one for the missing values of each table.
    assert table_sizes(schema, Transforms()) == {"unified": 100}


def test_tables_are_salted_and_a_history_shares_the_rows_of_its_table() -> None:
    schema = Schema(
        {
            "a": SparseFeature(side="user"),
            "b": SparseFeature(side="user"),
            "seen": SequenceFeature(side="user", columns={"b": SequenceColumn(table="b")}),
        },
        unified=UnifiedConfig(hash_buckets=1 << 40, lookups=2),
    )
    values = list(range(50))
    lists = [[value] for value in values]
    batch = decoded(schema, {"a": values, "b": values, "seen_b": lists})
    assert torch.equal(batch.sequences["seen"].columns["b"], batch.ids["b"])
    everything = torch.cat([batch.ids["a"], batch.ids["b"]]).flatten()
    assert len(everything.unique()) == 200


@pytest.mark.parametrize("is_text", [False, True])
def test_values_collide_as_often_as_random_ones(*, is_text: bool) -> None:
    num_values, buckets = 20_000, 50_000
    schema = Schema(
        {"item": SparseFeature(side="item")}, unified=UnifiedConfig(hash_buckets=buckets, lookups=2)
    )
    values = [f"item {n}" if is_text else n for n in range(num_values)]
    rows = decoded(schema, {"item": values}).ids["item"]
    # A value shares its row with another one unless all n - 1 others miss it.
    expected = 1 - (1 - 1 / buckets) ** (num_values - 1)
    for column in rows.T:
        _, inverse, counts = column.unique(return_inverse=True, return_counts=True)
        share = (counts[inverse] > 1).double().mean().item()
        # Four standard errors, if values collided independently.
        assert abs(share - expected) < 4 * (expected * (1 - expected) / num_values) ** 0.5
    # Both lookups at once: none of 20,000 values, or one pair by chance.
    assert len(rows.unique(dim=0)) >= num_values - 2


def rows_of(ids: torch.Tensor | Jagged) -> torch.Tensor:
    return ids.values if isinstance(ids, Jagged) else ids


FEATURES: dict[str, Any] = {
    "user": SparseFeature(side="user", hash_buckets=9),
    "city": SparseFeature(side="user", default="b"),
    "seen": SequenceFeature(
        side="user",
        columns={"item": SequenceColumn(table="item"), "star": SequenceColumn(num_embeddings=6)},
        max_length=2,
    ),
    "hour": SparseFeature(side="context", num_embeddings=24),
    "item": SparseFeature(side="item", hash_buckets=5),
    "tags": SparseFeature(side="item", pooling="mean", weights="strength"),
}


@pytest.mark.parametrize("tables", ["all", ("item", "city", "tags")])
def test_a_request_has_the_rows_of_the_log(tables: Any) -> None:
    unified = UnifiedConfig(hash_buckets=1000, tables=tables, lookups={"item": 2, "tags": 3})
    schema = Schema(FEATURES, unified=unified)
    user = {"user": 2**63 - 1, "city": None, "seen_item": [1, 2, None], "seen_star": [5, 0, 1]}
    context = {"hour": 20}
    candidates = {
        "item": [3, None, -1],
        "tags": [["a", None], None, []],
        "strength": [[2.0, 0.5], None, []],
    }
    line = pa.table({k: [v] for k, v in {**user, **context, **candidates}.items()})
    # A column of nothing but nulls has no type of its own.
    line = line.set_column(line.schema.get_field_index("city"), "city", pa.array([None], "string"))
    decoder = Decoder(schema, Transforms(), layout="grouped", with_labels=False)
    ours = RequestDecoder(schema, {}).decode(user, candidates, context)
    theirs = decode_table(line, decoder)
    assert torch.equal(
        ours.sequences["seen"].columns["item"], theirs.sequences["seen"].columns["item"]
    )
    for name, value in theirs.ids.items():
        assert torch.equal(rows_of(ours.ids[name]), rows_of(value)), name
    assert rows_of(theirs.ids["item"]).shape == (3, 2)
    assert rows_of(theirs.ids["tags"]).shape == (3, 3)


def test_nothing_is_fitted(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": [1, 2]}), tmp_path / "log.parquet")
    user = SparseFeature(side="user", vocabulary=VocabularyConfig())
    for unified, tables in ((None, ["user"]), (UnifiedConfig(hash_buckets=9), [])):
        schema = Schema({"user": user}, unified=unified)
        found = fit_transforms(tmp_path / "log.parquet", schema)
        assert list(found.vocabularies) == tables


def test_texts_and_numbers_in_one_table_are_refused() -> None:
    seen = SequenceFeature(side="user", columns={"item": SequenceColumn(table="item")})
    schema = Schema(
        {"seen": seen, "item": SparseFeature(side="item")}, unified=UnifiedConfig(hash_buckets=9)
    )
    with pytest.raises(SchemaError, match="'item' is string, column 'seen_item' of the same"):
        decoded(schema, {"seen_item": [[1]], "item": ["1"]})
