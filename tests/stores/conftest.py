"""One empty store for each test, and each test for every kind of store."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import cast

import fakeredis
import pytest
import redis
from flask import Flask
from flask_caching import Cache

from proxy.coordination.gate import Gate
from proxy.domain.backoff import backoffs
from proxy.storage.entries import EntryStore
from proxy.storage.flask_cache import ProfileCache
from tests.helpers.fakes import no_wait
from tests.helpers.gate_calls import PROBE_FOR, TOKEN_RETRY
from tests.helpers.redis_servers import STORES, client_of
from tests.helpers.store_clients import new_client

FAKE = "fakeredis:"

Clients = tuple[redis.Redis, redis.Redis]
"""The client of the service, and one of another application."""


@pytest.fixture(scope="session")
def cache_on() -> Callable[[redis.Redis], ProfileCache]:
    """Builds our backend on a client through Flask-Caching, as the service does."""

    def build(client: redis.Redis) -> ProfileCache:
        cache = Cache(
            Flask("t"),
            config={
                "CACHE_TYPE": "proxy.storage.flask_cache.ProfileCache",
                "CACHE_KEY_PREFIX": "pp:",
                "CACHE_DEFAULT_TIMEOUT": 3600,
                "CACHE_OPTIONS": {"client": client},
            },
        )
        return cast(ProfileCache, cache.cache)

    return build


@pytest.fixture(scope="session")
def clients_of() -> Iterator[Callable[[str], Clients]]:
    """Connects once to each store, because TLS is slow."""
    by_url: dict[str, Clients] = {}
    with ExitStack() as ending:

        def connect(url: str) -> Clients:
            if url == FAKE:
                fake = fakeredis.FakeRedis(server=fakeredis.FakeServer())
                by_url[url] = fake, fake
            elif url not in by_url:
                ours = ending.enter_context(new_client(url, connections=64))
                by_url[url] = ours, ending.enter_context(client_of(url))
            return by_url[url]

        yield connect


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest) -> str:
    """The URL of the store; for fakeredis a word, because it has no URL."""
    if request.param == "fakeredis":
        return FAKE
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def clients(store_url: str, clients_of: Callable[[str], Clients]) -> Clients:
    """The clients of the store, which is empty when a test begins."""
    ours, theirs = clients_of(store_url)
    theirs.flushdb()
    return ours, theirs


@pytest.fixture
def cache(
    clients: Clients, cache_on: Callable[[redis.Redis], ProfileCache]
) -> ProfileCache:
    """Our backend on that store."""
    return cache_on(clients[0])


@pytest.fixture
def raw(clients: Clients) -> redis.Redis:
    """Another application's client of the same database: no prefix, no rules."""
    return clients[1]


@pytest.fixture
def entries(cache: ProfileCache, raw: redis.Redis) -> Iterator[EntryStore]:
    """The default Page's people; after the test, each of our keys must have a TTL."""
    yield EntryStore(cache, "default", sleep=no_wait)
    lasting = {name for name in raw.scan_iter("pp:*", count=1000) if raw.pttl(name) < 0}
    assert {name for name in lasting if raw.exists(name)} == set()


NewGate = Callable[..., Gate]


@pytest.fixture
def new_gate(cache: ProfileCache) -> NewGate:
    """Builds the gate of a Page."""

    def build(
        page: str = "default", monotonic: Callable[[], float] = time.monotonic
    ) -> Gate:
        return Gate(
            cache,
            page,
            guard=EntryStore(cache, page).guard,
            backoffs=backoffs(TOKEN_RETRY),
            probe_for=PROBE_FOR,
            usage_soft=75,
            monotonic=monotonic,
        )

    return build


@pytest.fixture
def gate(new_gate: NewGate) -> Gate:
    """The gate of the default Page."""
    return new_gate()
