"""The client for each kind of store URL: one server, Sentinels or a Cluster."""

from __future__ import annotations

from functools import partial
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

from proxy.storage.cluster import Cluster
from proxy.storage.fast_reader import FastReader
from proxy.storage.sentinel import MasterConnection, Sentinels
from proxy.storage.store_url import CLUSTER, SENTINEL, StoreUrl

REDIS_TIMEOUT = 0.25
"""Seconds for one reply of the store, and for one attempt to connect to it."""


class StoreClient(redis.Redis):
    """redis-py's client, with a `FastReader` for the reads that must be fast."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fast_reader = FastReader(self)


def new_client(url: StoreUrl, connections: int) -> redis.Redis:
    """Return a client for *url* that opens its connections when they are first used.

    At most *connections* of them to each server, one for each thread that may call
    it, beside those of `FastReader`. It tries once more after it has found a dead
    connection (the store restarted, or closed an idle one), and not after a timeout: a
    store that hangs hangs the second time.
    """
    # redis-py retries ten times or never, by constructor, so every option is given.
    options: dict[str, Any] = {
        "max_connections": connections,
        "socket_timeout": REDIS_TIMEOUT,
        "socket_connect_timeout": REDIS_TIMEOUT,
        "retry": Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        # CLIENT SETINFO, which the client sends when it connects, must stay: its reply
        # takes in the tickets that a TLS server sends first, which redis-py otherwise
        # takes for a broken connection.
        "protocol": 2,
    }
    user: dict[str, Any] = {"username": url.username, "password": url.password}
    if url.scheme == CLUSTER:
        return Cluster(url.hosts, partial(redis.Redis, **user, **options))
    if url.scheme != SENTINEL:
        return StoreClient.from_url(url.text, **options)
    sentinel_user: dict[str, Any] = {
        name: url.options.get(f"sentinel_{name}") for name in ("username", "password")
    }
    sentinels = Sentinels(
        [
            redis.Redis(host, port, **sentinel_user, **options)
            for host, port in url.hosts
        ]
    )
    options |= user | {"db": url.database, "connection_class": MasterConnection}
    pool = SentinelConnectionPool(url.master_name, sentinels, **options)
    return StoreClient.from_pool(pool)
