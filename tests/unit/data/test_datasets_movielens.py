"""MovieLens: both file forms, the order of sources, and the real data where they are at hand."""

from __future__ import annotations

import hashlib
import io
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankloom.data.datasets import local_folder, movielens, movielens_source
from rankloom.data.datasets.movielens import parse_movielens, prepare_movielens, ratings_digest
from rankloom.data.datasets.movielens_source import MovieLensFiles, fetch_movielens
from rankloom.errors import DataError

RECBOLE = {
    "ml-100k.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    "1\t10\t3\t100\n2\t10\t5\t50\n1\t9\t4\t200\n",
    "ml-100k.item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    '9\tSay "Hi"\t1995\tAnimation Children\'s\n10\tUnknown\tunkonwn\tunknown\n11\tThree\tV\tWar\n',
    "ml-100k.user": "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
    "1\t24\tM\ttechnician\t01234\n2\t53\tF\tother\tV3N4P\n",
}


def flags(*genres: str) -> str:
    return "|".join(str(int(name in genres)) for name in movielens._GENRES)


ARCHIVE = {
    "ml-100k/u.data": "2\t10\t5\t50\n1\t10\t3\t100\n1\t9\t4\t200\n",
    "ml-100k/u.item": "9|Caf\u00e9 (1995)|01-Jan-1995||http://x|"
    + flags("Animation", "Children's")
    + "\n10|unknown||||"
    + flags("unknown")
    + "\n11|Three (1995) (V)|01-Jan-1995|||"
    + flags("War")
    + "\n",
    "ml-100k/u.user": "1|24|M|technician|01234\n2|53|F|other|V3N4P\n",
}


def zipped(contents: dict[str, str], folder: str = "", encoding: str = "utf8") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in contents.items():
            archive.writestr(folder + name, text.encode(encoding))
    return buffer.getvalue()


