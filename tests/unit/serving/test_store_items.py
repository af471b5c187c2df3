"""Items by id: what is looked up is what a client would send, to the bit."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.unit.data.test_request import Values, assert_same
from tests.unit.serving.store_world import (
    ALL_KINDS,
    CROSS,
    DECODER,
    INDEXES,
    NUM_ITEMS,
    export,
    some_items,
)

from rankloom.data.plain_lists import Ragged, as_list
from rankloom.data.texts import Texts
from rankloom.errors import ArtifactError, DataError, RequestError, SchemaError
from rankloom.schema import DenseFeature, Roles, Schema, SparseFeature, VectorFeature
from rankloom.serving.request import RankRequest
from rankloom.serving.store.config import StoreConfig
from rankloom.serving.store.door import FeatureDoor
from rankloom.serving.store.items import ItemStore

TEXT_IDS = Schema(
    {
        "item": SparseFeature(side="item", hash_buckets=100),
        "price": DenseFeature(side="item"),
        "image": VectorFeature(side="item", dim=2, default="zeros"),
    },
    roles=Roles(item="item"),
)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> ItemStore:
    return export(tmp_path_factory.mktemp("items"), some_items())


def filled(store: ItemStore, candidates: Any, **options: Any) -> Any:
    config = StoreConfig.model_validate(options)
    door = FeatureDoor(ALL_KINDS, config, items=store)
    request = RankRequest(user={}, candidates=candidates)
    return asyncio.run(door.fill(request)).candidates, door.counts


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_filled_request_decodes_as_one_that_brings_all(items, seed, one_by_one):
    values, catalogue = Values(seed), some_items()
    user, context = values.user(), values.context()
    picked = [catalogue[values.whole(0, NUM_ITEMS)] for _ in range(values.whole(1, 12))]
    cross = [{name: values.candidate()[name] for name in CROSS} for _ in picked]
    whole = [{**item, **own} for item, own in zip(picked, cross, strict=True)]
    sent: Any = [{"item_id": one["item_id"], **own} for one, own in zip(picked, cross, strict=True)]
    if not one_by_one:
        sent = {name: [one[name] for one in sent] for name in sent[0]}
    found, counts = filled(items, sent)
    assert_same(DECODER.decode(user, found, context), DECODER.decode(user, whole, context))
    assert (counts.items_found, counts.items_missing) == (len(picked), 0)


def test_values_without_null_are_arrays(tmp_path):
    rows = [{"item": "b", "price": 1.5, "image": [1.0, 2.0]}]
    rows += [{"item": "a", "price": 2.5, "image": [3.0, 4.0]}]
    store = export(tmp_path, rows, TEXT_IDS)
    found = store.look_up(["a", "b", "a"], ["price", "image"])
    assert found.is_missing is None
    assert isinstance(found.columns["price"], np.ndarray)
    assert found.columns["price"].tolist() == [2.5, 1.5, 2.5]
    assert isinstance(found.columns["image"], np.ndarray)
    assert found.columns["image"].tolist() == [[3.0, 4.0], [1.0, 2.0], [3.0, 4.0]]


def test_texts_and_lists_need_no_python_objects(tmp_path):
    schema = Schema(
        {
            "item": SparseFeature(side="item", num_embeddings=9),
            "brand": SparseFeature(side="item", hash_buckets=9),
            "tags": SparseFeature(side="item", hash_buckets=9, pooling="sum"),
        },
        roles=Roles(item="item"),
    )
    rows = [{"item": 4, "brand": "Zürich", "tags": ["x", ""]}]
    rows += [{"item": 2, "brand": "", "tags": []}]
    found = export(tmp_path, rows, schema).look_up([2, 4, 4], ["brand", "tags"]).columns
    assert isinstance(found["brand"], Texts)
    assert as_list(found["brand"]) == ["", "Zürich", "Zürich"]
    assert isinstance(found["tags"], Ragged)
    assert as_list(found["tags"]) == [[], ["x", ""], ["x", ""]]


def test_ids_may_be_arrays_texts_or_null(tmp_path):
    rows = [{"item": "b", "price": 1.0, "image": [1.0, 2.0]}]
    store = export(tmp_path, rows, TEXT_IDS)
    for ids in (["b", "c"], Texts.of(["b", "c"]), np.array(["b", "c"], object), ["b", None]):
        found = store.look_up(ids, ["price"])
        assert found.is_missing.tolist() == [False, True]
        assert found.columns["price"][0] == 1.0
        assert np.isnan(found.columns["price"][1])


@pytest.mark.parametrize("ids", [["4"], [4.0], [True], [[4]], [2**63], np.array([4.0])])
def test_an_id_of_another_type_is_refused(items, ids):
    with pytest.raises(RequestError, match=r"'item_id' must be a whole number.*Got"):
        items.look_up(ids, ["price"])


def test_a_missing_item_has_the_features_defaults(items):
    catalogue = some_items()
    nothing = dict.fromkeys(catalogue[0]) | {"item_id": 49}
    sent = {"item_id": [3, 49], "place": [1, 1], "discount": [0.0, 0.0]}
    found, counts = filled(items, sent)
    own = {"place": 1, "discount": 0.0}
    expected = [{**catalogue[3], **own}, {**nothing, **own}]
    user, context = Values(0).user(), Values(0).context()
    assert_same(DECODER.decode(user, found, context), DECODER.decode(user, expected, context))
    assert (counts.items_found, counts.items_missing) == (1, 1)


def test_a_missing_item_may_be_refused(items):
    with pytest.raises(RequestError, match=r"does not know item 49, nor are 1 more\. Send"):
        filled(items, {"item_id": [3, 49, None]}, missing_item="refuse")


def test_a_missing_item_without_a_default_is_refused(tmp_path):
    store = export(tmp_path, [{"item": "b", "price": 1.0, "image": [1.0, 2.0]}], TEXT_IDS)
    door = FeatureDoor(TEXT_IDS, StoreConfig(), items=store)
    request = RankRequest(user={}, candidates={"item": ["c"]})
    with pytest.raises(RequestError, match=r"know item 'c', and features .* null: 'price'\. Send"):
        asyncio.run(door.fill(request))
    sent = RankRequest(user={}, candidates={"item": ["c"], "price": [2.0]})
    filled_one = asyncio.run(door.fill(sent)).candidates
    assert filled_one.pop("image").tolist() == [[0.0, 0.0]]
    assert filled_one == {"item": ["c"], "price": [2.0]}


def test_what_the_client_sends_wins_even_null(items):
    found, _ = filled(items, {"item_id": [1, 2], "price": [None, 7.0], "tags": [[], [5]]})
    assert (found["price"], found["tags"]) == ([None, 7.0], [[], [5]])


def test_candidates_may_each_lack_something_else(items):
    catalogue = some_items()
    sent = [{"item_id": 1, "price": None}, {"item_id": 2}, {**catalogue[3], "tags": [5]}]
    own = [{"place": 1, "discount": 0.0}] * 3
    found, counts = filled(items, [{**one, **two} for one, two in zip(sent, own, strict=True)])
    whole = [{**catalogue[1], "price": None}, catalogue[2], sent[2]]
    expected = [{**one, **two} for one, two in zip(whole, own, strict=True)]
    user, context = Values(0).user(), Values(0).context()
    assert_same(DECODER.decode(user, found, context), DECODER.decode(user, expected, context))
    assert counts.items_found == 2


def test_ids_and_weights_come_from_one_side(items):
    found, _ = filled(items, {"item_id": [1], "topics": [[3]]})
    assert found["topics"] == [[3]]
    # The decoder says that they are missing: those of the store are of other topics.
    assert "topic_weights" not in found


@pytest.mark.parametrize(
    "given", [{"price": [1.0]}, [], "a", None, [3], [{"price": 1.0}], [{}, {}]]
)
def test_candidates_without_ids_are_left_to_the_decoder(items, given):
    assert filled(items, given)[0] is given


def test_no_candidates_are_left_to_the_decoder(items):
    found, _ = filled(items, {"item_id": [], "place": [], "discount": []})
    with pytest.raises(DataError, match="their number must be 1 to"):
        DECODER.decode(Values(0).user(), found, Values(0).context())


def test_a_complete_request_is_given_back_as_it_is(items):
    request = RankRequest(user={}, candidates=some_items()[:3])
    door = FeatureDoor(ALL_KINDS, StoreConfig(), items=items)
    assert asyncio.run(door.fill(request)) is request
    assert door.counts.items_found == 0


@pytest.mark.parametrize("name", ["items.arrow", "index.safetensors"])
def test_a_changed_file_is_refused(tmp_path, name):
    folder = export(tmp_path, some_items()).folder
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{name} was changed since it was written"):
        ItemStore(folder)
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        ItemStore(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "items.json: cannot be read"),
        ("[" * 100_000, "items.json: cannot be read"),
        ("{}", "format_version"),
        ('{"format_version": 2}', "format_version"),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path, text, message):
    folder = export(tmp_path, some_items()).folder
    (folder / "items.json").write_text(text)
    with pytest.raises(ArtifactError, match=message):
        ItemStore(folder)


def test_files_of_two_folders_are_refused_without_digests_too(tmp_path):
    for name, rows in (("one", some_items()), ("two", some_items()[:-1])):
        (tmp_path / name).mkdir()
        export(tmp_path / name, rows)
    other = tmp_path / "two/items/items.arrow"
    other.replace(tmp_path / "one/items/items.arrow")
    with pytest.raises(ArtifactError, match="do not fit each other"):
        ItemStore(tmp_path / "one/items", check_digests=False)


def test_items_of_other_types_are_refused_at_the_start(items):
    schema = Schema({"brand": DenseFeature(side="item")}, roles=Roles(item="item_id"))
    config = StoreConfig(items=items.folder)
    with pytest.raises(SchemaError, match=r"column 'brand' is large_string.*a dense feature"):
        FeatureDoor.open(config, schema, INDEXES)


def test_the_table_is_an_arrow_file_of_one_uncompressed_batch(items):
    with pa.memory_map(str(items.folder / "items.arrow")) as file:
        before = pa.total_allocated_bytes()
        table = pa.ipc.open_file(file).read_all()
        # Mapped and not read: a compressed one would be.
        assert pa.total_allocated_bytes() == before
        assert (table.num_rows, table["price"].num_chunks) == (NUM_ITEMS, 1)
        assert (
            table.column_names == json.loads((items.folder / "items.json").read_text())["columns"]
        )


def test_the_store_needs_no_torch():
    names = ("door", "item_export", "user_writer")
    lines = [f"import rankloom.serving.store.{name}" for name in names]
    code = "; ".join(["import sys", *lines, "sys.exit('torch' in sys.modules)"])
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_lookups_do_not_change_the_file(items):
    before = (items.folder / "items.arrow").read_bytes()
    found = items.look_up([0, 99], list(items.columns)).columns
    for values in found.values():
        if isinstance(values, np.ndarray):
            values[:] = 0
    assert Path(items.folder / "items.arrow").read_bytes() == before
