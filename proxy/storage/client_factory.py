"""The client behind each kind of URL: one server, Sentinels or a Cluster."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool, SentinelManagedConnection

from proxy.storage.cluster import Cluster
from proxy.storage.fast_reader import FastReader

SENTINEL, CLUSTER = "redis+sentinel", "redis+cluster"
SENTINEL_PORT, REDIS_PORT = 26379, 6379

REDIS_TIMEOUT = 0.25
"""Seconds for one answer of the store, and for one attempt to connect to it."""


class StoreClient(redis.Redis):
    """redis-py's client, with connections kept for reads that must be quick."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fast_reader = FastReader(self)


def new_client(url: str, connections: int) -> redis.Redis:
    """A client for *url* that opens its connections when they are first used.

    At most *connections* of them to each server, one for each thread that may
    ask, beside those of `FastReader`. One more try after a connection was found dead
    (the store restarted, or closed an idle one), none after a timeout: a store
    that hangs hangs the second time.
    """
    # redis-py retries ten times or never, by constructor, so all of it is said.
    options: dict[str, Any] = {
        "max_connections": connections,
        "socket_timeout": REDIS_TIMEOUT,
        "socket_connect_timeout": REDIS_TIMEOUT,
        "retry": Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        # What the client says of itself when it connects (CLIENT SETINFO) must stay:
        # its answer takes in the tickets that a TLS server sends first, which
        # redis-py otherwise takes for a connection in disorder.
        "protocol": 2,
    }
    parts = urlsplit(url)
    if parts.scheme not in (SENTINEL, CLUSTER):
        return StoreClient.from_url(url, **options)
    said: dict[str, Any] = {
        name: values[-1] for name, values in parse_qs(parts.query).items()
    }
    if parts.username:
        said["username"] = unquote(parts.username)
    if parts.password:
        said["password"] = unquote(parts.password)
    hosts = parts.netloc.rpartition("@")[2]
    if parts.scheme == CLUSTER:
        node = partial(redis.Redis, **said, **options)
        return Cluster(_addresses(hosts, REDIS_PORT), node)
    watcher: dict[str, Any] = {
        name: said.pop(f"sentinel_{name}", None) for name in ("username", "password")
    }
    sentinels = Sentinels(
        [
            redis.Redis(host, port, **watcher, **options)
            for host, port in _addresses(hosts, SENTINEL_PORT)
        ]
    )
    name = unquote(parts.path.strip("/"))
    database = int(said.pop("db", 0))
    options |= said | {"db": database, "connection_class": MasterConnection}
    return StoreClient.from_pool(SentinelConnectionPool(name, sentinels, **options))


def _addresses(hosts: str, default_port: int) -> list[tuple[str, int]]:
    """Where each of *hosts* is, which are told by comma, with or without a port."""
    parts = [urlsplit(f"//{host}") for host in hosts.split(",")]
    return [(part.hostname or "", part.port or default_port) for part in parts]


class Sentinels:
    """Those who know where the master is; the one that answered last is asked first.

    redis-py's own Sentinel remembers it by exchanging two places of a list, and two
    threads that do so at once lose a sentinel for good.
    """

    def __init__(self, sentinels: list[redis.Redis]) -> None:
        self.sentinels = sentinels
        self._trusted = sentinels[0]

    def discover_master(self, name: str) -> tuple[str, int]:
        """Where the master is; for redis-py's pool, before it connects."""
        for sentinel in sorted(self.sentinels, key=lambda s: s is not self._trusted):
            with suppress(redis.ConnectionError, redis.TimeoutError):
                master = cast(Any, sentinel.sentinel_masters()).get(name)
                if master and master["is_master"] and not master["is_sdown"]:
                    self._trusted = sentinel
                    return master["ip"], master["port"]
        # Not a ConnectionError, after which all of them would be asked once more.
        raise redis.TimeoutError("no Sentinel knows of a master that is there")

    def count_replicas(self, name: str) -> int:
        """How many replicas of the master there are, down ones not counted.

        One that is being put in the master's place counts, though the master itself
        knows it no more: what it does not have is undone when it leads.

        Raises:
            redis.RedisError: the Sentinel that named the master does not say.
        """
        replicas = cast(Any, self._trusted.sentinel_slaves(name))
        return sum(not replica["is_sdown"] for replica in replicas)


class MasterConnection(SentinelManagedConnection):
    """A connection to the master that ends with a timeout, as all others do.

    redis-py keeps this one, so that the late answer is taken for the next one's:
    somebody would be told of somebody else.
    """

    def read_response(self, disable_decoding: bool = False, **options: Any) -> Any:
        options.setdefault("disconnect_on_error", True)
        return super().read_response(disable_decoding, **options)


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
