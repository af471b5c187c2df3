"""Getting the files of MovieLens-100K: from a local folder, from PyPI, or from GroupLens.

GroupLens does not allow passing the data on, so they are in no package of ours. Two public copies
are known, and each file taken is checked, so that all ways give the same data.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rankloom.data.datasets import local_folder
from rankloom.data.datasets.splits import first_existing, read_bytes
from rankloom.errors import DataError

FOLDER = "movielens_100k"
WHEEL_REQUIREMENT = "recbole==1.2.1"
WHEEL = "recbole-1.2.1-py3-none-any.whl"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
FILES_SHA256 = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
}
ARCHIVE_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
# As GroupLens publishes it; used to recognise the file, not against an attacker.
ARCHIVE_MD5 = "0e33842e24a9c977be4e0107933c0723"
TIMEOUT_S = 20


@dataclass(frozen=True, kw_only=True)
class MovieLensFiles:
    """The three files in one of their two forms."""

    form: Literal["recbole", "grouplens"]
    """`recbole`: tab-separated with a header line; `grouplens`: the archive's own form."""
    ratings: bytes
    """`ml-100k.inter` or `u.data`."""
    items: bytes
    """`ml-100k.item` or `u.item`."""
    users: bytes
    """`ml-100k.user` or `u.user`."""
    origin: str
    """Where they come from, for the progress line."""


def fetch_movielens() -> MovieLensFiles:
    """Take the first source that works: local folder, cached wheel, pip, GroupLens' archive.

    Raises:
        DataError: None works (the message says why, a reason for each), or the local folder is
            damaged.
    """
    folder = local_folder(FOLDER)
    if folder is not None:
        return _from_folder(folder)
    sources: dict[str, Callable[[], MovieLensFiles]] = {
        "cached wheel": _from_cached_wheel,
        "pip": _from_pip,
        "files.grouplens.org": _from_archive,
    }
    failures = []
    for name, fetch in sources.items():
        try:
            return fetch()
        except (DataError, OSError, zipfile.BadZipFile, subprocess.SubprocessError) as error:
            failures.append(f"{name}: {' '.join(str(error).split())}")
    raise DataError(
        f"MovieLens-100K: no source can be reached. Got {'; '.join(failures)}. Connect to the "
        "network, or take --data synthetic, which needs none."
    )


def cache_folder() -> Path:
    """Name the folder of downloaded files: `$XDG_CACHE_HOME/rankloom` or `~/.cache/rankloom`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rankloom"


def _from_folder(folder: Path) -> MovieLensFiles:
    advice = f"Restore the file, or move the folder {folder} away to fetch the data anew."
    contents = {
        name: read_bytes(first_existing(folder, (f"{name}.zst", name), advice=advice))
        for name in FILES_SHA256
    }
    return _recbole_files(contents, origin=f"folder {FOLDER}", where=str(folder))


def _from_cached_wheel() -> MovieLensFiles:
    path = cache_folder() / WHEEL
    if not path.is_file():
        raise DataError("none")
    return _from_wheel(path)


def _from_pip() -> MovieLensFiles:
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as made:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        options = ["--quiet", "--no-input", "--disable-pip-version-check", "--retries=0"]
        result = subprocess.run(  # noqa: S603 - every argument is a constant or our own folder
            [*command, *options, f"--timeout={TIMEOUT_S}", "-d", made, WHEEL_REQUIREMENT],
            capture_output=True,
            text=True,
            check=False,
            timeout=6 * TIMEOUT_S,
        )
        path = Path(made) / WHEEL
        if result.returncode or not path.is_file():
            lines = result.stderr.strip().splitlines() or [f"exit status {result.returncode}"]
            raise DataError(lines[-1])
        files = _from_wheel(path)
        path.replace(cache / WHEEL)
    return files


def _from_wheel(path: Path) -> MovieLensFiles:
    wheel = path.read_bytes()
    _check("sha256", wheel, WHEEL_SHA256, where=path.name)
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        contents = {
            name: archive.read(f"recbole/dataset_example/ml-100k/{name}") for name in FILES_SHA256
        }
    return _recbole_files(contents, origin="recbole-1.2.1 wheel", where=path.name)


def _from_archive() -> MovieLensFiles:
    with urllib.request.urlopen(ARCHIVE_URL, timeout=TIMEOUT_S) as response:
        content = bytes(response.read())
    _check("md5", content, ARCHIVE_MD5, where="ml-100k.zip")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return MovieLensFiles(
            form="grouplens",
            ratings=archive.read("ml-100k/u.data"),
            items=archive.read("ml-100k/u.item"),
            users=archive.read("ml-100k/u.user"),
            origin="ml-100k.zip of files.grouplens.org",
        )


def _recbole_files(contents: dict[str, bytes], *, origin: str, where: str) -> MovieLensFiles:
    for name, content in contents.items():
        _check("sha256", content, FILES_SHA256[name], where=f"{where}/{name}")
    return MovieLensFiles(
        form="recbole",
        ratings=contents["ml-100k.inter"],
        items=contents["ml-100k.item"],
        users=contents["ml-100k.user"],
        origin=origin,
    )


def _check(
    algorithm: Literal["md5", "sha256"], content: bytes, expected: str, *, where: str
) -> None:
    digest = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if digest != expected:
        raise DataError(
            f"{where}: {algorithm} is not the one of the known file. Got {digest}, expected "
            f"{expected}. Delete it and fetch it again."
        )
