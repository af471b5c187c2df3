"""Token, size, room: what is refused before anything is read, without a server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.middleware import Middleware
from tests.unit.serving.front_doubles import BODY, Double, ask

from rankloom.errors import ConfigError
from rankloom.serving.front.app import make_app
from rankloom.serving.front.config import FrontConfig, TokenConfig, read_token
from rankloom.serving.front.guard import Guard
from rankloom.serving.limits import Limits

TOKEN = "0123456789abcdef"
SMALL = FrontConfig(limits=Limits(body_bytes=100), buffered_bytes=150)


@pytest.fixture
def guarded(tmp_path: Path) -> FrontConfig:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return FrontConfig(token=TokenConfig(file=str(path)))


@pytest.mark.parametrize("given", [f"Bearer {TOKEN}", f"bearer  {TOKEN} "])
def test_the_right_token_opens(guarded: FrontConfig, given: str) -> None:
    assert ask(Double(), headers={"authorization": given}, config=guarded).status == 200


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}0", "Bearer \xe9", TOKEN]
)
@pytest.mark.parametrize("path", ["/v1/rank", "/openapi.json", "/nowhere", "/health/live/../x"])
def test_any_other_is_refused_everywhere(
    guarded: FrontConfig, given: str | None, path: str
) -> None:
    headers = {} if given is None else {"authorization": given}
    backend = Double()
    answer = ask(backend, path=path, headers=headers, config=guarded)
    assert (answer.status, answer.json["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert not backend.seen


def test_health_needs_no_token(guarded: FrontConfig) -> None:
    assert ask(Double(), path="/health/live", method="GET", config=guarded).status == 200
    assert ask(Double(), path="/health/ready", method="GET", config=guarded).status == 200


def test_a_token_is_read_from_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK_TOKEN", f" {TOKEN}\n")
    assert read_token(TokenConfig(variable="RANK_TOKEN")) == TOKEN.encode()


@pytest.mark.parametrize("value", ["", "short", "with a space inside", "\xe9" * 20, "x" * 5000])
def test_a_weak_token_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("RANK_TOKEN", value)
    with pytest.raises(ConfigError, match=r"must hold 16 to 4096 visible ASCII") as caught:
        read_token(TokenConfig(variable="RANK_TOKEN"))
    assert not value or value not in str(caught.value)


def test_a_token_file_that_is_missing_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file"):
        read_token(TokenConfig(file=str(tmp_path / "none")))


def test_configs_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ValidationError, match="either a file or a variable"):
        TokenConfig()
    with pytest.raises(ValidationError, match="buffered_bytes must be at least"):
        FrontConfig(buffered_bytes=5)


def exchange(
    messages: list[dict[str, Any]], *, config: FrontConfig, headers: dict[str, str]
) -> tuple[int, int]:
    """Ask with a body in pieces; give the status and how many pieces were left unread."""
    sent: list[dict[str, Any]] = []
    left = list(messages)

    async def receive() -> dict[str, Any]:
        if left:
            return left.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/rank",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(make_app(Double(), config)(scope, receive, send))
    return sent[0]["status"] if sent else 0, len(left)


def piece(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


JSON = {"content-type": "application/json"}
TEXT = b'{"user": {}, "candidates": {"item": [1, 2]}}'


def test_a_body_in_pieces_is_put_together() -> None:
    pieces = [piece(TEXT[:9], more=True), piece(b"", more=True), piece(TEXT[9:], more=False)]
    chunked = {**JSON, "transfer-encoding": "chunked"}
    assert exchange(pieces, config=SMALL, headers=chunked) == (200, 0)


@pytest.mark.parametrize("length", [str(1 << 30), "9" * 500, "101"])
def test_a_length_beyond_the_limit_is_refused_unread(length: str) -> None:
    gone = {"type": "http.disconnect"}
    headers = {**JSON, "content-length": length}
    # The refusal is sent first; then what is under way is dropped.
    assert exchange([gone], config=SMALL, headers=headers) == (413, 0)


def test_pieces_beyond_the_limit_are_refused_whatever_the_length_says() -> None:
    pieces = [piece(b"x" * 60, more=True)] * 3 + [{"type": "http.disconnect"}]
    assert exchange(pieces, config=SMALL, headers={**JSON, "content-length": "60"})[0] == 413


def test_a_client_that_leaves_before_the_end_of_its_body_is_not_answered() -> None:
    pieces = [piece(b"x", more=True), {"type": "http.disconnect"}]
    assert exchange(pieces, config=SMALL, headers={**JSON, "content-length": "60"}) == (0, 0)


def test_bodies_held_at_one_time_are_limited_and_room_comes_back() -> None:
    async def run() -> list[int]:
        app = make_app(Double(wait_s=0.05), SMALL)
        body = TEXT + b" " * (90 - len(TEXT))
        return await asyncio.gather(*[status_of(app, body) for _ in range(2)]) + [
            await status_of(app, body)
        ]

    assert asyncio.run(run()) == [200, 503, 200]


def test_requests_at_one_time_are_limited_and_room_comes_back() -> None:
    async def run() -> list[int]:
        app = make_app(Double(wait_s=0.05), FrontConfig(concurrent=2))
        first = await asyncio.gather(*[status_of(app, TEXT) for _ in range(3)])
        return [*first, await status_of(app, TEXT)]

    assert asyncio.run(run()) == [200, 200, 503, 200]


def test_a_cancelled_application_says_that_the_server_goes_down() -> None:
    async def run() -> int:
        task = asyncio.create_task(status_of(make_app(Double(wait_s=9), FrontConfig()), TEXT))
        await asyncio.sleep(0.05)
        task.cancel()
        return await task

    assert asyncio.run(run()) == 503


def test_a_failure_outside_the_guard_is_a_problem_document() -> None:
    class Broken:
        def __init__(self, app: Any) -> None: ...

        async def __call__(self, *_: Any) -> None:
            raise ZeroDivisionError

    app = make_app(Double(), FrontConfig(), extra_middleware=[Middleware(Broken)])
    sent: list[dict[str, Any]] = []
    with pytest.raises(ZeroDivisionError):
        asyncio.run(status_of(app, TEXT, sent=sent))
    assert sent[0]["status"] == 500
    assert b'"code":"internal"' in sent[1]["body"]


async def status_of(app: Any, body: bytes, *, sent: list[dict[str, Any]] | None = None) -> int:
    sent = [] if sent is None else sent
    left = [piece(body, more=False)]

    async def receive() -> dict[str, Any]:
        if left:
            return left.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    length = str(len(body)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    scope = {"type": "http", "method": "POST", "path": "/v1/rank", "headers": headers}
    await app(scope, receive, send)
    return int(sent[0]["status"])


def test_other_protocols_pass_the_guard() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    guard = Guard(app, config=FrontConfig(), token=b"x" * 16)
    asyncio.run(guard({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]
    assert ask(Double(), BODY).status == 200
