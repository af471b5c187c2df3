"""Writing users to Redis: their columns, and events as they happen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import redis
from redis.exceptions import RedisError, WatchError

from rankloom.data.plain_lists import as_list, shown
from rankloom.errors import ConfigError, DataError
from rankloom.serving.store.config import StoreConfig
from rankloom.serving.store.user_layout import (
    MAX_KEY_BYTES,
    DamagedError,
    history_bytes,
    history_key,
    json_text,
    split_history,
    typed,
    user_key,
)

_list = typed(list[Any])


class UserWriter:
    """Writes what `RedisUsers` reads; any other program may write the same (`user_layout.py`).

        writer = UserWriter(StoreConfig(redis="redis://127.0.0.1:6379/0"))
        writer.put(7, {"age": 31})
        writer.append_events(7, {"history_item": [1193], "history_time": [978300760]})

    Args:
        config: `redis` and `prefix`.
        max_length: Events of a history that are kept at least; it is trimmed to them before it has
            much more than twice as many.
        expire_s: What was not written to for so long is forgotten; without it, nothing is.

    Raises:
        ConfigError: `redis` is missing, or a number is not positive.
    """

    def __init__(
        self, config: StoreConfig, *, max_length: int = 1000, expire_s: int | None = None
    ) -> None:
        if config.redis is None:
            raise ConfigError("redis: is missing. Give such as redis://127.0.0.1:6379/0.")
        for option, value in {"max_length": max_length, "expire_s": expire_s}.items():
            if value is not None and value < 1:
                raise ConfigError(f"{option}: must be positive. Got {value}. Give 1 or more.")
        self._prefix, self._max_length, self._expire_s = config.prefix, max_length, expire_s
        self._client: redis.Redis = redis.Redis.from_url(config.redis)

    def put(self, user: int | str, values: Mapping[str, Any]) -> None:
        """Replace a user's columns, those of histories aside.

        Args:
            user: The id.
            values: Column -> value: a number, a text, a list of them, or none.

        Raises:
            DataError: A value is none of these, the id is too long, or Redis does not answer.
        """
        try:
            text = json_text(dict(values))
        except (TypeError, ValueError) as error:
            raise DataError(
                f"user {user!r}: a value is neither number nor text nor a list of them. Got: "
                f"{error}. Cast it, and give None for a missing number."
            ) from None
        key = self._key(user)
        self._do(lambda: self._client.set(key, text, ex=self._expire_s))

    def append_events(self, user: int | str, events: Mapping[str, Sequence[Any]]) -> None:
        """Append to all columns of one history.

        Args:
            user: The id.
            events: Column -> values of the new events, the oldest first; as many in each column.
                All columns of the history, also in later calls.

        Raises:
            DataError: Columns have different lengths, a value is no number, text or none, the id is
                too long, or Redis does not answer.
        """
        lengths = {name: len(values) for name, values in events.items()}
        if len(set(lengths.values())) != 1:
            raise DataError(
                f"user {user!r}: the columns of events must have one length. Got {lengths}. "
                "Give one value of each column for each event."
            )
        self._key(user)
        keys = [history_key(self._prefix, user, name) for name in events]
        try:
            texts = [history_bytes(as_list(values)) for values in events.values()]
        except (TypeError, ValueError) as error:
            raise DataError(
                f"user {user!r}: an event cannot be written. Got: {error}. Cast it."
            ) from None
        num_events = next(iter(lengths.values()))
        if not num_events:
            return

        def append() -> list[int]:
            with self._client.pipeline(transaction=True) as pipe:
                for key, text in zip(keys, texts, strict=True):
                    pipe.append(key, text)
                    if self._expire_s is not None:
                        pipe.expire(key, self._expire_s)
                done = pipe.execute()
            return done if self._expire_s is None else done[::2]

        sizes = self._do(append)
        # How many events there are is not known without reading them: events are of about one size.
        if any(
            size * num_events > 2 * self._max_length * len(text)
            for size, text in zip(sizes, texts, strict=True)
        ):
            self._do(lambda: self._trim(keys))

    def _key(self, user: int | str) -> str:
        """Name the key of a user's columns.

        Raises:
            DataError: The id is too long.
        """
        key = user_key(self._prefix, user)
        if len(key) > MAX_KEY_BYTES:
            raise DataError(
                f"user {shown(user)}: its id is too long. Got {len(key)} bytes of a key, at most "
                f"{MAX_KEY_BYTES} are read. Give shorter ids."
            )
        return key

    def _trim(self, keys: Sequence[str]) -> None:
        """Drop the oldest events, all columns at once, or leave it to the next call."""
        with self._client.pipeline(transaction=True) as pipe:
            try:
                pipe.watch(*keys)  # type: ignore[no-untyped-call]
                texts: Any = pipe.mget(keys)
                histories = [split_history(text or b"") for text in texts]
                columns = [_list(events) for _, events in histories]
                extra = max(map(len, columns)) - self._max_length
                if extra <= 0:
                    return
                pipe.multi()
                for key, (dropped, _), values in zip(keys, histories, columns, strict=True):
                    text = history_bytes(values[extra:], dropped=dropped + extra)
                    pipe.set(key, text, keepttl=True)
                pipe.execute()
            except WatchError:
                # Someone appended meanwhile: the next one who does trims.
                return
            except DamagedError:
                # Not ours to mend: what reads it counts it.
                return

    def _do(self, what: Callable[[], Any]) -> Any:
        try:
            return what()
        except (RedisError, OSError) as error:
            raise DataError(f"redis: cannot be written. Got: {error}. Look after it.") from None

    def close(self) -> None:
        """Let go of all connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
