"""The Flask-Caching backend, and the client behind each kind of URL."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, cast
from urllib.parse import unquote

import redis
from cachelib.serializers import RedisSerializer
from flask import Flask
from flask_caching.backends.rediscache import RedisCache
from redis.backoff import NoBackoff
from redis.retry import Retry

SCHEMES = ("redis", "rediss", "unix")

REDIS_TIMEOUT = 0.25
"""Seconds for one answer of the store, and for one attempt to connect to it."""

SLICE = 1000
"""Keys looked at, or unlinked, in one command of a scan: well under a millisecond."""


def new_client(url: str, connections: int) -> redis.Redis:
    """A client for *url* that opens its connections when they are first used.

    At most *connections* of them, one for each thread that may ask. One more
    try after a connection was found dead (the store restarted, or closed an
    idle one), none after a timeout: a store that hangs hangs the second time.
    """
    return redis.Redis.from_url(
        url,
        max_connections=connections,
        socket_timeout=REDIS_TIMEOUT,
        socket_connect_timeout=REDIS_TIMEOUT,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        # What the client says of itself when it connects (CLIENT SETINFO) must stay:
        # its answer takes in the tickets that a TLS server sends first, which
        # redis-py otherwise takes for a connection in disorder.
        protocol=2,
    )


def masked(url: str) -> str:
    """*url* without its password, for people to read.

    Also of a URL that is read as another one, because the password in it has a
    slash that should have been quoted.
    """
    scheme, _, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    if at:
        return f"{scheme}://{user.partition(':')[0]}:***@{place.partition('?')[0]}"
    return url.partition("?")[0] if "password" in unquote(url) else url


class Bytes(RedisSerializer):
    """Flask-Caching's serializer for values that are bytes already. No pickle."""

    def dumps(self, value: Any, protocol: int = 0) -> bytes:
        if not isinstance(value, bytes):
            raise TypeError(f"only bytes are stored, not {type(value).__name__}")
        return value

    def loads(self, value: bytes | None) -> bytes | None:
        return value


class ProfileCache(RedisCache):
    """Flask-Caching's Redis backend, made safe to share a database with others.

    Values are bytes and stay bytes. Every value has a TTL, which may be a
    fraction of a second. ``add`` is one command, and ``clear`` scans for our
    prefix in slices where the parent runs KEYS, or empties the database.
    """

    serializer = Bytes()

    @classmethod
    def factory(
        cls, app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]
    ) -> ProfileCache:
        """Build from Flask-Caching's *config*; CACHE_OPTIONS has the ``client``."""
        return cls(
            host=config["CACHE_OPTIONS"]["client"],
            default_timeout=config["CACHE_DEFAULT_TIMEOUT"],
            key_prefix=config["CACHE_KEY_PREFIX"],
        )

    @property
    def client(self) -> redis.Redis:
        """The client, for what a cache's interface has no words for: scripts."""
        return cast(redis.Redis, self._write_client)

    def whole_key(self, key: str) -> str:
        """*key* as it stands in Redis."""
        return self._get_prefix() + key

    def set(
        self, key: str, value: bytes, timeout: float | timedelta | None = None
    ) -> bool:
        """Keep *value* for *timeout* seconds; None means the default timeout."""
        return bool(self._write(self.client, key, value, timeout))

    def add(
        self, key: str, value: bytes, timeout: float | timedelta | None = None
    ) -> bool:
        """As ``set``, unless something is there already; say if it was kept."""
        return bool(self._write(self.client, key, value, timeout, nx=True))

    def set_many(
        self, mapping: dict[str, bytes], timeout: float | timedelta | None = None
    ) -> list[str]:
        """``set`` for each of *mapping* in one trip; the keys that were kept."""
        pipe = self.client.pipeline(transaction=False)
        for key, value in mapping.items():
            self._write(pipe, key, value, timeout)
        kept = pipe.execute()
        return [key for key, ok in zip(mapping, kept, strict=True) if ok]

    def inc(self, key: str, delta: int = 1) -> int:
        """Count up; the count lasts for the default timeout after its last change."""
        pipe = self.client.pipeline(transaction=True)
        pipe.incrby(self.whole_key(key), delta)
        pipe.pexpire(self.whole_key(key), self._lasting(None))
        return int(pipe.execute()[0])

    def dec(self, key: str, delta: int = 1) -> int:
        """Count down, as ``inc`` counts up."""
        return self.inc(key, -delta)

    def clear(self) -> bool:
        """Remove what is under our prefix, and nothing else; say if there was any."""
        return sum(self.unlink_all(keys) for keys in self.scan("*")) > 0

    def scan(self, pattern: str) -> Iterator[list[bytes]]:
        """The whole keys under our prefix that fit *pattern*, in slices.

        What is there from the first slice to the last is met at least once.
        Source: https://redis.io/docs/latest/commands/scan/#scan-guarantees
        """
        cursor = 0
        while True:
            cursor, keys = self.client.scan(
                cursor, match=self.whole_key(pattern), count=SLICE
            )
            if keys:
                yield cast("list[bytes]", keys)
            if cursor == 0:
                return

    def unlink_all(self, whole_keys: list[bytes]) -> int:
        """Remove these; how many there were. Memory is freed in the background."""
        return int(self.client.unlink(*whole_keys)) if whole_keys else 0

    def _write(
        self,
        client: redis.Redis,
        key: str,
        value: bytes,
        timeout: float | timedelta | None,
        *,
        nx: bool = False,
    ) -> object:
        whole_key, stored = self.whole_key(key), self.serializer.dumps(value)
        return client.set(whole_key, stored, px=self._lasting(timeout), nx=nx)

    def _lasting(self, timeout: float | timedelta | None) -> int:
        """*timeout* in milliseconds. Never "for ever", which the parent has 0 mean."""
        seconds = self.default_timeout if timeout is None else timeout
        if isinstance(seconds, timedelta):
            seconds = seconds.total_seconds()
        milliseconds = math.floor(seconds * 1000)
        if milliseconds < 1:
            raise ValueError(f"a TTL must be positive, not {seconds} s")
        return milliseconds
