from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankloom.data.fit import Sample, fit_transforms
from rankloom.data.plan import Decoder
from rankloom.data.statistics import Moments, Quantiles
from rankloom.data.transforms import Transforms, table_sizes
from rankloom.errors import DataError, SchemaError
from rankloom.schema import (
    DenseFeature,
    LinearEncoding,
    LogEncoding,
    QuantileEncoding,
    Schema,
    SequenceColumn,
    SequenceFeature,
    SparseFeature,
    VocabularyConfig,
)

SCHEMA = Schema(
    {
        "item": SparseFeature(side="item", vocabulary=VocabularyConfig(min_count=2), table="items"),
        "seen": SequenceFeature(side="user", columns={"item": SequenceColumn(table="items")}),
        "price": DenseFeature(side="item", encode=LinearEncoding(), default=0.0),
        "age": DenseFeature(side="user", encode=QuantileEncoding(num_buckets=4)),
        "count": DenseFeature(side="user", encode=LogEncoding()),
        "shop": SparseFeature(side="item", hash_buckets=10),
        "place": SparseFeature(side="context", num_embeddings=3),
    }
)


def write(folder: Path, *, group_rows: int = 2) -> Path:
    table = pa.table(
        {
            "item": ["a", "b", None, "c", "a"],
            "seen_item": [["c", "d"], [], None, ["c"], ["e"]],
            "price": [1.0, None, 3.0, float("nan"), 6.0],
            "age": [40, None, 10, 30, 20],
            "count": [1, 2, 3, 4, 5],
            "shop": [1, 2, 3, 4, 5],
            "place": [0, 1, 2, 0, 1],
        }
    )
    pq.write_table(table, folder / "log.parquet", row_group_size=group_rows)
    return folder / "log.parquet"


def test_columns_that_share_a_table_share_its_vocabulary(tmp_path):
    transforms = fit_transforms(write(tmp_path), SCHEMA)
    assert transforms.vocabularies["items"].keys.to_pylist() == ["c", "a"]
    assert transforms.vocabularies["items"].counts.tolist() == [3, 2]


def test_moments_are_those_of_what_the_model_sees(tmp_path):
    moments = fit_transforms(write(tmp_path), SCHEMA).statistics["price"]
    assert isinstance(moments, Moments)
    seen = [1.0, 0.0, 3.0, 0.0, 6.0]
    assert moments.mean == pytest.approx(np.mean(seen))
    assert moments.deviation == pytest.approx(np.std(seen))


def test_boundaries_are_values_that_split_the_log_evenly(tmp_path):
    quantiles = fit_transforms(write(tmp_path), SCHEMA).statistics["age"]
    assert quantiles == Quantiles((20.0, 30.0, 40.0))


def test_the_default_is_counted_where_it_stands_for_null(tmp_path):
    source = SparseFeature(side="item", vocabulary=VocabularyConfig(min_count=3), default="a")
    transforms = fit_transforms(write(tmp_path), Schema({"item": source}))
    assert transforms.vocabularies["item"].keys.to_pylist() == ["a"]


def test_a_grouped_log_gives_the_same_vocabulary(tmp_path):
    table = pa.table({"item": [["a", "b"], [], ["c", "c", "b"], None]})
    pq.write_table(table, tmp_path / "log.parquet")
    schema = Schema({"item": SparseFeature(side="item", vocabulary=VocabularyConfig())})
    vocabulary = fit_transforms(tmp_path / "log.parquet", schema, layout="grouped").vocabularies
    assert vocabulary["item"].keys.to_pylist() == ["b", "c", "a"]


def test_progress_is_reported(tmp_path):
    reports: list[tuple[int, int]] = []
    fit_transforms(write(tmp_path), SCHEMA, report=lambda *done: reports.append(done))
    assert reports == [(2, 5), (4, 5), (5, 5)]


def test_a_constant_column_has_deviation_one(tmp_path):
    pq.write_table(pa.table({"x": [7.0] * 3}), tmp_path / "log.parquet")
    schema = Schema({"x": DenseFeature(side="item")})
    assert fit_transforms(tmp_path / "log.parquet", schema).statistics["x"] == Moments(7.0, 1.0)


