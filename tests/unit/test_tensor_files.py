from __future__ import annotations

import hashlib
import json
import struct
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from rankloom.tensor_files import describe, map_tensors, read_into, read_tensors, write_tensors

MIXED = {
    "bytes": torch.arange(3, dtype=torch.uint8),
    "matrix": torch.arange(6.0).reshape(2, 3),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "count": torch.tensor(7, dtype=torch.int64),
    "flag": torch.tensor([True, False]),
    "none": torch.empty(0, 4),
    "turned": torch.arange(6.0).reshape(2, 3).T,
}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


def test_the_package_reads_what_is_written_here(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    digest = write_tensors(path, MIXED)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert_equal(safetensors.torch.load_file(path), MIXED)


def test_what_the_package_writes_is_read_here(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    contiguous = {name: value.contiguous() for name, value in MIXED.items()}
    safetensors.torch.save_file(contiguous, path, metadata={"a": "b"})
    assert_equal(read_tensors(path), MIXED)
    assert describe(path)["half"][:2] == (torch.bfloat16, (2,))


def test_reads_into_views_and_other_types(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(2, 3), "b": torch.full((2,), 2.0)})
    table, turned = torch.zeros(4, 3), torch.zeros(3, 2).T
    read_into(path, {"a": table[1:3]})
    assert table.sum(dim=1).tolist() == [0.0, 3.0, 3.0, 0.0]
    read_into(path, {"a": turned})
    assert turned.sum() == 6
    wide = torch.zeros(2, dtype=torch.float64)
    read_into(path, {"b": wide})
    assert wide.tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "0 bytes, too few"),
        (b"\xff" * 8, "its header would have"),
        (b"\x02" + bytes(7) + b"{}", "'a' is missing"),
        (b"\x02" + bytes(7) + b"[]", "no mapping"),
        (b"\x02" + bytes(7) + b"x}", "Expecting value"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    for read in (map_tensors, partial(read_into, targets={"a": torch.zeros(1)})):
        if said == "'a' is missing" and read is map_tensors:
            continue
        with pytest.raises(ValueError, match=said):
            read(path)


def test_a_file_that_is_cut_off_or_of_another_shape(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(4)})
    with pytest.raises(ValueError, match=r"a is \(4,\) there and \(3,\) here"):
        read_into(path, {"a": torch.zeros(3)})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="a is cut off"):
        read_into(path, {"a": torch.zeros(4)})


def test_mapped_tensors_share_the_files_order_and_leave_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"b": torch.zeros(2, 3), "a": torch.ones(1, 3), "c": torch.ones(2).char()})
    before = path.read_bytes()
    found = map_tensors(path)
    assert_equal(found, read_tensors(path))
    assert found["b"].data_ptr() + 24 == found["a"].data_ptr()
    found["b"].fill_(7)
    assert path.read_bytes() == before


def entry(**changes: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


@pytest.mark.parametrize(
    ("about", "said"),
    [
        (entry(dtype="F128"), "does not say what a is"),
        (entry(shape=[-2]), "does not say what a is"),
        (entry(shape=["__import__('os')"]), "does not say what a is"),
        (entry(shape=[10**30]), "not the bytes of its shape"),
        (entry(data_offsets=[8, 0]), "not the bytes of its shape"),
        (entry(data_offsets=[-8, 0]), "does not say what a is"),
        (entry(data_offsets=[1 << 60, (1 << 60) + 8]), "a is cut off"),
        (entry(data_offsets=[0]), "does not say what a is"),
        ([], "does not say what a is"),
    ],
)
def test_a_hostile_header_is_refused(tmp_path: Path, about: object, said: str) -> None:
    text = json.dumps({"a": about}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    for read in (map_tensors, read_tensors):
        with pytest.raises(ValueError, match=said):
            read(path)
