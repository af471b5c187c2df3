"""What a feature store's options accept."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rankloom.config import validation_problems
from rankloom.errors import ConfigError
from rankloom.serving.store.config import StoreConfig
from rankloom.serving.store.user_writer import UserWriter


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:6379/0",
        "redis://user:secret@host/1",
        "rediss://host?ssl_ca_certs=/etc/ca.pem",
        "unix:///run/redis.sock?db=2",
    ],
)
def test_a_redis_is_named_by_its_url(url):
    assert StoreConfig(redis=url).redis == url


def problem(values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        StoreConfig.model_validate(values)
    (text,) = validation_problems(caught.value)
    return text


@pytest.mark.parametrize("url", ["http://secret@host", "host:6379", "", "file:///etc/passwd"])
def test_other_urls_are_refused(url):
    text = problem({"redis": url})
    assert text.startswith("redis: must begin with redis://, rediss:// or unix://. Got ")
    assert "secret" not in text


@pytest.mark.parametrize("option", ["socket_timeout=1", "max_connections=9", "retry=", "db=0&x=1"])
def test_a_url_does_not_undo_limits(option):
    text = problem({"redis": f"redis://host?{option}"})
    assert text.startswith("redis: takes the options db, ssl_ca_certs")


@pytest.mark.parametrize("prefix", ["", "a:b", "a\n"])
def test_a_prefix_is_a_name(prefix):
    assert problem({"prefix": prefix}).startswith("prefix: must be a name without a colon")


def test_a_password_is_not_shown():
    assert "secret" not in repr(StoreConfig(redis="redis://:secret@host"))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_length": 0}, "max_length: must be positive"), ({"expire_s": -1}, "expire_s: must")],
)
def test_the_writer_takes_positive_limits(options, message):
    with pytest.raises(ConfigError, match=message):
        UserWriter(StoreConfig(redis="redis://host"), **options)


def test_the_writer_needs_a_redis():
    with pytest.raises(ConfigError, match="redis: is missing"):
        UserWriter(StoreConfig())
