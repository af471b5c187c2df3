"""docs/serving.md is true: its commands run as they stand, and its tables are the code's."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from benchmarks.serving_world import free_port
from tests.integration.serving_document import TEXT, Reader, blocks, part
from tests.integration.serving_tables import TABLES, in_marks
from tests.unit.serving.store_world import RedisServer, running_redis

from rankloom.artifact.ranker import Ranker, load
from rankloom.config import Config
from rankloom.data.datasets import local_folder
from rankloom.serving.config import ServeConfig
from rankloom.serving.front.problems import KINDS
from rankloom.serving.telemetry.families import FAMILIES

NEWCOMER = part("## Try it", "## Deadlines")
OPERATOR = part("## Features by id", "### Metrics")
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer) -> Iterator[Reader]:
    data = local_folder("movielens_100k")
    if data is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI needs movielens_100k in $RANKLOOM_DATA")
        pytest.skip("needs movielens_100k in $RANKLOOM_DATA")
    ports = {8000: free_port(), 6379: redis.port}
    one = Reader(tmp_path_factory.mktemp("serving"), data.parent.resolve(), ports)
    yield one
    one.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def printed(reader: Reader) -> list[Any]:
    """What curl printed on a newcomer's way, which is gone to its end."""
    found = [reader.run(*one) for one in blocks(NEWCOMER, "sh", "python")]
    reader.end()
    return [json.loads(one) for one in found if one.startswith("{")]


@pytest.fixture(scope="module")
def ranker(reader: Reader, printed: list[Any]) -> Ranker:
    return load(reader.folder / "artifacts" / "movielens")


@pytest.fixture(scope="module")
def offline(reader: Reader, ranker: Ranker) -> Mapping[str, np.ndarray]:
    request = json.loads((reader.folder / "request.json").read_text())
    return ranker.score(request["user"], request["candidates"], request["context"])


def assert_scores(found: Mapping[str, Any], expected: Mapping[str, Any], ranker: Ranker) -> None:
    assert found.keys() == expected.keys() == {"like", "love"}
    for task, scores in expected.items():
        np.testing.assert_allclose(found[task], scores, rtol=0, atol=ranker.manifest.tolerance)


@needs_curl
def test_curl(printed: list[Any], offline: Mapping[str, np.ndarray], ranker: Ranker) -> None:
    answer, several = printed
    assert_scores(answer["scores"], offline, ranker)
    assert answer["order"] == np.argsort(-offline["like"]).tolist()[:2]
    shown = next(json.loads(block) for _, block in blocks(NEWCOMER, "json"))
    assert answer.keys() == shown.keys()
    assert answer["timing_ms"].keys() == shown["timing_ms"].keys()
    assert len(several["results"]) == 2
    for one in several["results"]:
        assert_scores(one["scores"], offline, ranker)


def test_the_python_client(
    reader: Reader, printed: list[Any], offline: Mapping[str, np.ndarray], ranker: Ranker
) -> None:
    assert_scores(reader.names["result"].scores, offline, ranker)
    given = {name: reader.names[name] for name in ("user", "candidates", "context")}
    given["user"] = {**given["user"], "user_id": "594"}
    assert reader.names["found"].id == "594"
    assert_scores(reader.names["found"].scores, ranker.score(**given), ranker)


def test_tritonclient(
    reader: Reader, printed: list[Any], offline: Mapping[str, np.ndarray], ranker: Ranker
) -> None:
    answer = reader.names["answer"]
    assert_scores({t: answer.as_numpy(f"scores/{t}") for t in offline}, offline, ranker)
    assert answer.as_numpy("order").tolist() == np.argsort(-offline["like"]).tolist()[:2]