WHEEL = zipped(RECBOLE, "recbole/dataset_example/ml-100k/")
ZIP = zipped(ARCHIVE, encoding="latin1")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty data and cache folders, known tiny files, and no network."""

    def no_network(*arguments: object, **options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("RANKLOOM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(movielens_source.urllib.request, "urlopen", no_network)
    monkeypatch.setattr(movielens_source.subprocess, "run", no_network)
    digests = {name: sha256(text.encode()) for name, text in RECBOLE.items()}
    monkeypatch.setattr(movielens_source, "FILES_SHA256", digests)
    monkeypatch.setattr(movielens_source, "WHEEL_SHA256", sha256(WHEEL))
    monkeypatch.setattr(movielens_source, "ARCHIVE_MD5", hashlib.md5(ZIP).hexdigest())
    monkeypatch.setattr(movielens, "RATINGS_SHA256", sha256(b"1 10 3 100\n1 9 4 200\n2 10 5 50"))
    return tmp_path


def fill_local_folder(sandbox: Path) -> Path:
    folder = sandbox / "data" / "movielens_100k"
    folder.mkdir(parents=True)
    for name, text in RECBOLE.items():
        with pa.output_stream(str(folder / f"{name}.zst"), compression="zstd") as stream:
            stream.write(text.encode())
    return folder


def fake_pip(monkeypatch: pytest.MonkeyPatch, wheel: bytes) -> None:
    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        folder = Path(command[command.index("-d") + 1])
        (folder / movielens_source.WHEEL).write_bytes(wheel)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(movielens_source.subprocess, "run", run)


def test_local_folder_comes_first(sandbox: Path) -> None:
    fill_local_folder(sandbox)
    assert fetch_movielens().origin == "folder movielens_100k"


def test_damaged_local_folder_is_named(sandbox: Path) -> None:
    folder = fill_local_folder(sandbox)
    (folder / "ml-100k.item.zst").unlink()
    with pytest.raises(DataError, match=r"holds none of ml-100k\.item\.zst, ml-100k\.item"):
        fetch_movielens()
    (folder / "ml-100k.item").write_text("changed")
    with pytest.raises(DataError, match=r"ml-100k\.item: sha256 is not the one"):
        fetch_movielens()
    (folder / "ml-100k.inter.zst").write_bytes(b"not compressed")
    with pytest.raises(DataError, match=r"ml-100k\.inter\.zst: cannot be read"):
        fetch_movielens()


def test_pip_fills_the_cache_and_the_cache_is_used(
    sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fake_pip(patch, WHEEL)
        assert fetch_movielens().origin == "recbole-1.2.1 wheel"
    # The network is gone again.
    assert fetch_movielens().origin == "recbole-1.2.1 wheel"
    cached = list((sandbox / "cache" / "rankloom").iterdir())
    assert [path.name for path in cached] == [movielens_source.WHEEL]


def test_damaged_cache_is_replaced(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = sandbox / "cache" / "rankloom" / movielens_source.WHEEL
    cached.parent.mkdir(parents=True)
    cached.write_bytes(WHEEL[:100])
    fake_pip(monkeypatch, WHEEL)
    fetch_movielens()
    assert cached.read_bytes() == WHEEL


def test_other_wheel_is_refused_and_the_archive_taken(
    sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pip(monkeypatch, WHEEL + b"more")

    def urlopen(url: str, *, timeout: float) -> io.BytesIO:
        assert url == "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
        return io.BytesIO(ZIP)

    monkeypatch.setattr(movielens_source.urllib.request, "urlopen", urlopen)
    assert fetch_movielens().form == "grouplens"
    assert list((sandbox / "cache" / "rankloom").iterdir()) == []


def test_without_network_one_line_offers_synthetic_data(sandbox: Path) -> None:
    with pytest.raises(DataError, match="--data synthetic") as caught:
        prepare_movielens(sandbox / "out", report=print)
    assert "\n" not in str(caught.value)
    assert "pip: no route to host; files.grouplens.org: no route to host" in str(caught.value)
    assert not (sandbox / "out").exists()


def test_both_forms_give_the_same_log() -> None:
    recbole = parse_movielens(
        MovieLensFiles(
            form="recbole",
            ratings=RECBOLE["ml-100k.inter"].encode(),
            items=RECBOLE["ml-100k.item"].encode(),
            users=RECBOLE["ml-100k.user"].encode(),
            origin="test",
        )
    )
    archive = parse_movielens(
        MovieLensFiles(
            form="grouplens",
            ratings=ARCHIVE["ml-100k/u.data"].encode("latin1"),
            items=ARCHIVE["ml-100k/u.item"].encode("latin1"),
            users=ARCHIVE["ml-100k/u.user"].encode("latin1"),
            origin="test",
        )
    )
    assert recbole.items.to_pydict() == archive.items.to_pydict()
    assert recbole.items.to_pydict() == {
        "item_id": ["9", "10", "11"],
        "release_year": [1995, None, None],
        "genres": [["Animation", "Children's"], [], ["War"]],
    }
    assert recbole.users.to_pydict() == archive.users.to_pydict()
    assert recbole.users["zip_code"].to_pylist() == ["01234", "V3N4P"]
    assert recbole.rating.tolist() == [3, 5, 4]
    assert ratings_digest(recbole) == ratings_digest(archive)


def test_prepared_files_and_progress_line(sandbox: Path) -> None:
    fill_local_folder(sandbox)
    lines: list[str] = []
    prepared = prepare_movielens(sandbox / "out", report=lines.append)
    assert lines[0] == "MovieLens-100K: folder movielens_100k, 3 ratings, sha256 ok"
    assert sum(prepared.rows.values()) == 3
    assert prepared.name == "movielens"


def test_other_ratings_are_refused(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_local_folder(sandbox)
    monkeypatch.setattr(movielens, "RATINGS_SHA256", "0" * 64)
    with pytest.raises(DataError, match="not the known ones"):
        prepare_movielens(sandbox / "out", report=print)


def test_rating_of_an_unknown_item_is_refused() -> None:
    files = MovieLensFiles(
        form="grouplens",
        ratings=b"1\t99\t5\t50\n",
        items=ARCHIVE["ml-100k/u.item"].encode("latin1"),
        users=ARCHIVE["ml-100k/u.user"].encode("latin1"),
        origin="test",
    )
    with pytest.raises(DataError, match="item_id that is not described"):
        parse_movielens(files)


def test_unreadable_form_is_a_data_error() -> None:
    files = MovieLensFiles(
        form="recbole", ratings=b"", items=b"a\tb\n1\n", users=b"", origin="the test"
    )
    with pytest.raises(DataError, match="the test cannot be parsed"):
        parse_movielens(files)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if local_folder("movielens_100k") is None:
        pytest.skip("needs movielens_100k in $RANKLOOM_DATA")
    folder = tmp_path_factory.mktemp("movielens")
    prepare_movielens(folder, report=lambda _: None)
    return folder


def read(folder: Path, split: str) -> pa.Table:
    return pq.ParquetFile(folder / split / "part-0.parquet").read()


def test_real_data_has_the_published_counts(real: Path) -> None:
    table = pa.concat_tables([read(real, split) for split in ("train", "valid", "test")])
    assert len(table) == 100_000
    assert len(table["user_id"].unique()) == 943
    assert len(table["item_id"].unique()) == 1682
    ratings = table["rating"].to_numpy()
    # GroupLens' own histogram of the ratings.
    assert np.bincount(ratings).tolist() == [0, 6110, 11370, 27145, 34174, 21201]
    assert table["user_id"].null_count == table["age"].null_count == 0


def test_real_histories_are_strictly_older(real: Path) -> None:
    table = read(real, "test")
    times, row_time = table["history_time"].combine_chunks(), table["timestamp"].to_numpy()
    lengths = np.diff(times.offsets.to_numpy())
    row_of_event = np.repeat(np.arange(len(table)), lengths)
    events = times.values.to_numpy()
    assert (events < row_time[row_of_event]).all()
    inside = np.diff(row_of_event) == 0
    assert (np.diff(events)[inside] >= 0).all()
    assert lengths.max() == 200


def test_real_first_event_and_length_count_the_whole_history(real: Path) -> None:
    whole = pa.concat_tables([read(real, split) for split in ("train", "valid", "test")])
    user, time = whole["user_id"].to_numpy(), whole["timestamp"].to_numpy()
    test = (
        read(real, "test")
        .slice(0, 500)
        .select(["user_id", "timestamp", "history_first_event", "history_time"])
    )
    for row in test.to_pylist():
        older = ((user == row["user_id"]) & (time < row["timestamp"])).sum()
        assert row["history_first_event"] + len(row["history_time"]) == older


def test_real_requests_are_whole_and_ordered(real: Path) -> None:
    seen: set[int] = set()
    for split in ("train", "valid", "test"):
        table = read(real, split)
        requests = table["request_id"].to_numpy()
        assert (np.diff(requests) >= 0).all()
        assert seen.isdisjoint(requests.tolist())
        seen |= set(requests.tolist())
        keys = [(name, "ascending") for name in ("timestamp", "user_id", "item_id")]
        assert table.sort_by(keys).select(["item_id"]).equals(table.select(["item_id"]))
    assert seen == set(range(len(seen)))


def test_real_splits_follow_time_within_each_user(real: Path) -> None:
    newest: dict[str, int] = {}
    for split in ("train", "valid", "test"):
        table = read(real, split)
        oldest = table.group_by("user_id").aggregate([("timestamp", "min"), ("timestamp", "max")])
        for row in oldest.to_pylist():
            assert row["timestamp_min"] > newest.get(row["user_id"], 0)
            newest[row["user_id"]] = row["timestamp_max"]
