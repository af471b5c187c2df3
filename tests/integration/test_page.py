"""The page for people, in a headless Chromium, of a real server."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.integration.browser import Tab, browser
from tests.integration.served import Server, export_small, golden_requests, server
from tests.integration.small import write_small_log

# Where to keep a picture of the page after some thousand requests, for the docs.
PICTURE = os.environ.get("RANKLOOM_PICTURE")
TOKEN = "0123456789abcdef"
LIVE = "document.querySelector('#state').textContent === 'live'"
RANKED = "document.querySelectorAll('.ranked tbody tr').length"
CHANGES = "document.querySelectorAll('#changes tbody tr').length"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    log = write_small_log(tmp_path_factory.mktemp("page_log") / "log")
    return export_small("separated", log, tmp_path_factory.mktemp("page_artifact"))


@pytest.fixture(scope="module")
def running(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(artifact, tmp_path_factory.mktemp("page_server")) as one:
        yield one


@pytest.fixture
def tab(running: Server, tmp_path: Path) -> Iterator[Tab]:
    """The page, open and live; at the end nothing was wrong with it, nor asked for elsewhere."""
    with browser(tmp_path) as one:
        one.size(1200, 900)
        one.open(f"{running.url}/")
        one.wait_for(LIVE)
        one.wait_for("document.querySelector('#request').value")
        yield one
        assert one.errors == []
        assert all(url.startswith((f"{running.url}/", "data:,")) for url in one.urls)
        assert f"{running.url}/v1/snapshot" in one.urls


def legend(tab: Tab, chart: str) -> dict[str, float]:
    """Give a chart's series -> value, of those that have one."""
    path = f"#chart-{chart} .legend li:not(.none)"
    lines = tab.run(f"[...document.querySelectorAll('{path}')].map((one) => one.textContent)")
    found = {}
    for line in lines:
        name, value = re.fullmatch(r"(.+?) (-?[\d.,]+|-)[ /]?\D*", line).groups()
        if value != "-":
            found[name] = float(value.replace(",", ""))
    return found


def test_charts_move_after_requests(artifact: Path, running: Server, tab: Tab) -> None:
    digest = running.ask("GET", "/health/ready")[1]["digest"]
    assert digest in tab.text()
    assert "p50" not in legend(tab, "latency")
    requests = golden_requests(artifact)[:4]
    for number in range(5000 if PICTURE else 20):
        assert running.rank(requests[number % 4])[0] == 200
    tab.wait_for("document.querySelector('#chart-latency path')?.getAttribute('d')")
    tab.wait_for("/p50 \\d/.test(document.querySelector('#chart-latency').textContent)")
    assert legend(tab, "requests")["200"] > 0
    latency = legend(tab, "latency")
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
    assert {"decode", "queue", "candidates"} <= legend(tab, "stages").keys()
    assert legend(tab, "share")["share"] > 0
    assert legend(tab, "bytes")["bytes"] > 0
    assert legend(tab, "batches")["candidates"] >= 32
    assert legend(tab, "memory")["compute"] > 10
    assert "requests" in legend(tab, "batches")
    if PICTURE:
        keep_picture(tab, Path(PICTURE))


def keep_picture(tab: Tab, path: Path) -> None:
    from PIL import Image

    tab.run("document.querySelector('#explain').click()")
    tab.wait_for(CHANGES)
    picture = Image.open(io.BytesIO(tab.picture(is_whole=True)))
    # The lines' colors are those of few pixels.
    few = picture.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=2)
    few.save(path, optimize=True)


def test_an_example_is_ranked_and_explained(artifact: Path, running: Server, tab: Tab) -> None:
    request = golden_requests(artifact)[2]
    tab.run("document.querySelector('#example').value = '2'")
    tab.run("document.querySelector('#example').dispatchEvent(new Event('change'))")
    given = {name: request[name] for name in ("user", "context", "candidates")}
    assert json.loads(tab.run("document.querySelector('#request').value")) == given
    tab.run("document.querySelector('#rank').click()")
    tab.wait_for(RANKED)
    ranked = running.rank(request)[1]
    rows = tab.run(
        "[...document.querySelectorAll('.ranked tbody tr')].map((row) =>"
        " [...row.cells].map((cell) => cell.textContent))"
    )
    assert [int(row[1]) for row in rows] == ranked["order"]
    best = ranked["order"][0]
    expected = [request["candidates"]["item_id"][best]]
    expected += [f"{ranked[name][best]:.4g}" for name in ("blended",)]
    expected += [f"{ranked['scores'][task][best]:.4g}" for task in ("like", "love")]
    assert rows[0][2:] == expected
    assert "candidates" in tab.run("document.querySelector('.times').textContent")

    tab.run("document.querySelector('#explain').click()")
    tab.wait_for(CHANGES)
    changes = tab.run(
        "Object.fromEntries([...document.querySelectorAll('#changes tbody tr')].map((row) =>"
        " [row.cells[0].textContent, Number(row.cells[2].textContent)]))"
    )
    assert changes.keys() == {"user_id", "age", "history", "item_id", "genres"}
    assert "hour (context/hour)" in tab.text()
    genres = [None] * len(request["candidates"]["genres"])
    bare = {**request, "candidates": {**request["candidates"], "genres": genres}}
    by_hand = running.rank(bare)[1]["blended"][best] - ranked["blended"][best]
    assert changes["genres"] == pytest.approx(by_hand, abs=1e-5)


