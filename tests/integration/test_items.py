"""`rankloom items`: from an artifact and its log to items that are looked up by id."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.integration.failing_commands import FailingCommands
from tests.integration.small import command, small_train, small_values

from rankloom.api import evaluating
from rankloom.data.plain_lists import as_list
from rankloom.serving.store.items import ItemStore
from rankloom.training import trainer


@pytest.fixture(scope="module")
def artifact(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("items")
    with pytest.MonkeyPatch.context() as patch:
        # As `without_extras` does for a test.
        patch.setattr(evaluating, "write_report", lambda *_, **__: None)
        patch.setattr(trainer, "matmul_rate", lambda *_: 1e12)
        small_train(small_values(log), folder / "run", {"training.epochs": 1})
        assert command(patch, "export", folder / "run", "--to", folder / "artifact") == 0
    return folder / "artifact"


def test_items_of_a_log_are_looked_up_by_id(at, artifact, capsys):
    arguments = (at.part(), "--artifact", artifact, "--to", at.to)
    assert command(at.monkeypatch, "items", *arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    table = pq.read_table(at.part())
    last = {row["item_id"]: row for row in table.to_pylist()}
    assert (
        lines[0].split()
        == f"items {len(last)} of {len(table):,} rows, the last of each item".split()
    )
    assert lines[1] == "columns   release_year, genres, by item_id"
    assert lines[2].startswith("written ")
    store = ItemStore(at.to)
    found = store.look_up(list(last), ["release_year", "genres"])
    assert found.is_missing is None
    for name, values in found.columns.items():
        assert as_list(values) == [row[name] for row in last.values()]


def test_columns_may_be_chosen(at, artifact):
    arguments = (at.part(), "--artifact", artifact, "--to", at.to, "--columns", "genres")
    assert command(at.monkeypatch, "items", *arguments) == 0
    assert list(ItemStore(at.to).columns) == ["genres"]


def refused(at: FailingCommands, artifact: Path, *options: str | Path) -> str:
    return at.refused("items", at.part(), "--artifact", artifact, "--to", at.to, *options)


def test_no_artifact(at):
    assert "manifest.json: cannot be read" in refused(at, at.folder / "nothing")
    assert not at.to.exists()


def test_no_such_file(at, artifact):
    arguments = (at.folder / "no.parquet", "--artifact", artifact, "--to", at.to)
    assert "no.parquet: no such file" in at.refused("items", *arguments)


def test_a_folder_instead_of_files(at, artifact):
    message = at.refused("items", at.data, "--artifact", artifact, "--to", at.to)
    assert "is a folder. Name its files" in message


def test_no_parquet(at, artifact):
    at.part().write_text("a,b")
    assert "is truncated or no Parquet file" in refused(at, artifact)


def test_a_missing_column(at, artifact):
    at.change(lambda table: table.drop_columns(["genres"]))
    message = refused(at, artifact)
    assert "column 'genres' (vocabulary) is missing" in message
    assert "left out with --columns" in message


def test_a_column_of_another_type(at, artifact):
    years = pa.array(["1999"])
    at.change(
        lambda table: table.slice(0, 1).set_column(
            table.column_names.index("release_year"), "release_year", years
        )
    )
    assert "column 'release_year' is string, the schema says" in refused(at, artifact)


def test_a_value_that_cannot_be_scored(at, artifact):
    at.change(
        lambda table: table.slice(0, 1).set_column(
            table.column_names.index("release_year"), "release_year", pa.array([None], pa.int64())
        )
    )
    message = refused(at, artifact)
    assert message.startswith("item ")
    assert "column 'release_year' has no number. Got null" in message
    assert not at.to.exists()


def test_unknown_columns(at, artifact):
    message = refused(at, artifact, "--columns", "genre")
    assert "Got genre. Choose from: release_year, genres." in message
    assert "column 'sku'" in refused(at, artifact, "--item", "sku")


def test_a_place_that_is_taken(at, artifact):
    at.to.mkdir()
    (at.to / "something").write_text("here")
    assert "is there already" in refused(at, artifact)
    assert (at.to / "something").read_text() == "here"


def test_a_full_disk_leaves_nothing(at, artifact, small_disk):
    # All but one page.
    (small_disk / "filler").write_bytes(bytes(74 * 4096))
    at.to = small_disk / "items"
    assert "cannot be written (" in refused(at, artifact)
    assert [path.name for path in small_disk.iterdir()] == ["filler"]
