"""docs/wire.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tests.unit.serving.scripted_server import result, send, serving

from rankloom.serving import wire
from rankloom.serving.buffers import decode_buffer, encode_buffer
from rankloom.serving.limits import Limits
from rankloom.serving.request import RankRequest, RankResult

TEXT = (Path(__file__).parents[3] / "docs" / "wire.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def bytes_of(block: str) -> bytes:
    """Give the bytes of a listing, whose comments begin in column 40."""
    return bytes.fromhex("".join(line[:40] for line in block.splitlines()))


def test_the_request_is_the_one_listed() -> None:
    request = RankRequest(
        user={"user_id": "7", "seen": np.array([3, 5], np.int16)},
        candidates={
            "item_id": ["a", "bc"],
            "tags": [[1], []],
            "price": np.array([1.5, 2.0], np.float32),
        },
        deadline_ms=50.0,
        top_k=1,
    )
    listed = bytes_of(blocks("hex")[0])
    assert wire.encode_requests([request]) == listed
    (found,) = wire.decode_requests(listed, Limits())
    assert isinstance(found.candidates, dict)
    assert found.candidates["tags"].tolist() == [[1], []]


def test_the_answer_is_the_one_listed() -> None:
    scores = np.array([0.25, 0.5])
    answer = RankResult(
        scores={"click": scores},
        blended=scores,
        order=np.array([1]),
        digest="5f",
        timing_ms={"total": 1.5},
    )
    assert wire.encode_results([answer]) == bytes_of(blocks("hex")[1])


def test_types_of_arrays_are_those_of_the_table() -> None:
    rows = re.findall(r"^\| (type|values|size) \|(.*)\|$", TEXT, re.MULTILINE)
    table = {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}
    for code, kind, size in zip(table["type"], table["values"], table["size"], strict=True):
        sent = encode_buffer(np.zeros(1, kind)).data
        assert sent == bytes([int(code), 1, 0, 0, 1, 0, 0, 0]) + bytes(int(size))
        assert decode_buffer(1, memoryview(sent)).dtype == kind  # type: ignore[union-attr]


def test_limits_and_the_content_type_are_those_of_the_text() -> None:
    assert f"\n    {wire.CONTENT_TYPE}\n" in TEXT
    assert "A body may have 1 MiB outside\nbuffers" in TEXT
    assert wire.MAX_PLAIN_BYTES == 1 << 20
    assert "maps may be 8 deep" in TEXT
    assert Limits().depth == 8


def test_the_example_of_the_client_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks("python")
    with serving(lambda handler, _: send(handler, wire.encode_results([result(3)]))) as server:
        exec(example.replace("http://127.0.0.1:8000", server.url), {})
    assert capsys.readouterr().out.startswith("[ 50  12 181] {'click': array(")
    asked = server.requests()[0]
    assert isinstance(asked.candidates, dict)
    assert asked.candidates["price"] == [1.5, 2.0, None]
    assert asked.deadline_ms is not None
