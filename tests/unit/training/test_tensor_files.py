from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from rankloom.errors import CheckpointError
from rankloom.training.tensor_files import describe, read_into, read_tensors, write_tensors

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
    assert describe(path)["half"] == (torch.bfloat16, (2,))


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
        (b"", "requires a buffer of 8 bytes"),
        (b"\xff" * 8, "its header would have"),
        (b"\x02" + bytes(7) + b"{}", "'a' is missing"),
        (b"\x02" + bytes(7) + b"[]", "no mapping"),
        (b"\x02" + bytes(7) + b"x}", "Expecting value"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=said) as caught:
        read_into(path, {"a": torch.zeros(1)})
    assert str(caught.value).startswith(f"{path}: cannot be read (")


def test_a_file_that_is_cut_off_or_of_another_shape(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(4)})
    with pytest.raises(CheckpointError, match=r"a is \(4,\) there and \(3,\) here"):
        read_into(path, {"a": torch.zeros(3)})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="a is cut off"):
        read_into(path, {"a": torch.zeros(4)})
