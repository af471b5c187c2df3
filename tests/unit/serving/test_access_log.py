"""The access log, and what becomes of it on a full disk."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.unit.serving.telemetry_counts import Counts, until

from rankloom.serving.telemetry import access_log
from rankloom.serving.telemetry.access_log import AccessLine, AccessLog, AccessLogConfig
from rankloom.serving.telemetry.sampling import Sample


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "FLUSH_S", 0.01)


def opened(path: Path | str, **options: Any) -> tuple[AccessLog, Counts]:
    counts = Counts()
    return AccessLog(AccessLogConfig(path=str(path), **options), counts), counts


def line(number: int = 0, **options: Any) -> AccessLine:
    values = {"interface": "json", "id": f"r{number}", "status": 200, "code": "ok", **options}
    return AccessLine(**values)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(one) for one in path.read_text().splitlines()]


def ids(path: Path) -> list[str]:
    return [one["id"] for one in read(path)]


def test_a_line_tells_what_became_of_a_request(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "access.log"
    log, counts = opened(path)
    log.write(
        line(
            time=datetime(2026, 11, 22, 15, 37, 48, 120_000, UTC),
            candidates=500,
            deadline_ms=50.0,
            cache="hit",
            digest="3f",
            stages_ms={"total": 12.34567},
        ),
        user="u7",
    )
    log.write(line(1, status=504, code="deadline"))
    log.close()
    first, second = read(path)
    assert first == {
        "time": "2026-11-22T15:37:48.120000Z",
        "interface": "json",
        "id": "r0",
        "status": 200,
        "code": "ok",
        "candidates": 500,
        "deadline_ms": 50.0,
        "cache": "hit",
        "digest": "3f",
        "stages_ms": {"total": 12.346},
    }
    assert set(second) == {"time", "interface", "id", "status", "code"}
    assert counts == {"written": 2}


def test_a_user_is_told_by_a_keyed_hash_only(tmp_path: Path) -> None:
    logs = {}
    for name, key in {"a": "secret", "b": "secret", "c": "another"}.items():
        log, _ = opened(tmp_path / name, user_key=key)
        for user in ("u7", "u8", 7, "7", "\ud800"):
            log.write(line(), user=user)
        log.close()
        logs[name] = [one["user"] for one in read(tmp_path / name)]
    assert logs["a"] == logs["b"]
    assert not set(logs["a"]) & set(logs["c"])
    assert len(set(logs["a"])) == 4
    assert all(len(one) == 16 for one in logs["a"])
    assert "u7" not in (tmp_path / "a").read_text()


@pytest.mark.parametrize("given", ["\ud800", 'a"\n{"id":"forged"}', "x" * 10_000])
def test_any_id_is_one_line(tmp_path: Path, given: str) -> None:
    log, counts = opened(tmp_path / "log")
    log.write(line(id=given))
    log.close()
    (found,) = ids(tmp_path / "log")
    assert found == given.replace("\ud800", "?")[:200]
    assert counts == {"written": 1}


def test_a_line_that_cannot_be_written_harms_no_other(tmp_path: Path) -> None:
    log, counts = opened(tmp_path / "log")
    log.write(line(0, stages_ms={"total": None}))
    log.write(line(1, digest=object()))
    log.write(line(2))
    log.close()
    assert ids(tmp_path / "log") == ["r2"]
    assert counts == {"bad_values": 2, "written": 1}


def test_a_sample_holds_errors_too(tmp_path: Path) -> None:
    log, _ = opened(tmp_path / "a", sample_rate=0.1)
    other, _ = opened(tmp_path / "b", sample_rate=0.1, keep_errors=False)
    for number in range(2000):
        log.write(line(number, status=500 if number < 100 else 200))
        other.write(line(number, status=500))
    log.close()
    other.close()
    sampled = {f"r{number}" for number in range(2000) if Sample(0.1).has(f"r{number}")}
    assert 140 < len(sampled) < 260
    assert set(ids(tmp_path / "a")) == sampled | {f"r{number}" for number in range(100)}
    assert set(ids(tmp_path / "b")) == sampled


def test_a_small_sample_is_in_a_larger_one_and_needs_no_id() -> None:
    small, large = Sample(0.02), Sample(0.5)
    names = [f"{number:032x}" for number in range(20_000)]
    assert all(large.has(name) for name in names if small.has(name))
    assert 320 < sum(map(small.has, names)) < 480
    assert 320 < sum(small.has("") for _ in range(20_000)) < 480
    assert not any(map(Sample(0.0).has, names))
    assert all(map(Sample(1.0).has, names))


def test_too_many_lines_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "FLUSH_S", 60.0)
    log, counts = opened(tmp_path / "log", queue_lines=3)
    for number in range(10):
        log.write(line(number))
    assert counts == {"queue_full": 7}
    log.close()
    assert ids(tmp_path / "log") == ["r0", "r1", "r2"]
    log.write(line(11))
    assert counts == {"queue_full": 8, "written": 3}


def test_lines_for_a_full_disk_are_dropped_and_told_once(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    path.symlink_to("/dev/full")
    log, counts = opened(path)
    for number in range(3):
        log.write(line(number))
        until(lambda number=number: counts["not_writable"] == number + 1)
    path.unlink()
    log.write(line(3))
    log.close()
    assert ids(path) == ["r3"]
    assert counts == {"not_writable": 3, "written": 1}
    told = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert len(told) == 2
    assert "No space left on device" in told[0]
    assert "3 lines were dropped" in told[1]


def test_it_goes_on_when_a_small_disk_has_space_again(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        (disk / "ballast").write_bytes(bytes(8192))
        log, counts = opened(disk / "log")
        for number in range(300):
            log.write(line(number))
        until(lambda: counts.total() == 300)
        assert 0 < counts["written"] < 100
        text = (disk / "log").read_text()
        assert text.count("\n") == counts["written"]
        assert not text.endswith("\n")
        (disk / "ballast").unlink()
        log.write(line(300))
        log.write(line(301))
        log.close()
        *whole, torn, last, very_last = (disk / "log").read_text().splitlines()
        assert [json.loads(one)["id"] for one in (last, very_last)] == ["r300", "r301"]
        assert [json.loads(one)["id"] for one in whole] == [f"r{n}" for n in range(len(whole))]
        assert counts["written"] == len(whole) + 2
        assert counts["not_writable"] == 300 - len(whole)
        with pytest.raises(json.JSONDecodeError):
            json.loads(torn)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_file_that_is_moved_or_deleted_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "log"
    log, counts = opened(path)
    log.write(line(0))
    until(lambda: counts["written"] == 1)
    path.rename(tmp_path / "moved")
    log.write(line(1))
    until(lambda: counts["written"] == 2)
    shutil.rmtree(path.parent)
    log.write(line(2))
    log.close()
    assert ids(tmp_path / "moved") == ["r0"]
    assert ids(path) == ["r2"]


def test_reopen_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log, counts = opened(path)
    log.write(line(0))
    until(lambda: counts["written"] == 1)
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    log.reopen()
    until(lambda: len(list(descriptors.iterdir())) < before)
    log.write(line(1))
    log.close()
    assert ids(path) == ["r0", "r1"]


def test_a_folder_that_is_a_file_by_now_drops_lines(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "log"
    (tmp_path / "logs").write_text("")
    log, counts = opened(path)
    log.write(line(0))
    until(lambda: counts["not_writable"] == 1)
    (tmp_path / "logs").unlink()
    log.write(line(1))
    log.close()
    assert ids(path) == ["r1"]


def test_processes_share_one_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    code = (
        "import sys; from rankloom.serving.telemetry.access_log import *\n"
        "log = AccessLog(AccessLogConfig(path=sys.argv[1]), lambda *_: None)\n"
        "for n in range(2000):\n"
        "    name = sys.argv[2] + str(n)\n"
        "    log.write(AccessLine(interface='json', id=name, status=200, code='x'))\n"
        "log.close()"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "ab"]
    assert [one.wait() for one in writers] == [0, 0]
    assert sorted(ids(path)) == sorted(f"{name}{n}" for name in "ab" for n in range(2000))


def test_standard_output_is_the_default(capfd: pytest.CaptureFixture[str]) -> None:
    log, _ = opened("-")
    log.write(line(5))
    log.close()
    assert json.loads(capfd.readouterr().out)["id"] == "r5"