def test_moments_of_large_values_do_not_cancel(tmp_path):
    values = np.tile([2.0**20, 2.0**20 + 1], 500)
    pq.write_table(pa.table({"x": values}), tmp_path / "log.parquet", row_group_size=33)
    schema = Schema({"x": DenseFeature(side="item")})
    moments = fit_transforms(tmp_path / "log.parquet", schema).statistics["x"]
    assert isinstance(moments, Moments)
    assert moments.deviation == pytest.approx(0.5, rel=1e-9)


def test_a_sample_is_uniform_and_does_not_depend_on_blocks():
    values = np.arange(50_000, dtype=np.float32)

    def draw(block: int) -> list[float]:
        sample = Sample(1000, np.random.default_rng(1))
        for start in range(0, len(values), block):
            sample.add(values[start : start + block])
        return sorted(sample.values().tolist())

    drawn = draw(777)
    assert drawn == draw(50_000)
    assert len(set(drawn)) == 1000
    # The mean of 1,000 of them has deviation 14434 / sqrt(1000) = 456.
    assert abs(np.mean(drawn) - 24_999.5) < 4 * 456


def test_a_small_stream_is_its_own_sample():
    sample = Sample(1000, np.random.default_rng(1))
    sample.add(np.arange(999, dtype=np.float32))
    assert sorted(sample.values().tolist()) == list(range(999))


def test_saved_transforms_come_back(tmp_path):
    transforms = fit_transforms(write(tmp_path), SCHEMA)
    transforms.save(tmp_path / "fitted")
    loaded = Transforms.load(tmp_path / "fitted")
    assert loaded.digest == transforms.digest
    assert loaded.statistics == transforms.statistics
    assert loaded.vocabularies["items"].keys.equals(transforms.vocabularies["items"].keys)


def test_the_digest_covers_vocabularies_and_statistics(tmp_path):
    transforms = fit_transforms(write(tmp_path), SCHEMA)
    others = [
        Transforms({}, transforms.statistics),
        Transforms(transforms.vocabularies, {"age": Quantiles((20.0, 30.0, 41.0))}),
    ]
    assert len({transforms.digest, *(other.digest for other in others)}) == 3


def damage_digits(folder: Path) -> None:
    path = folder / "transforms.json"
    path.write_text(path.read_text().replace("30.0", "31.0"))


def damage_vocabulary(folder: Path) -> None:
    path = next(folder.glob("vocabulary-*.parquet"))
    path.write_bytes(path.read_bytes()[:-9])


def remove_vocabulary(folder: Path) -> None:
    next(folder.glob("vocabulary-*.parquet")).unlink()


def make_newer(folder: Path) -> None:
    path = folder / "transforms.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))


def cut_json(folder: Path) -> None:
    path = folder / "transforms.json"
    path.write_text(path.read_text()[:40])


@pytest.mark.parametrize(
    "damage", [damage_digits, damage_vocabulary, remove_vocabulary, make_newer, cut_json]
)
def test_a_damaged_folder_is_refused(tmp_path, damage):
    fit_transforms(write(tmp_path), SCHEMA).save(tmp_path / "fitted")
    damage(tmp_path / "fitted")
    with pytest.raises(DataError, match="fitted"):
        Transforms.load(tmp_path / "fitted")


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        Transforms().save(tmp_path / "file" / "folder")


def test_table_sizes_have_the_special_rows(tmp_path):
    transforms = fit_transforms(write(tmp_path), SCHEMA)
    assert table_sizes(SCHEMA, transforms) == {"items": 4, "shop": 11, "place": 3}


def test_what_was_not_fitted_is_named_at_once():
    with pytest.raises(SchemaError) as error:
        Decoder(SCHEMA, Transforms())
    assert "table 'items' has no vocabulary" in str(error.value)
    assert "'price' has no moments" in str(error.value)
    assert "'age' has no quantiles" in str(error.value)
