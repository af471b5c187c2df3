"""Users by id, from Redis; while Redis does not answer, users cost microseconds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Protocol

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from rankloom.errors import OverloadedError
from rankloom.serving.store.breaker import Breaker
from rankloom.serving.store.config import StoreConfig
from rankloom.serving.store.user_layout import MAX_KEY_BYTES, history_key, user_key
from rankloom.serving.store.user_values import FoundUser, UserValues

PROBE_TIMEOUT_S = 1.0
"""Of a probe, which waits for a connection too; no request waits for it."""

# One command, so that a user is read as it was at one moment; a key of another type is nothing.
# The first key goes back with the values, so that no reply is ever taken for another user's.
_READ = """
local found = {KEYS[1]}
for number, key in ipairs(KEYS) do
  local value = redis.pcall('GETRANGE', key, 0, ARGV[1])
  found[number + 1] = type(value) == 'string' and value or false
end
return found
"""

_log = logging.getLogger(__name__)


class UnreachableError(OverloadedError):
    """A store did not answer in time."""


class UserFeatures(Protocol):
    """What looks up users."""

    @property
    def is_open(self) -> bool:
        """Tell whether users are not asked for at the moment, as nothing answers."""
        ...

    async def get(
        self, user: int | str, columns: Sequence[str], *, timeout_s: float
    ) -> FoundUser | None:
        """Look up one user.

        Args:
            user: The id.
            columns: Of side user.
            timeout_s: Longest wait.

        Returns:
            None where nothing is known of the user.

        Raises:
            UnreachableError: There was no answer in time.
        """
        ...

    async def close(self) -> None:
        """Let go of all connections."""
        ...


class RedisUsers:
    """Users in one Redis; to be used in one event loop.

    Args:
        config: With `redis`.
        values: What users have.
    """

    def __init__(self, config: StoreConfig, values: UserValues) -> None:
        assert config.redis is not None
        self._config, self._values = config, values
        self._pool = BlockingConnectionPool.from_url(
            config.redis,
            max_connections=config.connections,
            timeout=None,
            socket_connect_timeout=PROBE_TIMEOUT_S,
            socket_timeout=PROBE_TIMEOUT_S,
            # A retry would cost the request's time.
            retry=Retry(NoBackoff(), 0),
        )
        self._client: Redis = Redis(connection_pool=self._pool)
        self._read = self._client.register_script(_READ)
        self._breaker = Breaker(
            config.breaker_failures,
            every_s=config.probe_every_s,
            at_most_s=config.probe_at_most_s,
        )
        self._probe: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Tell whether Redis is left alone at the moment."""
        return self._breaker.is_open

    async def get(
        self, user: int | str, columns: Sequence[str], *, timeout_s: float
    ) -> FoundUser | None:
        """Look up one user.

        Args:
            user: The id.
            columns: Of side user.
            timeout_s: Longest wait, beside the configured one.

        Returns:
            None where nothing is known of the user.

        Raises:
            UnreachableError: There was no answer in time.
        """
        if self._breaker.is_open:
            raise UnreachableError("redis: does not answer. It is asked again when it does.")
        prefix = self._config.prefix
        first = user_key(prefix, user)
        if len(first) > MAX_KEY_BYTES:
            return None
        histories = [name for name in columns if name in self._values.histories]
        keys = [first, *(history_key(prefix, user, name) for name in histories)]
        text, *texts = await self._texts(keys, timeout_s)
        return self._values.decode(columns, text, dict(zip(histories, texts, strict=True)))

    async def _texts(self, keys: list[str], timeout_s: float) -> list[bytes | None]:
        """Read the strings of some keys; none for one that is too long or no string."""
        longest = self._config.max_value_bytes
        allowed_s = self._config.timeout_ms / 1000
        try:
            async with asyncio.timeout(min(timeout_s, allowed_s)):
                reply = await self._read(keys=keys, args=[longest])
            texts = _checked(reply, keys)
        except Exception as error:  # noqa: BLE001 (of a garbled reply: whatever its parser meets)
            # A client without time left says nothing of Redis.
            if not (isinstance(error, TimeoutError) and timeout_s < allowed_s):
                self._failed(error)
            raise UnreachableError(
                f"redis: did not answer in {min(timeout_s, allowed_s) * 1000:.0f} ms. "
                f"Got {type(error).__name__}. Ask again later."
            ) from None
        self._breaker.answered()
        return [None if text is None or len(text) > longest else text for text in texts]

    def _failed(self, error: Exception) -> None:
        if not self._breaker.failed():
            return
        _log.warning("redis: left alone after %s: %s", type(error).__name__, error)
        # One that sleeps still will see that it is needed again.
        if self._probe is None or self._probe.done():
            self._probe = asyncio.get_running_loop().create_task(self._probing())

    async def _probing(self) -> None:
        """Ask now and then whether it answers again, on connections made anew."""
        await self._pool.disconnect(inuse_connections=False)
        while self._breaker.is_open:
            await asyncio.sleep(self._breaker.wait_s)
            try:
                async with asyncio.timeout(PROBE_TIMEOUT_S):
                    await self._client.ping()
            except Exception:  # noqa: BLE001 (likewise)
                self._breaker.probe_failed()
            else:
                self._breaker.answered()
                _log.warning("redis: answers again")

    async def close(self) -> None:
        """Let go of all connections."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        await self._client.aclose()
        await self._pool.aclose()


def _checked(reply: Any, keys: Sequence[str]) -> list[bytes | None]:
    """Give the values of a reply.

    Raises:
        RedisError: It is not the reply for these keys.
    """
    is_whole = isinstance(reply, list) and len(reply) == len(keys) + 1
    if is_whole and reply[0] == keys[0].encode():
        texts: list[Any] = reply[1:]
        if all(one is None or isinstance(one, bytes) for one in texts):
            return texts
    raise RedisError("the reply is of another request")
