"""The Flask-Caching backend: bytes in and out, each with a TTL, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NoReturn, cast

import redis
from cachelib.serializers import RedisSerializer
from flask import Flask
from flask_caching.backends.rediscache import RedisCache

from proxy.storage.keyspace import Keyspace
from proxy.storage.nodes import nodes_of
from proxy.storage.replication import Replication


class Bytes(RedisSerializer):
    """Flask-Caching's serializer for values that are bytes already. No pickle."""

    def dumps(self, value: Any, protocol: int = 0) -> bytes:
        if not isinstance(value, bytes):
            raise TypeError(f"only bytes are stored, not {type(value).__name__}")
        return value

    def loads(self, value: bytes | None) -> bytes | None:
        return value


def _unsupported(name: str) -> Callable[..., NoReturn]:
    """A method that raises, in place of the inherited one of this *name*."""

    def method(*args: object, **options: object) -> NoReturn:
        raise NotImplementedError(
            f"{name}() is not supported: use get() and set(), or Keyspace for the rest"
        )

    return method


class ProfileCache(RedisCache):
    """Flask-Caching's Redis backend, made safe to share a database with others.

    Values are bytes and stay bytes. Every value has a TTL, which may be a
    fraction of a second. `get` is the parent's. Other methods of the parent raise
    NotImplementedError: some keep values for ever, some run KEYS or empty the
    database, some name keys of several slots in one command, and nothing calls them.

    *nodes*, *keyspace* and *replication* offer the operations that are not a cache's.
    """

    serializer = Bytes()

    def __init__(self, **options: Any) -> None:
        """*options* are the parent's; *host* is the client."""
        super().__init__(**options)
        prefix = self._get_prefix()
        self.nodes = nodes_of(self.client, prefix)
        self.keyspace = Keyspace(self.client, self.nodes, prefix)
        self.replication = Replication(self.nodes, prefix)

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
        """The client, for scripts."""
        return cast(redis.Redis, self._write_client)

    def whole_key(self, key: str) -> str:
        """*key* as it stands in Redis."""
        return self.keyspace.whole_key(key)

    def node_name(self, key: str) -> str:
        """The name of the node that has *key* (see `Nodes`)."""
        return self.nodes.node_name(key)

    def set(
        self, key: str, value: bytes, timeout: float | timedelta | None = None
    ) -> bool:
        """Keep *value* for *timeout* seconds; None means the default timeout."""
        stored, ttl = self.serializer.dumps(value), self._milliseconds(timeout)
        return bool(self.client.set(self.whole_key(key), stored, px=ttl))

    add = _unsupported("add")
    set_many = _unsupported("set_many")
    inc = _unsupported("inc")
    dec = _unsupported("dec")
    get_many = _unsupported("get_many")
    get_dict = _unsupported("get_dict")
    has = _unsupported("has")
    delete = _unsupported("delete")
    delete_many = _unsupported("delete_many")
    unlink = _unsupported("unlink")
    clear = _unsupported("clear")

    def _milliseconds(self, timeout: float | timedelta | None) -> int:
        """*timeout* in milliseconds. Never "for ever", which is the parent's 0."""
        seconds = self.default_timeout if timeout is None else timeout
        if isinstance(seconds, timedelta):
            seconds = seconds.total_seconds()
        milliseconds = math.floor(seconds * 1000)
        if milliseconds < 1:
            raise ValueError(f"a TTL must be positive, not {seconds} s")
        return milliseconds
