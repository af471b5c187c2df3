"""Vocabularies: their order, their lookup, their file, and counting out of core."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankloom.data import key_index
from rankloom.data.texts import Texts
from rankloom.data.vocabulary import Vocabulary, VocabularyBuilder
from rankloom.errors import ConfigError, DataError


def build(*arrays: pa.Array, min_count: int = 1, max_size: int | None = None) -> Vocabulary:
    builder = VocabularyBuilder(min_count, max_size=max_size)
    for array in arrays:
        builder.add(array)
    return builder.build()


def of(keys: list[int] | list[str]) -> Vocabulary:
    return Vocabulary(pa.array(keys), np.ones(len(keys), np.int64))


def test_order_is_count_then_key() -> None:
    vocabulary = build(pa.array(["b", "c", "a", None]), pa.array(["c", "d", "b", "c"]))
    assert vocabulary.keys.to_pylist() == ["c", "b", "a", "d"]
    assert vocabulary.counts.tolist() == [3, 2, 1, 1]
    assert vocabulary.num_embeddings == 6
    assert vocabulary.key_type == "string"


def test_strings_are_ordered_by_bytes_and_integers_by_value() -> None:
    assert build(pa.array(["\u00e9", "z", "Z", "10", "9"])).keys.to_pylist() == [
        "10", "9", "Z", "z", "\u00e9",
    ]  # fmt: skip
    assert build(pa.array([10, -1, 9])).keys.to_pylist() == [-1, 9, 10]


def test_lookup_gives_missing_unknown_and_key_rows() -> None:
    vocabulary = build(pa.array([7, 7, 5]))
    rows = vocabulary.lookup(pa.array([5, None, 7, 6, 10**15, -(2**63)]))
    assert rows.dtype == np.int64
    assert rows.tolist() == [3, 0, 2, 1, 1, 1]


def test_keys_far_apart_are_found() -> None:
    keys = [0, 2**62, -(2**63), 2**63 - 1, 12]
    vocabulary = of(keys)
    assert isinstance(vocabulary.index, key_index.HashIndex)
    assert vocabulary.lookup(pa.array([*keys, 13, None])).tolist() == [2, 3, 4, 5, 6, 1, 0]


def test_direct_and_hashed_lookup_agree() -> None:
    generator = np.random.default_rng(0)
    keys = generator.permutation(50_000)[:20_000] - 25_000
    values = generator.integers(-30_000, 30_000, 10_000)
    direct, hashed = key_index.DirectIndex.of(keys), key_index.HashIndex.of(keys)
    position = {key: i for i, key in enumerate(keys.tolist())}
    expected = [position.get(value, -1) for value in values.tolist()]
    assert direct.find(values).tolist() == expected
    assert hashed.find(values).tolist() == expected


def test_many_strings_are_found_and_others_are_not() -> None:
    keys = [f"item-{i}" for i in range(30_000)]
    asked = pa.array([f"item-{i}" for i in range(0, 60_000, 7)])
    expected = [i + 2 if i < 30_000 else 1 for i in range(0, 60_000, 7)]
    assert of(keys).lookup(asked).tolist() == expected


def test_string_with_the_hash_of_a_key_stays_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_byte_only(texts: Texts, *, seed: int) -> np.ndarray:
        return texts.padded[texts.offsets[:-1]].astype(np.uint64)

    monkeypatch.setattr(key_index, "hash_keys", first_byte_only)
    assert of(["apple", "bear"]).lookup(pa.array(["bear", "bee", "ape"])).tolist() == [3, 1, 1]


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint32(), pa.int32(), pa.uint64()], ids=str)
def test_integer_width_does_not_matter(kind: pa.DataType) -> None:
    values = pa.array([3, None, 4, 3], kind)
    assert build(values).lookup(values).tolist() == [2, 0, 3, 2]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_storage_of_strings_does_not_matter(kind: pa.DataType) -> None:
    values = pa.array(["x", None, "y", "x", ""], kind)
    assert build(values).lookup(values).tolist() == [2, 0, 4, 2, 3]


def test_slices_chunks_and_dictionaries_are_read() -> None:
    vocabulary = of(["a", "b", "c"])
    values = pa.array(["c", "a", None, "q", "b"])
    expected = [2, 0, 1, 3]
    assert vocabulary.lookup(values[1:]).tolist() == expected
    assert vocabulary.lookup(pa.chunked_array([values[1:2], values[2:]])).tolist() == expected
    assert vocabulary.lookup(values.dictionary_encode()[1:]).tolist() == expected
    assert vocabulary.lookup(values.dictionary_encode(null_encoding="encode")[1:]).tolist() == (
        expected
    )
    assert vocabulary.lookup(pa.nulls(2)).tolist() == [0, 0]
    assert vocabulary.lookup(pa.chunked_array([], pa.string())).tolist() == []


def test_lists_dictionaries_and_chunks_are_counted() -> None:
    lists = pa.array([["a", "b"], None, [], ["a", None]])
    encoded = pa.array(["a", None, "c"]).dictionary_encode()
    vocabulary = build(lists, encoded, pa.chunked_array([["c"], ["c"]]), pa.nulls(3))
    assert vocabulary.keys.to_pylist() == ["a", "c", "b"]
    assert vocabulary.counts.tolist() == [3, 3, 1]


def test_sliced_list_counts_its_own_rows_only() -> None:
    vocabulary = build(pa.array([[1, 1], [2], [3]])[1:2])
    assert vocabulary.keys.to_pylist() == [2]


def test_min_count_and_max_size_drop_the_rare() -> None:
    values = pa.array([1, 2, 2, 3, 3, 3, 4, 4])
    assert build(values, min_count=2).keys.to_pylist() == [3, 2, 4]
    assert build(values, max_size=2).keys.to_pylist() == [3, 2]
    assert build(values, min_count=4).keys.to_pylist() == []


@pytest.mark.parametrize("as_string", [False, True], ids=["integers", "strings"])
def test_spilling_gives_the_same_vocabulary(tmp_path: Path, as_string: bool) -> None:
    generator = np.random.default_rng(1)
    chunks = [pa.array(generator.zipf(1.3, 3000) % 10**6) for _ in range(20)]
    if as_string:
        chunks = [chunk.cast(pa.string()) for chunk in chunks]
    for limits in ({}, {"min_count": 2}, {"max_size": 100}):
        small = VocabularyBuilder(**limits, memory_keys=500, folder=tmp_path)
        large = VocabularyBuilder(**limits)
        for chunk in chunks:
            small.add(chunk)
            large.add(chunk)
        assert len(list(tmp_path.glob("*/*.arrow"))) > 3
        spilled, whole = small.build(), large.build()
        assert spilled.keys.equals(whole.keys)
        np.testing.assert_array_equal(spilled.counts, whole.counts)
        assert list(tmp_path.iterdir()) == []


def test_builder_matches_plain_counting() -> None:
    values = np.random.default_rng(2).integers(0, 300, 5000).tolist()
    counts = {value: values.count(value) for value in set(values)}
    expected = sorted(counts, key=lambda value: (-counts[value], value))
    builder = VocabularyBuilder(memory_keys=10)
    for start in range(0, 5000, 100):
        builder.add(pa.array(values[start : start + 100]))
    vocabulary = builder.build()
    assert vocabulary.keys.to_pylist() == expected
    assert vocabulary.counts.tolist() == [counts[value] for value in expected]


def test_dropped_builder_removes_its_files(tmp_path: Path) -> None:
    builder = VocabularyBuilder(memory_keys=10, folder=tmp_path)
    builder.add(pa.array(np.arange(1000)))
    assert len(list(tmp_path.iterdir())) == 1
    del builder
    assert list(tmp_path.iterdir()) == []


def test_unwritable_spill_folder_is_a_data_error(tmp_path: Path) -> None:
    builder = VocabularyBuilder(memory_keys=10, folder=tmp_path / "absent")
    with pytest.raises(DataError, match="temporary files cannot be written"):
        builder.add(pa.array(np.arange(1000)))


def test_mixed_key_types_are_refused() -> None:
    builder = VocabularyBuilder(name="tables.item")
    builder.add(pa.array([1]))
    with pytest.raises(DataError, match=r"tables\.item: .*Got strings after integers"):
        builder.add(pa.array(["1"]))
    with pytest.raises(DataError, match=r"keys are integers\. Got strings"):
        of([1]).lookup(pa.array(["1"]))
    with pytest.raises(DataError, match="Got double"):
        VocabularyBuilder().add(pa.array([1.5]))


def test_integer_beyond_int64_is_refused() -> None:
    with pytest.raises(DataError, match="does not fit into int64"):
        VocabularyBuilder().add(pa.array([2**63], pa.uint64()))


def test_vocabulary_of_nothing_knows_no_key() -> None:
    vocabulary = build(pa.array([None, None], pa.string()))
    assert vocabulary.num_embeddings == 2
    assert vocabulary.lookup(pa.array(["a", None])).tolist() == [1, 0]
    assert vocabulary.lookup(pa.array([4, None])).tolist() == [1, 0]


@pytest.mark.parametrize("keys", [[5, 3, 9], ["x", "caf\u00e9", ""], []], ids=str)
def test_saved_vocabulary_comes_back(tmp_path: Path, keys: list[int] | list[str]) -> None:
    vocabulary = Vocabulary(pa.array(keys, None if keys else pa.int64()), np.arange(len(keys)))
    vocabulary.save(tmp_path / "made" / "item.parquet")
    loaded = Vocabulary.load(tmp_path / "made" / "item.parquet")
    assert loaded.keys.equals(vocabulary.keys)
    assert loaded.counts.tolist() == vocabulary.counts.tolist()
    assert loaded.digest == vocabulary.digest
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["item.parquet"]


def test_digest_follows_keys_order_and_counts() -> None:
    one = np.ones(2, np.int64)
    contents = [
        (["a", "b"], one), (["b", "a"], one), (["ab", ""], one), (["a", "b"], one * 2),
    ]  # fmt: skip
    digests = {Vocabulary(pa.array(keys), counts).digest for keys, counts in contents}
    digests |= {of([1, 2]).digest, of([2, 1]).digest}
    assert len(digests) == 6
    sliced = Vocabulary(pa.array(["z", "a", "b"])[1:], one)
    assert sliced.digest == of(["a", "b"]).digest


def test_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "item.parquet"
    of(["a", "b"]).save(path)
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match="cannot be read"):
        Vocabulary.load(path)
    with pytest.raises(DataError, match=r"absent\.parquet: cannot be read"):
        Vocabulary.load(tmp_path / "absent.parquet")
    pq.write_table(pa.table({"key": ["a"]}), path)
    with pytest.raises(DataError, match="no vocabulary"):
        Vocabulary.load(path)


def test_changed_content_and_newer_format_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "item.parquet"
    of(["a", "b"]).save(path)
    about = pq.read_schema(path).metadata[b"rankloom.vocabulary"]
    changed = pa.table({"key": ["a", "c"], "count": [1, 1]})
    pq.write_table(changed.replace_schema_metadata({b"rankloom.vocabulary": about}), path)
    with pytest.raises(DataError, match="does not match its digest"):
        Vocabulary.load(path)
    newer = about.replace(b'"format_version": 1', b'"format_version": 2')
    pq.write_table(changed.replace_schema_metadata({b"rankloom.vocabulary": newer}), path)
    with pytest.raises(DataError, match="has vocabulary format 2"):
        Vocabulary.load(path)


def test_unwritable_folder_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        of(["a"]).save(tmp_path / "file" / "item.parquet")


def test_grown_vocabulary_keeps_old_rows() -> None:
    old = Vocabulary(pa.array(["b", "a"]), np.array([9, 8]))
    new = Vocabulary(pa.array(["d", "a", "c"]), np.array([5, 4, 3]))
    grown = new.grow(old)
    assert grown.keys.to_pylist() == ["b", "a", "d", "c"]
    assert grown.counts.tolist() == [9, 4, 5, 3]
    assert new.rows_of(old).tolist() == [0, 1, -1, 3, -1]
    assert grown.rows_of(old).tolist() == [0, 1, 2, 3, -1, -1]


def test_growing_from_or_to_nothing() -> None:
    nothing, some = build(pa.nulls(1)), of(["a"])
    assert some.grow(nothing).keys.to_pylist() == ["a"]
    assert nothing.grow(some).keys.to_pylist() == ["a"]
    assert some.rows_of(nothing).tolist() == [0, 1, -1]


def test_repeated_and_null_keys_are_refused() -> None:
    with pytest.raises(DataError, match="0 nulls and 1 repeated"):
        of([4, 4])
    with pytest.raises(DataError, match="1 nulls"):
        Vocabulary(pa.array(["a", None]), np.ones(2, np.int64))


@pytest.mark.parametrize("limits", [{"min_count": 0}, {"max_size": 0}, {"memory_keys": 0}])
def test_limits_below_one_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="Got 0"):
        VocabularyBuilder(**limits)