def test_changes_are_those_of_two_rankings(artifact: Path, running: Server) -> None:
    request = golden_requests(artifact)[0]
    user, rows = request["user"], request["candidates"]
    given = {name: request[name] for name in ("user", "context", "candidates")}
    status, found = running.ask("POST", "/v1/explain", given)
    assert status == 200
    bare = {
        "age": {**request, "user": {**user, "age": None}},
        "history": {
            **request,
            "user": {**user, "history_item_id": [], "history_time": [], "history_first_event": 0},
        },
        "item_id": {**request, "candidates": {**rows, "item_id": [None] * len(rows["item_id"])}},
    }
    plain = running.rank(request)[1]
    changes = {one["name"]: one for one in found["changes"]}
    for name, other in bare.items():
        without = running.rank(other)[1]
        for task in ("like", "love"):
            by_hand = np.subtract(without["scores"][task], plain["scores"][task])
            # Sums in other batches differ in the last bits of fp32.
            np.testing.assert_allclose(changes[name]["scores"][task], by_hand, atol=1e-6)
        assert np.abs(by_hand).max() > 1e-4


def test_made_up_requests_are_kept_out_of_the_request_log(artifact: Path, tmp_path: Path) -> None:
    request = golden_requests(artifact)[0]
    given = {name: request[name] for name in ("user", "context", "candidates")}
    log = tmp_path / "log"
    options = ("--set", f"request_log.folder={log}", "--set", "request_log.sample_rate=1")
    with server(artifact, tmp_path / "server", *options) as one:
        assert one.ask("POST", "/v1/explain", given)[0] == 200
        assert one.rank(request)[0] == 200
        assert one.stop() == 0
    files = sorted(log.glob("*.parquet"))
    assert sum(pq.read_metadata(file).num_rows for file in files) == 1


def test_all_mistakes_are_shown(artifact: Path, tab: Tab) -> None:
    request = golden_requests(artifact)[0]
    request["user"]["age"], request["context"] = "<b>old</b>", {}
    text = json.dumps({name: request[name] for name in ("user", "context", "candidates")})
    tab.run(f"document.querySelector('#request').value = {json.dumps(text)}")
    for button in ("rank", "explain"):
        tab.run("document.querySelector('#answer').replaceChildren()")
        tab.run(f"document.querySelector('#{button}').click()")
        tab.wait_for("document.querySelector('[role=alert]')")
        shown = tab.run("document.querySelector('[role=alert]').innerText")
        assert "The request is wrong" in shown
        assert "column 'age' must be a number. Got '<b>old</b>'" in shown
        assert "'hour' is missing" in shown
        assert not tab.run("document.querySelector('[role=alert] b')")
    # The browser itself notes every answer of 400.
    assert len(tab.errors) == 2
    tab.errors.clear()


def test_it_can_be_used_by_keyboard(running: Server, artifact: Path, tab: Tab) -> None:
    assert running.rank(golden_requests(artifact)[0])[0] == 200
    seen = []
    for _ in range(25):
        tab.press("Tab")
        seen.append(
            tab.run(
                "(document.activeElement.closest('figure') || document.activeElement).id"
                " || document.activeElement.className"
            )
        )
        if seen[-1] == "request":
            break
    assert [one for one in seen if not one.startswith("chart-")] == [
        "skip",
        "pause",
        "example",
        "deadline",
        "request",
    ]
    assert len(seen) == 5 + 9
    tab.press("Enter", with_control=True)
    tab.wait_for(RANKED)
    tab.run("document.querySelector('#chart-memory svg').focus()")
    tab.wait_for("document.querySelector('#chart-memory path')?.getAttribute('d').includes('L')")
    tab.press("ArrowLeft")
    assert re.search(r"\d+ s ago", tab.run("document.querySelector('#chart-memory').textContent"))
    tab.press("Escape")
    assert "s ago" not in tab.run("document.querySelector('#chart-memory figcaption').textContent")


def test_it_fits_a_phone_and_both_schemes(tab: Tab) -> None:
    tab.run("document.querySelector('#explain').click()")
    tab.wait_for(CHANGES)
    tab.size(360, 780)
    assert tab.run("document.documentElement.scrollWidth") <= 360
    ground = "getComputedStyle(document.body).backgroundColor"
    sums = []
    for scheme in ("light", "dark"):
        tab.prefer(scheme)
        sums.append(sum(map(int, re.findall(r"\d+", tab.run(ground))[:3])))
    assert sums[0] > 3 * 200 > 3 * 60 > sums[1]


def test_it_asks_for_the_token(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    options = ("--set", f"front.token.file={tmp_path / 'token'}", "--set", "front_ends=1")
    with server(artifact, tmp_path / "server", *options) as one, browser(tmp_path) as tab:
        tab.open(f"{one.url}/")
        tab.wait_for("!document.querySelector('#login').hidden")
        assert "needs a token" in tab.text()
        tab.run(f"document.querySelector('#token').value = '{TOKEN}'")
        tab.run("document.querySelector('#login button').click()")
        tab.wait_for(LIVE)
        tab.wait_for("document.querySelector('#request').value")
        tab.run("document.querySelector('#rank').click()")
        tab.wait_for(RANKED)
        assert tab.run("localStorage.length + sessionStorage.length + document.cookie.length") == 0
        assert tab.run("document.querySelector('#login').hidden")
        assert tab.run("document.querySelector('#token').value") == ""
