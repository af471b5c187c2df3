"""An artifact of format 1, written once: every later version must load it and score as it did.

It is of the small run of `tests/integration/small.py`, its tables in int8. If this fails, the
format has changed: give the new one another number and keep reading this one.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from rankloom.artifact.ranker import load
from rankloom.artifact.verify import verify

FOLDER = Path(__file__).parents[2] / "artifacts" / "format-1"


def test_it_is_verified() -> None:
    found = verify(FOLDER)
    assert (found.num_requests, found.num_rows) == (4, 13)
    assert 0 < max(found.largest_error.values()) < found.tolerance < 1e-3


def test_a_request_of_its_log_has_the_score_of_its_day() -> None:
    content = json.loads((FOLDER / "golden.json").read_text())
    request = content["requests"][0]
    scores = load(FOLDER).score(request["user"], request["candidates"], request["context"])
    for task, expected in request["scores"].items():
        np.testing.assert_allclose(scores[task], expected, atol=1e-4)
    # Not by chance: another user is scored otherwise.
    other = load(FOLDER, check=False).score(
        {**request["user"], "user_id": "nobody", "age": None},
        request["candidates"],
        request["context"],
    )
    assert np.abs(other["like"] - scores["like"]).max() > 1e-3


def test_its_files_are_the_formats() -> None:
    names = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file())
    assert names == [
        "golden.json",
        "golden.safetensors",
        "manifest.json",
        "programs/candidate.json",
        "programs/one_request.json",
        "programs/user.json",
        "vocabularies.safetensors",
        "weights.safetensors",
    ]
