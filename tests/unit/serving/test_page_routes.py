"""The page's paths: what they answer, and to whom."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.routing import Route
from tests.unit.serving.page_double import BODY, REQUEST, PageDouble, ask

from rankloom.serving.config import FrontSettings
from rankloom.serving.front.config import FrontConfig, TokenConfig
from rankloom.serving.front_process import build
from rankloom.serving.page.document import FOLDER, SCRIPTS, document
from rankloom.serving.page.routes import request_text

TOKEN = "0123456789abcdef"


@pytest.fixture
def guarded(tmp_path: Path) -> FrontConfig:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    return FrontConfig(token=TokenConfig(file=str(path)))


def test_the_policy_lets_style_and_script_run_and_nothing_else() -> None:
    answer = ask(PageDouble(), "GET", "/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(
        one.split(" ", 1) for one in answer.headers["content-security-policy"].split("; ")
    )
    for name, tag in (("style-src", "style"), ("script-src", "script")):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert policy.pop(name) == f"'sha256-{digest}'"
    assert policy == {
        "default-src": "'none'",
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_the_page_names_no_other_place_and_makes_no_markup_of_texts() -> None:
    text, _ = document()
    addresses = set(re.findall(r"https?://[^\"'\s]+", text))
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml"}
    assert not re.search(r"src=|@import|url\(|innerHTML|outerHTML|document\.write|eval\(", text)
    assert text.isascii()
    assert re.findall(r"\b(?:href|action)=\"([^\"]*)\"", text) == ["data:,", "#playground"]
    assert sorted(one.name for one in FOLDER.glob("*.js")) == sorted(SCRIPTS)


def test_snapshots_are_read_at_most_twice_a_second() -> None:
    read: list[int] = []

    def snapshot() -> dict[str, int]:
        read.append(1)
        return {"queue": len(read)}

    answer = ask(PageDouble(), "GET", "/v1/snapshot", snapshot=snapshot, times=5)
    assert answer.json() == {"queue": 1}
    assert answer.headers["cache-control"] == "no-store"


def test_examples_are_texts_that_can_be_sent_as_they_are() -> None:
    backend = PageDouble({"goods": ["item"]})
    found = ask(backend, "GET", "/v1/examples").json()
    assert json.loads(found["examples"][0]["request"]) == BODY
    assert (found["groups"], found["item"]) == ({"goods": ["item"]}, "item")
    assert '    "item": [3, 5],\n' in request_text(REQUEST)


def test_an_explanation_is_a_result_with_changes() -> None:
    found = ask(PageDouble(), "POST", "/v1/explain", {**BODY, "top_k": 1}).json()
    assert (found["order"], found["scores"]["click"]) == ([1], [31, 53])
    assert found["changes"][1] == {
        "kind": "history",
        "name": "history",
        "features": ["watched"],
        "also": [],
        "blended": [-792, -2280],
        "scores": {"click": [-18, -30], "buy": [-36, -60]},
    }
    assert found["without_default"] == {"hour": "context/hour"}
    assert found["left_out"] == []


def test_an_explanation_by_features_passes_over_the_model_s_groups() -> None:
    backend = PageDouble({"goods": ["item", "price", "price_band"]})
    kinds = [
        {one["kind"] for one in ask(backend, "POST", path, BODY).json()["changes"]}
        for path in ("/v1/explain", "/v1/explain?by=features")
    ]
    assert kinds == [{"feature", "history", "group"}, {"feature", "history"}]


@pytest.mark.parametrize(
    ("path", "body", "detail"),
    [
        ("/v1/explain?by=magic", BODY, "query by: must be groups or features. Got 'magic'."),
        ("/v1/explain", {"requests": [BODY]}, "requests: one request is explained."),
        ("/v1/explain", {"user": {}}, "candidates: is missing."),
    ],
)
def test_what_is_wrong_is_told(path: str, body: object, detail: str) -> None:
    answer = ask(PageDouble(), "POST", path, body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert answer.json()["problems"][0].startswith(detail)


def test_the_page_needs_no_token_and_all_that_it_asks_does(guarded: FrontConfig) -> None:
    backend = PageDouble()
    assert ask(backend, "GET", "/", config=guarded).status_code == 200
    for method, path in (("GET", "snapshot"), ("GET", "examples"), ("POST", "explain")):
        body = BODY if method == "POST" else None
        assert ask(backend, method, f"/v1/{path}", body, config=guarded).status_code == 401
        given = {"authorization": f"Bearer {TOKEN}"}
        answer = ask(backend, method, f"/v1/{path}", body, config=guarded, headers=given)
        assert answer.status_code == 200


@pytest.mark.parametrize("is_there", [True, False])
def test_the_page_may_be_left_out(tmp_path: Path, is_there: bool) -> None:
    settings = FrontSettings(
        number=1, listening=0, compute="none", metrics=str(tmp_path), page=is_there
    )
    # `/metrics` is there, page or not.
    paths = {one.path for one in build(settings).routes if isinstance(one, Route)}
    of_page = {"/", "/v1/snapshot", "/v1/examples", "/v1/explain"}
    assert paths & (of_page | {"/metrics"}) == (of_page if is_there else set()) | {"/metrics"}


def test_it_needs_no_torch() -> None:
    code = "import sys, rankloom.serving.page.routes; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
