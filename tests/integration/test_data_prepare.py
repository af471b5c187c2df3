"""`rankloom data prepare --set`: choices of a data set, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.integration.failing_commands import FailingCommands
from tests.integration.small import command


@pytest.fixture
def sequences(at: FailingCommands, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = at.folder / "local" / "s3rec_sequences"
    folder.mkdir(parents=True)
    (folder / "LastFM.txt").write_text("1 1 2 3 4 5\n2 5 6 7 8 9\n")
    (folder / "LastFM_item2attributes.json").write_text("{}")
    monkeypatch.setenv("RANKLOOM_DATA", str(folder.parent))
    return folder


def test_choices_reach_the_data_set(
    at: FailingCommands, sequences: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = ("--set", "subset=LastFM", "--set", "test_negatives=3")
    to = at.folder / "out"
    assert command(monkeypatch, "data", "prepare", "s3rec", "--to", to, *choices) == 0
    assert pq.read_metadata(to / "test" / "part-0.parquet").num_rows == 2 * 4


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("subset=Books", "data.subset: unknown. Got 'Books'."),
        ("sede=1", "data set s3rec: has no option sede."),
        ("destination=x", "data set s3rec: has no option destination."),
        ("report=x", "data set s3rec: has no option report."),
        ("seed=one", "data set s3rec: seed must be of type int. Got 'one'."),
        ("num_negatives=0", "data.num_negatives: must be positive. Got 0."),
        ("seed", "--set seed: must read path.to.key=value."),
        ("subset=Beauty", "holds none of Beauty.txt"),
    ],
)
def test_a_wrong_choice_is_one_message(
    at: FailingCommands, sequences: Path, choice: str, message: str
) -> None:
    to = at.folder / "out"
    assert message in at.refused("data", "prepare", "s3rec", "--to", to, "--set", choice)
    assert not to.exists()


@pytest.mark.parametrize("name", ["amazon", "kuairand", "taobao_ad"])
def test_absent_files_are_one_message(at: FailingCommands, sequences: Path, name: str) -> None:
    message = at.refused("data", "prepare", name, "--to", at.folder / "out")
    assert f"the folder $RANKLOOM_DATA/{name} is absent. Download" in message


def test_a_bad_file_is_one_message(at: FailingCommands, sequences: Path) -> None:
    folder = sequences.parent / "amazon"
    folder.mkdir()
    (folder / "a.csv").write_text("user_id,parent_asin,rating,timestamp\nu,a,5,soon\n")
    message = at.refused("data", "prepare", "amazon", "--to", at.folder / "out")
    assert "a.csv: line 2: column timestamp must be int64. Got 'soon'." in message
