"""Criteo from files in the official layout that the test writes, and from the sample at hand."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.integration.failing_commands import is_clear
from tests.integration.small import command
from tests.unit.data.recipe_training import train_recipe

from rankloom.data.datasets import delimited, local_folder
from rankloom.data.datasets.criteo import prepare_criteo
from rankloom.errors import DataError

NAMES = ["label", *(f"I{n}" for n in range(1, 14)), *(f"C{n}" for n in range(1, 27))]
ROW = [
    "1", "1", "-1", "", "0", "1382", "4", "15", "2", "181", "1", "2", "", "2",
    "68fd1e64", "80e26c9b", "", *(f"{n:08x}" for n in range(23)),
]  # fmt: skip


def line(label: int, first: int, rng: np.random.Generator) -> str:
    """Give a row whose I1 numbers it."""
    counts = [str(first), *(str(rng.integers(9)) for _ in range(12))]
    return "\t".join([str(label), *counts, *(f"{rng.integers(4):08x}" for _ in range(26))]) + "\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANKLOOM_DATA", str(tmp_path))
    made = tmp_path / "criteo"
    made.mkdir()
    rng = np.random.default_rng(0)
    (made / "train.txt").write_text("".join(line(int(n % 4 == 0), n, rng) for n in range(1000)))
    return made


def read(folder: Path, split: str) -> pa.Table:
    return pq.ParquetFile(folder / split / "part-0.parquet").read()


def test_columns_keep_their_values_and_empty_cells_are_null(folder: Path, tmp_path: Path) -> None:
    (folder / "train.txt").write_text(("\t".join(ROW) + "\n") * 100)
    prepare_criteo(tmp_path / "out", report=lambda _: None)
    table = read(tmp_path / "out", "test")
    assert table.column_names == NAMES
    row = table.to_pylist()[0]
    assert (row["label"], row["I2"], row["I5"], row["I13"]) == (1, -1, 1382, 2)
    assert (row["C1"], row["C4"], row["C26"]) == ("68fd1e64", "00000000", "00000016")
    assert [name for name, value in row.items() if value is None] == ["I3", "I12", "C3"]


def test_official_rows_are_drawn_once_each_in_the_shares_8_1_1(
    folder: Path, tmp_path: Path
) -> None:
    prepared = prepare_criteo(tmp_path / "out", report=lambda _: None)
    rows = [read(tmp_path / "out", split)["I1"].to_pylist() for split in prepared.rows]
    assert sorted(itertools.chain(*rows)) == list(range(1000))
    assert [len(part) for part in rows] == list(prepared.rows.values())
    assert prepared.rows["train"] == pytest.approx(800, abs=40)
    assert prepared.rows["valid"] == pytest.approx(100, abs=30)
    other = prepare_criteo(tmp_path / "other", seed=1, report=lambda _: None)
    assert other.rows != prepared.rows


def test_the_size_of_pieces_changes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_criteo(tmp_path / "whole", report=lambda _: None)
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", 5000)
    prepare_criteo(tmp_path / "pieces", report=lambda _: None)
    for split in ("train", "valid", "test"):
        assert read(tmp_path / "pieces", split).equals(read(tmp_path / "whole", split))


def test_compressed_file_is_read(folder: Path, tmp_path: Path) -> None:
    text = (folder / "train.txt").read_bytes()
    (folder / "train.txt").unlink()
    with pa.output_stream(str(folder / "train.txt.gz"), compression="gzip") as stream:
        stream.write(text)
    prepared = prepare_criteo(tmp_path / "out", report=lambda _: None)
    assert sum(prepared.rows.values()) == 1000


def test_notes_say_which_files_and_which_split(folder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    prepared = prepare_criteo(tmp_path / "out", report=lines.append)
    assert lines == [prepared.notes[0], "train.txt: 1,000 rows", *prepared.notes[1:]]
    assert lines[0].startswith(f"criteo: {folder / 'train.txt'}, each row drawn 8:1:1 (seed 0)")
    assert "own rows are others" in lines[0]
    positive = sum(sum(read(tmp_path / "out", s)["label"].to_pylist()) for s in prepared.rows)
    assert positive == 250
    assert lines[2].startswith(f"criteo train: {prepared.rows['train']} rows, label 2")


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("\t".join(ROW[:-1]), r"train\.txt: line 3 must have 40 columns\. Got 39\."),
        ("\t".join(["1", "x", *ROW[2:]]), r"line 3: column I1 must be int64\. Got .*'x'"),
        ("\t".join(["2", *ROW[1:]]), r"line 3: label must be 0 or 1\. Got 2\."),
        ("\t".join(["", *ROW[1:]]), r"line 3: label must be 0 or 1\. Got nothing\."),
    ],
)
def test_bad_lines_are_named(folder: Path, tmp_path: Path, bad: str, problem: str) -> None:
    good = "\t".join(ROW)
    (folder / "train.txt").write_text(f"{good}\n{good}\n{bad}\n{good}\n")
    with pytest.raises(DataError, match=problem):
        prepare_criteo(tmp_path / "out", report=print)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_lines_are_counted_through_all_pieces(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", 5000)
    lines = (folder / "train.txt").read_text().splitlines(keepends=True)
    lines[699] = "7" + lines[699][1:]
    (folder / "train.txt").write_text("".join(lines))
    with pytest.raises(DataError, match=r"line 700: label must be 0 or 1\. Got 7\."):
        prepare_criteo(tmp_path / "out", report=print)


def test_empty_and_absent_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "train.txt").write_text("")
    with pytest.raises(DataError, match=r"train\.txt: cannot be read\. Got: Empty CSV file"):
        prepare_criteo(tmp_path / "out", report=print)
    (folder / "train.txt").unlink()
    with pytest.raises(DataError, match=r"holds none of train\.txt, .*Put train\.txt"):
        prepare_criteo(tmp_path / "out", report=print)
    monkeypatch.setenv("RANKLOOM_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match=r"criteo or \$RANKLOOM_DATA/criteo_avazu_small is absent"):
        prepare_criteo(tmp_path / "out", report=print)


def test_the_command_gives_one_clear_line(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "train.txt").write_text("1\t2\n")
    assert command(monkeypatch, "data", "prepare", "criteo", "--to", tmp_path / "out") == 2
    message = capsys.readouterr().err.strip()
    assert is_clear(message), message
    assert "line 1 must have 40 columns" in message


def test_recipe_trains_on_it(folder: Path, tmp_path: Path) -> None:
    prepared = prepare_criteo(tmp_path / "out", report=lambda _: None)
    tasks = train_recipe(
        "criteo_dcn_v2.yaml",
        tmp_path / "out",
        tmp_path / "run",
        {"model.interaction.hidden_dims": [16]},
    )
    assert tasks["click"].num_rows == prepared.rows["test"]
    assert 0 < tasks["click"].metrics["auc"] < 1


def test_real_sample_keeps_its_split(tmp_path: Path) -> None:
    if local_folder("criteo_avazu_small") is None or local_folder("criteo") is not None:
        pytest.skip("needs criteo_avazu_small, and no criteo, in $RANKLOOM_DATA")
    prepared = prepare_criteo(tmp_path, report=lambda _: None)
    assert prepared.rows == {"train": 7200, "valid": 409, "test": 391}
    labels = pa.concat_tables([read(tmp_path, split) for split in prepared.rows])["label"]
    assert labels.to_numpy().mean() == pytest.approx(0.216, abs=5e-4)
    assert "too few rows to conclude" in prepared.notes[0]
