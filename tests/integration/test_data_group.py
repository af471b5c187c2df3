"""`rankloom data group`, `ungroup` and `bench`: through the command, with bad input and kills."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.integration.failing_commands import FailingCommands
from tests.integration.small import (
    ROW_COLUMNS,
    command,
    environment,
    grouped,
    rankloom_command,
    small_train,
    small_values,
    write_run_file,
)
from tests.integration.test_kill import wait_for

pytestmark = pytest.mark.usefixtures("without_extras")


def said(at: FailingCommands, *arguments: str | Path) -> list[str]:
    at.capsys.readouterr()
    assert command(at.monkeypatch, *arguments) == 0
    captured = at.capsys.readouterr()
    assert captured.err == ""
    return captured.out.splitlines()


def group(at: FailingCommands, *options: str | Path) -> tuple[str | Path, ...]:
    return ("data", "group", at.part(), "--to", at.to, *options)


def test_a_log_there_and_back(at: FailingCommands) -> None:
    to, back = at.folder / "grouped.parquet", at.folder / "back.parquet"
    lines = said(at, "data", "group", at.part(), "--to", to, "--run", at.run_file)
    table = pq.read_table(at.part())
    requests = len(grouped(table))
    assert lines[0] == (
        f"requests  {requests:,} in {len(table):,} rows, the rows of each follow each other"
    )
    assert lines[2] == f"candidate 4 columns: {', '.join(ROW_COLUMNS)}"
    assert lines[3].startswith(f"grouped   {to}  0.")
    expected = grouped(table)
    assert pq.read_table(to).to_pydict() == expected.to_pydict()
    lines = said(at, "data", "ungroup", to, "--to", back)
    assert lines[0] == f"requests  {requests:,} in {len(table):,} rows"
    assert pq.read_table(back).equals(table)
    assert pq.read_schema(back).equals(pq.read_schema(at.part()), check_metadata=True)


def test_a_grouped_log_trains(at: FailingCommands) -> None:
    folder = at.folder / "grouped"
    for split in ("train", "valid", "test"):
        arguments = ("--to", folder / "grouped" / split, "--run", at.run_file)
        said(at, "data", "group", at.part(split), *arguments)
    values = small_values(folder, layout="grouped")
    small_train(values, at.to, {"training.epochs": 1})
    assert (at.to / "checkpoints" / "best.json").is_file()


def test_a_scattered_log_says_so(at: FailingCommands) -> None:
    at.change(lambda table: table.sort_by([("item_id", "ascending")]))
    lines = said(at, *group(at, "--by", "request_id"))
    assert lines[0].endswith(
        ", not all of whose rows followed each other: now in the order of first appearance, "
        "requests and the rows of each"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--by: is missing"),
        (["--by", "request"], "column 'request' is missing. Did you mean 'request_id'?"),
        (["--by", "age"], "column 'age' must hold whole numbers, texts or times"),
        (["--by", "request_id", "--candidate-columns", "hour,raking"], "'raking' is missing"),
        (
            ["--by", "request_id", "--candidate-columns", "hour"],
            "column 'item_id' is the request's",
        ),
        (["--by", "item_id", "--run", "run.yaml"], "'item_id' names the request"),
        (["--by", "a", "--candidate-columns", "b", "--run", "run.yaml"], "Give one of the two."),
    ],
)
def test_what_is_asked_for_wrongly(at: FailingCommands, options: list[str], message: str) -> None:
    at.monkeypatch.chdir(at.folder)
    assert message in at.refused(*group(at, *options))
    assert at.made == []


def test_wrong_files(at: FailingCommands) -> None:
    other = at.folder / "no.parquet"
    other.write_bytes(b"this is no Parquet file")
    message = at.refused(*group(at, "--by", "request_id"), other, "gone.parquet")
    assert f"{other}: is truncated or no Parquet file." in message
    assert "gone.parquet: no such file." in message
    for verb in ("group", "ungroup"):
        message = at.refused("data", verb, at.data / "train", "--to", at.to)
        assert f"{at.data / 'train'}: is a folder." in message
    assert "does not say which columns" in at.refused("data", "ungroup", at.part(), "--to", at.to)
    at.change(lambda table: table.drop_columns(["age"]), "valid")
    message = at.refused(*group(at, "--by", "request_id"), at.part("valid"))
    assert "'age' is missing, there " in message
    assert at.made == []


def test_a_damaged_page(at: FailingCommands) -> None:
    path = at.part()
    content = bytearray(path.read_bytes())
    content[1000:3000] = b"x" * 2000
    path.write_bytes(content)
    assert f"{path}: row group 0 cannot be read." in at.refused(*group(at, "--by", "request_id"))
    assert at.made == []


def test_an_output_that_is_there_is_kept(at: FailingCommands) -> None:
    at.to.write_bytes(b"mine")
    for verb in ("group", "ungroup"):
        message = at.refused("data", verb, at.part(), "--to", at.to)
        assert "is there already" in message or "--by" in message
    assert "is there already" in at.refused(*group(at, "--by", "request_id"))


def test_files_of_one_name_and_a_file_for_several(at: FailingCommands) -> None:
    both = (at.part(), at.part("valid"), "--by", "request_id", "--to")
    message = at.refused("data", "group", *both, at.to)
    assert "cannot hold files of one name. Got several of part-0.parquet." in message
    message = at.refused("data", "group", *both, at.folder / "to.parquet")
    assert "must be a folder for several files. Got 2." in message


def test_a_full_disk(at: FailingCommands, small_disk: Path) -> None:
    at.change(lambda table: table.sort_by([("item_id", "ascending")]))
    (small_disk / "ballast").write_bytes(b"x" * 290_000)
    message = at.refused("data", "group", at.part(), "--by", "request_id", "--to", small_disk / "o")
    assert "cannot be written (No space left on device)" in message
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


@pytest.mark.usefixtures("heeds_ctrl_c")
@pytest.mark.parametrize("verb", ["group", "ungroup"])
def test_ctrl_c_leaves_nothing(at: FailingCommands, verb: str) -> None:
    source = at.part()
    if verb == "ungroup":
        source = at.folder / "grouped.parquet"
        said(at, "data", "group", at.part(), "--to", source, "--by", "request_id")
    before = sorted(at.folder.rglob("*"))
    real = pq.ParquetWriter.write_table

    def stopping(*args: object, **options: object) -> None:
        real(*args, **options)  # type: ignore[arg-type]
        signal.raise_signal(signal.SIGINT)

    at.monkeypatch.setattr(pq.ParquetWriter, "write_table", stopping)
    options = ("--by", "request_id") if verb == "group" else ()
    assert command(at.monkeypatch, "data", verb, source, "--to", at.to, *options) == 130
    assert sorted(at.folder.rglob("*")) == before


def test_a_kill_leaves_no_half_file(at: FailingCommands) -> None:
    process = subprocess.Popen(
        rankloom_command(*group(at, "--by", "request_id")), env=environment(), cwd=at.folder
    )
    wait_for(lambda: any(at.folder.glob(".to.*.tmp")), process)
    process.kill()
    process.wait()
    # What is left has a hidden name; the next try starts anew.
    assert not at.to.exists()
    said(at, *group(at, "--by", "request_id"))
    assert pq.read_metadata(at.to / "part-0.parquet").num_rows


@pytest.mark.parametrize("layout", ["flat", "grouped"])
def test_bench_of_a_run(at: FailingCommands, log: Path, layout: str) -> None:
    run_file = write_run_file(at.folder / "b.yaml", small_values(log, layout=layout))
    lines = said(at, "data", "bench", run_file, "--seconds", "0.1", "--model")
    assert lines[0].startswith("fitted    ")
    assert lines[1].startswith("reading   train: 1,616 rows, ")
    names = [line.split()[0] for line in lines[2:]]
    assert names == ["decode", "transform", "batch", "together", "training", "limit"]
    assert lines[2].split()[2] == "rows/s"
    lines = said(at, "data", "bench", run_file, "--seconds", "0.1", "--split", "valid")
    assert lines[-1].startswith("limit     of reading: ")


def test_bench_knows_how_fast_a_run_trained(at: FailingCommands) -> None:
    small_train(at.values, at.to)
    lines = said(at, "data", "bench", at.to, "--seconds", "0.1")
    assert lines[0].startswith("reading ")
    assert lines[-2].split()[0] == "training"
    assert lines[-2].endswith(f"logged in {at.to / 'metrics.jsonl'}")
    # Another batch size is another run, of which nothing is known.
    lines = said(at, "data", "bench", at.to, "--seconds", "0.1", "--set", "training.batch_size=64")
    assert lines[0].startswith("fitted ")
    assert lines[-2].split()[0] == "together"


def test_bench_of_what_is_not_there(at: FailingCommands) -> None:
    assert "Did you mean 'test'?" in at.refused("data", "bench", at.run_file, "--split", "tets")
    assert "must be positive" in at.refused("data", "bench", at.run_file, "--seconds", "0")
    assert "gone.yaml" in at.refused("data", "bench", at.folder / "gone.yaml")
    at.part().unlink()
    assert "no file matches" in at.refused("data", "bench", at.run_file)
