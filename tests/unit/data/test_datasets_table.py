"""The table of data sets, and finding local folders."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from rankloom.data.datasets import DATASETS, local_folder


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_target_is_a_function(name: str) -> None:
    module, _, function = DATASETS[name].target.partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_names_are_sorted() -> None:
    assert list(DATASETS) == sorted(DATASETS)


def test_table_imports_neither_pyarrow_nor_torch() -> None:
    code = (
        "import sys, rankloom.data, rankloom.data.datasets;"
        "assert not {'pyarrow', 'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_local_folder_follows_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "frappe").mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RANKLOOM_DATA", str(tmp_path))
    assert local_folder("frappe") == tmp_path / "frappe"
    assert local_folder("absent") is None
    assert local_folder("file") is None


def test_local_folder_is_data_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "frappe").mkdir(parents=True)
    monkeypatch.delenv("RANKLOOM_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert local_folder("frappe") == Path("data/frappe")