@needs_curl
def test_an_operators_way(reader: Reader, ranker: Ranker) -> None:
    answer, digest = None, ""
    for language, block in blocks(OPERATOR, "sh", "python"):
        output = reader.run(language, block)
        if "kill -HUP" in block:
            manifest = json.loads((reader.folder / "artifacts/smaller/manifest.json").read_text())
            digest = manifest["digest"]
            reader.wait_for(f"compute INFO serving artifact {digest[:12]}")
            check_running(reader, digest)
        elif "kill -TERM" in block:
            reader.wait_for_end()
        elif output.startswith("{"):
            answer = json.loads(output)
    check_answer(reader, answer, ranker)
    assert digest not in {"", ranker.digest}
    assert (reader.folder / "runs" / "again" / "run.yaml").exists()
    check_access_log(reader)


def check_answer(reader: Reader, answer: Any, ranker: Ranker) -> None:
    """Compare what ids alone gave with the features written out."""
    rows = pq.read_table(reader.folder / "data" / "movielens" / "train").to_pylist()
    items = {row["item_id"]: row for row in rows}
    user, context = reader.names["user"], reader.names["context"]
    ids = ["181", "12"]
    candidates = {
        name: [items[one][name] for one in ids] for name in ("item_id", "release_year", "genres")
    }
    expected = ranker.score(user, candidates, context)
    assert_scores(answer["scores"], expected, ranker)
    blended = expected["like"] + 0.5 * expected["love"]
    np.testing.assert_allclose(answer["blended"], blended, atol=2 * ranker.manifest.tolerance)


def check_running(reader: Reader, digest: str) -> None:
    """Ask the operator's server for what the document says of it."""
    assert asked(reader, "/metrics", token=None) == (401, "unauthorized")
    until_s = time.monotonic() + 60
    while asked(reader, "/health/ready", token=None)[1] != digest:
        assert time.monotonic() < until_s
        time.sleep(0.05)
    status, text = asked(reader, "/metrics", token=(reader.folder / "server.token").read_text())
    assert status == 200
    assert 'rankloom_reloads_total{result="done"} 1.0' in text
    assert "rankloom_queue_length 0.0" in text
    named = set(re.findall(r"^# TYPE (rankloom_\w+)", text, re.MULTILINE))
    names = {re.sub("_(total|info)$", "", name) for name in named}
    assert names - FAMILIES.keys() <= {"rankloom_process_resident_bytes"}


def asked(reader: Reader, path: str, *, token: str | None) -> tuple[int, str]:
    """Ask: status, and the text, or of JSON the code or digest."""
    address = re.search(r"serving  http://(\S+)", (reader.folder / "server.log").read_text())
    assert address is not None
    connection = HTTPConnection(address[1], timeout=30)
    headers = {} if token is None else {"Authorization": f"Bearer {token.strip()}"}
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    if "json" in response.getheader("content-type", ""):
        found = json.loads(text)
        text = found.get("code", found.get("digest"))
    return response.status, text


def check_access_log(reader: Reader) -> None:
    """Compare the members of a line with those that the document shows."""
    (line,) = (reader.folder / "logs" / "access.jsonl").read_text().splitlines()
    found = json.loads(line)
    shown = next(json.loads(block) for _, block in blocks(part("### The access log"), "json"))
    assert found["id"] == "page-2"
    assert found.keys() == shown.keys()
    assert found["stages_ms"].keys() == shown["stages_ms"].keys()


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_the_codes(name: str) -> None:
    # `python -m tests.integration.serving_tables` writes them anew.
    assert in_marks(name, TABLES[name]()) in TEXT


def test_every_problem_is_listed() -> None:
    listed = re.findall(r"^\| (\d+) \| `(\w+)` \|", part("## Errors"), re.MULTILINE)
    assert [(int(status), code) for status, code in listed] == [
        (one.status, one.code) for one in KINDS.values()
    ]


def test_configs_are_read(tmp_path: Path) -> None:
    found = [block for _, block in blocks(TEXT, "yaml")]
    found += re.findall(r"cat > server.yaml <<'END'\n(.*?)^END$", TEXT, re.DOTALL | re.MULTILINE)
    assert len(found) == 2
    for text in found:
        assert isinstance(ServeConfig.model_validate(yaml.safe_load(text)), Config)
