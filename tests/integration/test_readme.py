"""README's Python example runs as it stands."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from rankloom.data.datasets.synthetic import prepare_synthetic

ROOT = Path(__file__).parents[2]


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert found is not None, "README.md has no Python example"
    code = found.group(1)
    assert len([line for line in code.splitlines() if line.strip()]) <= 16
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    # In the place and with the columns of MovieLens, but quick to make and to train on.
    sizes = {"num_rows": 2000, "num_users": 60, "num_items": 80}
    prepare_synthetic(tmp_path / "data" / "movielens", **sizes, report=lambda _: None)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert "AUC" in printed
    assert "'like': array([" in printed
