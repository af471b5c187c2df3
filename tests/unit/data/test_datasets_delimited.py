"""Text in pieces: what is read, and one error for a bad file that names file, line and column."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rankloom.data.datasets import delimited
from rankloom.data.datasets.delimited import Types, read_delimited, read_json_lines
from rankloom.errors import DataError


def read(path: Path, text: str, types: Types, **options: Any) -> dict[str, list[object]]:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    reader = read_delimited if ".csv" in path.name else read_json_lines
    options = {"advice": "Get it anew.", "report": lambda _: None} | options
    pieces = reader(path, types, **options)
    return pa.Table.from_batches(piece.rows for piece in pieces).to_pydict()


def test_columns_are_read_by_name_in_the_order_asked_for(tmp_path: Path) -> None:
    text = '\ufeffa,"b", c \n1,"x,y",\n2,NULL,0.5\n'
    types = {"c": pa.float64(), "b": pa.string()}
    for name in ("t.csv", "t.csv.gz"):
        assert read(tmp_path / name, text, types) == {"c": [None, 0.5], "b": ["x,y", None]}


@pytest.mark.parametrize("header", ["", "a|b\n"])
def test_a_header_that_may_be_absent_is_known_by_its_first_name(
    tmp_path: Path, header: str
) -> None:
    types = {"a": pa.int64(), "b": pa.string()}
    options = {"delimiter": "|", "has_header": False}
    assert read(tmp_path / "t.csv", f"{header}1|x\n", types, **options) == {"a": [1], "b": ["x"]}
    with pytest.raises(DataError, match=f"line {2 if header else 1}: column a must be int64"):
        read(tmp_path / "t.csv", f"{header}x|x\n", types, **options)


def test_json_lines_may_have_other_fields_and_a_whole_number_for_a_real_one(tmp_path: Path) -> None:
    text = '{"a": 1, "t": "long"}\n{"more": [1], "a": 2.5}\n'
    assert read(tmp_path / "t.jsonl.gz", text, {"a": pa.float64()}) == {"a": [1.0, 2.5]}


@pytest.mark.parametrize(("name", "head", "line"), [("t.csv", "a\n", "1\n"), ("t.json", "", "")])
def test_long_files_report_progress_and_number_their_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, head: str, line: str
) -> None:
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", 12)
    monkeypatch.setattr(delimited, "_ROWS_BETWEEN_REPORTS", 6)
    line = line or '{"a": 1}\n'
    lines: list[str] = []
    found = read(tmp_path / name, head + line * 11, {"a": pa.int64()}, report=lines.append)
    assert found == {"a": [1] * 11}
    assert lines[-1] == f"{name}: 11 rows"
    assert [text.endswith("rows so far") for text in lines] == [True, False]
    bad = line * 10 + (line.replace("1", "null"))
    with pytest.raises(DataError, match=rf"line {11 + bool(head)}: a must not be empty"):
        read(tmp_path / name, head + bad, {"a": pa.int64()}, filled=("a",))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "a,b\n1,2\n", "has no column c, d. Got a, b."),
        ("t.csv", "", "has no column c, d. Got ."),
        ("t.csv", "c,d\n", "has no rows."),
        ("t.csv", "c,d\n1,1\nx,1\n", "line 3: column c must be int64. Got 'x'."),
        ("t.csv", "c,d\n1,1\n1\n", "line 3 must have 2 columns. Got 1."),
        ("t.csv", "c,d\n1,1\n,1\n", "line 3: c must not be empty. Got nothing."),
        ("t.csv", "c,d\n1,1\n1,2\n", "line 3: d must be 0 or 1. Got 2."),
        ("t.json", '{"c": "x", "d": 1}\n', "cannot be read. Got: .*Column"),
        ("t.json", '{"c": 1, "d": 1}\n{"d": 1}\n', "line 2: c must not be empty. Got nothing."),
        ("t.json", "", "cannot be read"),
        ("t.json", "{", "cannot be read"),
    ],
)
def test_a_bad_file_is_one_error(tmp_path: Path, name: str, text: str, message: str) -> None:
    types = {"c": pa.int64(), "d": pa.int64()}
    options = {"flags": ("d",)} if name == "t.csv" else {}
    with pytest.raises(DataError, match=f"{name}: .*{message}.*Get it anew") as caught:
        read(tmp_path / name, text, types, filled=types, **options)
    assert "\n" not in str(caught.value)


def test_an_absent_or_damaged_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv: cannot be read"):
        list(read_delimited(tmp_path / "absent.csv", {}, advice="", report=print))
    damaged = tmp_path / "t.json.gz"
    damaged.write_bytes(b"no gzip")
    with pytest.raises(DataError, match=r"t\.json\.gz: cannot be read"):
        list(read_json_lines(damaged, {"a": pa.int64()}, advice="", report=print))
