"""A store that answers, and whose own settings may break a promise all the same."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import redis

from proxy.storage.entries import EntryStore
from proxy.storage.flask_cache import ProfileCache
from tests.helpers.redis_servers import Server, client_of
from tests.helpers.store_clients import new_client

GOOD = {"maxmemory-policy": "allkeys-lfu"}

CacheOn = Callable[[redis.Redis], ProfileCache]


@pytest.mark.parametrize(
    ("settings", "config_warnings"),
    [
        (GOOD, []),
        (GOOD | {"maxmemory": "64mb"}, []),
        ({}, ["store_evicts_gates"]),
        ({"maxmemory-policy": "volatile-ttl"}, ["store_evicts_gates"]),
        (GOOD | {"save": "3600 1"}, ["store_persists"]),
        (GOOD | {"appendonly": "yes"}, ["store_persists"]),
        (
            {"save": "60 1", "maxmemory": "64mb"},
            ["store_evicts_gates", "store_persists"],
        ),
    ],
    ids=str,
)
def test_what_may_break_a_promise_is_told(
    cache_on: CacheOn, settings: dict[str, str], config_warnings: list[str]
) -> None:
    """A restart from disk brings back the erased; most policies evict gates."""
    with Server("tcp") as server, client_of(server.url) as theirs:
        for name, value in settings.items():
            theirs.config_set(name, value)
        with new_client(server.url, connections=1) as client:
            assert (
                EntryStore(cache_on(client), "default").config_warnings(time.time)
                == config_warnings
            )
        server.kill()  # it would first end what it has to write


@pytest.mark.parametrize(
    "store_url", ["embedded", "sentinel", "cluster"], indirect=True
)
def test_a_store_that_is_as_it_should_be_is_no_risk(cache: ProfileCache) -> None:
    """Each of its servers is asked."""
    assert cache.config_warnings(time.time) == []


def test_on_a_cluster_one_bad_node_is_told(cluster_url: str, cache_on: CacheOn) -> None:
    """Any of them."""
    last = cluster_url.rpartition(",")[2]
    with (
        client_of(f"redis://{last}") as node,
        new_client(cluster_url, connections=1) as client,
    ):
        node.config_set("save", "3600 1")
        try:
            assert cache_on(client).config_warnings(time.time) == ["store_persists"]
        finally:
            node.config_set("save", "")


def test_where_the_settings_must_not_be_read_the_rest_is_told(
    cache_on: CacheOn,
) -> None:
    """As with managed services: whether there are snapshots stays unknown."""
    settings = {"save": "3600 1", "appendonly": "no"}
    with Server("tcp", settings=settings) as server, client_of(server.url) as theirs:
        theirs.execute_command(
            "ACL", "SETUSER", "guest", "on", ">pw", "~*", "+@all", "-config"
        )
        with new_client(server.url.replace("//", "//guest:pw@"), 1) as client:
            cache = cache_on(client)
            assert cache.config_warnings(time.time) == ["store_evicts_gates"]
            theirs.config_set("appendonly", "yes")
            assert cache.config_warnings(time.time) == [
                "store_evicts_gates",
                "store_persists",
            ]
        server.kill()  # it would first end what it has to write


@pytest.mark.parametrize("store_url", ["embedded", "cluster"], indirect=True)
@pytest.mark.parametrize(
    ("ahead", "config_warnings"),
    [(31.0, ["clock_skew"]), (-31.0, ["clock_skew"]), (29.0, []), (-29.0, [])],
)
def test_a_clock_that_is_not_ours_is_told(
    cache: ProfileCache, ahead: float, config_warnings: list[str]
) -> None:
    """Which of the two is wrong, nobody can say."""
    assert cache.config_warnings(lambda: time.time() + ahead) == config_warnings


def test_a_reply_that_takes_long_is_not_taken_for_a_wrong_clock(
    tcp_url: str, cache_on: CacheOn
) -> None:
    """The store looks at its clock somewhere between our question and its answer."""
    moments = iter((time.time() - 40, time.time() + 40))
    with new_client(tcp_url, connections=1) as client:
        assert "clock_skew" not in cache_on(client).config_warnings(
            lambda: next(moments)
        )


def test_where_the_clock_must_not_be_read_the_rest_is_told(cache_on: CacheOn) -> None:
    """Nobody says then that it is wrong."""
    with Server("tcp") as server, client_of(server.url) as theirs:
        theirs.execute_command(
            "ACL", "SETUSER", "guest", "on", ">pw", "~*", "+@all", "-time"
        )
        with new_client(server.url.replace("//", "//guest:pw@"), 1) as client:
            config_warnings = cache_on(client).config_warnings(
                lambda: time.time() + 3600
            )
    assert config_warnings == ["store_evicts_gates"]


def test_a_store_is_not_asked_whenever_we_are(tcp_url: str, cache_on: CacheOn) -> None:
    """Whoever probes may do so often."""
    with new_client(tcp_url, connections=1) as client:
        entries = EntryStore(cache_on(client), "default")
        client.config_resetstat()

        told = [entries.config_warnings(time.time) for _ in range(20)]

        asked = client.info("commandstats")["cmdstat_config|get"]["calls"]
    assert told == [["store_evicts_gates"]] * 20
    assert asked == 1
