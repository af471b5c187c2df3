"""Key indexes as arrays: what comes back finds the same, and no array makes a search go astray."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rankloom.data import key_index
from rankloom.data.hashing import Keys, hash_keys
from rankloom.data.key_index import build_key_index, index_of_arrays
from rankloom.data.texts import Texts

SPREAD = np.array([5, -(2**62), 10**15, -1, 2**63 - 1])
WORDS = ["", "a", "b\0", "Z\xfcrich", "a text of more than sixteen bytes"]


def texts(count: int) -> Texts:
    return Texts.of([f"key {n}" for n in range(count)])


@pytest.mark.parametrize(
    ("keys", "asked", "found"),
    [
        (
            np.array([4, 2, 9]),
            np.array([2, 3, 9, 1, 10, -(2**63), 2**63 - 1]),
            [1, -1, 2] + [-1] * 4,
        ),
        (np.array([2**63 - 1]), np.array([2**63 - 1, -(2**63), 0]), [0, -1, -1]),
        (SPREAD, np.array([-1, 5, 6, 2**63 - 1, -(2**63)]), [3, 0, -1, 4, -1]),
        (
            Texts.of(WORDS),
            Texts.of(["b", "b\0", "", "Z\xfcrich", "a text of more"]),
            [-1, 2, 0, 3, -1],
        ),
        (np.array([], np.int64), np.array([0, -1]), [-1, -1]),
        (Texts.of([]), Texts.of(["", "a"]), [-1, -1]),
    ],
)
def test_an_index_of_its_arrays_finds_the_same(keys: Keys, asked: Keys, found: list[int]):
    index = build_key_index(keys)
    again = index_of_arrays(index.arrays())
    assert index.find(asked).tolist() == again.find(asked).tolist() == found
    assert (again.is_text, again.is_empty) == (isinstance(keys, Texts), not len(keys))
    assert type(again) is type(index)


def test_arrays_are_used_where_they_lie():
    arrays = build_key_index(texts(20)).arrays()
    for array in arrays.values():
        array.flags.writeable = False
    again = index_of_arrays(arrays)
    assert all(
        np.shares_memory(again.arrays()[name], arrays[name]) for name in arrays if name != "seed"
    )
    assert again.find(texts(21)).tolist() == [*range(20), -1]


def test_a_seed_comes_back(monkeypatch: pytest.MonkeyPatch):
    # The first seed gives two keys one hash.
    def with_collision(keys: Keys, *, seed: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
        return hash_keys(keys, seed=seed) & np.uint64(0 if seed == 0 else 2**64 - 1)

    monkeypatch.setattr(key_index, "hash_keys", with_collision)
    arrays = build_key_index(texts(5)).arrays()
    assert arrays["seed"] == 1
    assert index_of_arrays(arrays).find(texts(5)).tolist() == [0, 1, 2, 3, 4]


def refused(arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        index_of_arrays(arrays)


def parts(kind: str) -> dict[str, Any]:
    """Give the arrays of a small index; each may be changed."""
    keys: Keys = {"texts": texts(6), "spread": SPREAD, "near": np.array([4, 2, 9])}[kind]
    return {name: array.copy() for name, array in build_key_index(keys).arrays().items()}


@pytest.mark.parametrize("kind", ["texts", "spread", "near"])
def test_all_arrays_of_one_kind_are_needed(kind):
    arrays = parts(kind)
    index_of_arrays(arrays)
    for name in arrays:
        refused({other: arrays[other] for other in arrays if other != name}, "no key index")
    refused({**arrays, "more": np.zeros(1)}, "no key index consists of .*more")
    refused({}, "consists of nothing")
    refused({**parts("texts"), "keys": SPREAD}, "no key index")


@pytest.mark.parametrize("kind", ["texts", "spread", "near"])
def test_types_and_shapes_are_checked(kind):
    arrays = parts(kind)
    for name, array in arrays.items():
        others = [array.astype(np.float64), array.astype(np.int16), array[None]]
        others += [array.astype(array.dtype.newbyteorder())] if array.dtype.itemsize > 1 else []
        others += [array[::2]] if array.ndim else []
        for other in others:
            refused({**arrays, name: other}, f"{name} is ")


@pytest.mark.parametrize(
    "positions", [[], [0], [0, 1], [-1, -1, 0], [-2, -1], [0, 2, -1], [0, 2**62, -1]]
)
def test_positions_must_be_of_keys_and_end_in_none(positions):
    table = np.array(positions, np.int64)
    refused({"smallest": np.array(0), "positions": table}, "positions")


def test_slots_must_be_a_power_of_two_and_half_empty():
    arrays = parts("spread")
    slots = arrays["slots"]
    refused({**arrays, "slots": np.append(slots, slots[:1] * 0 - 1)}, "power of two")
    refused({**build_key_index(Texts.of([])).arrays(), "slots": slots[:0]}, "power of two")
    refused({**arrays, "slots": np.array([0, 1, 2, 3, 4, -1, -1, -1])}, "too few")


@pytest.mark.parametrize("wrong", [-2, 5, 2**31 - 1])
def test_slots_must_name_keys(wrong):
    arrays = parts("spread")
    arrays["slots"][np.flatnonzero(arrays["slots"] >= 0)[0]] = wrong
    refused(arrays, "a slot names a key that there is not")


def test_a_table_of_no_keys_has_empty_slots():
    arrays = {name: array.copy() for name, array in build_key_index(Texts.of([])).arrays().items()}
    arrays["slots"][3] = 0
    refused(arrays, "a slot names a key that there is not")


def test_a_table_without_an_empty_slot_is_refused():
    # A search for an unknown key would go round for ever.
    arrays = parts("texts")
    arrays["slots"][:] = 0
    refused(arrays, "not one slot for each key")
    arrays["slots"][:] = -1
    refused(arrays, "not one slot for each key")


@pytest.mark.parametrize("first", [0, 20_000, 2**17 - 4500])
def test_a_long_run_of_taken_slots_is_refused(monkeypatch, first):
    # A search that starts in it would probe thousands of slots, a NumPy call each.
    monkeypatch.setattr(key_index, "_SLOTS_AT_ONCE", 1024)
    arrays = build_key_index(np.arange(40_000) * 10**9).arrays()
    assert len(arrays["slots"]) == 2**17
    index_of_arrays(arrays)
    slots = np.full(2**17, -1, np.int32)
    slots[first : first + 4500] = np.arange(4500)
    rest = np.flatnonzero(slots < 0)[: 2 * 35_500 : 2]
    slots[rest] = np.arange(4500, 40_000)
    refused({**arrays, "slots": slots}, "more than 4096 slots in a row are taken")


def test_a_negative_seed_is_refused():
    refused({**parts("spread"), "seed": np.array(-1)}, "seed is negative")


def test_each_key_needs_a_hash():
    arrays = parts("spread")
    refused({**arrays, "keys": arrays["keys"][:-1]}, "not one hash for each key")


def test_offsets_must_part_the_texts():
    arrays = parts("texts")
    offsets, size = arrays["offsets"], arrays["offsets"][-1]
    wrong = [
        offsets[:-1],
        np.append(offsets, size),
        np.maximum(offsets, 1),
        np.append(offsets[:-1], size - 1),
        np.append(offsets[:-1], size + 1),
        offsets[[0, 2, 1, 3, 4, 5, 6]],
        offsets[:0],
        # Each is more than the one before it, if the difference wraps.
        np.array([0, 2**62, 2**63 - 1, -(2**63), -(2**62), -1, size]),
    ]
    for other in wrong:
        refused({**arrays, "offsets": other}, "offsets do not part the texts")
    refused({**arrays, "padded": arrays["padded"][:-1]}, "offsets do not part the texts")
    refused({**arrays, "padded": arrays["padded"][:0]}, "offsets do not part the texts")


def test_a_search_of_damaged_hashes_ends():
    # They are not compared with the keys, which would take as long as building the table.
    for kind in ("texts", "spread"):
        arrays = parts(kind)
        arrays["hashes"][:] = 0
        asked = texts(7) if kind == "texts" else np.append(SPREAD, 77)
        found = index_of_arrays(arrays).find(asked)
        assert found.min() >= -1
        assert found.max() < len(arrays["hashes"])
