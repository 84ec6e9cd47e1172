"""Warnings about a store that answers, but whose settings may break a promise."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import redis

from proxy.storage.entries import EntryStore
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.store_health import config_warnings
from tests.helpers.redis_servers import RedisServer, client_of
from tests.helpers.store_clients import new_client

GOOD = {"maxmemory-policy": "allkeys-lfu"}

CacheOn = Callable[[redis.Redis], ProfileCache]


@pytest.mark.parametrize(
    ("settings", "warnings"),
    [
        (GOOD, []),
        (GOOD | {"maxmemory": "64mb"}, []),
        ({}, ["store_policy"]),
        ({"maxmemory-policy": "volatile-ttl"}, ["store_policy"]),
        (GOOD | {"save": "3600 1"}, ["store_persists"]),
        (GOOD | {"appendonly": "yes"}, ["store_persists"]),
        (
            {"save": "60 1", "maxmemory": "64mb"},
            ["store_persists", "store_policy"],
        ),
    ],
    ids=str,
)
def test_warnings_name_each_setting_that_may_break_a_promise(
    cache_on: CacheOn, settings: dict[str, str], warnings: list[str]
) -> None:
    """A restart from disk brings back the erased; most policies evict gates."""
    with RedisServer("tcp") as server, client_of(server.url) as theirs:
        for name, value in settings.items():
            theirs.config_set(name, value)
        with new_client(server.url, connections=1) as client:
            store = EntryStore(cache_on(client), "default")
            assert store.config_warnings(time.time) == warnings
        server.kill()  # it would first end what it has to write


@pytest.mark.parametrize(
    "store_url", ["embedded", "sentinel", "cluster"], indirect=True
)
def test_store_with_good_settings_has_no_warning(cache: ProfileCache) -> None:
    """Each of its servers is asked."""
    assert config_warnings(cache.nodes, time.time) == []


def test_one_bad_node_of_a_cluster_is_a_warning(
    cluster_url: str, cache_on: CacheOn
) -> None:
    """Any of its nodes."""
    last = cluster_url.rpartition(",")[2]
    with (
        client_of(f"redis://{last}") as node,
        new_client(cluster_url, connections=1) as client,
    ):
        node.config_set("save", "3600 1")
        try:
            nodes = cache_on(client).nodes
            assert config_warnings(nodes, time.time) == ["store_persists"]
        finally:
            node.config_set("save", "")


def test_store_that_hides_its_settings_is_judged_by_info(cache_on: CacheOn) -> None:
    """As with managed services: whether there are snapshots stays unknown."""
    settings = {"save": "3600 1", "appendonly": "no"}
    with (
        RedisServer("tcp", settings=settings) as server,
        client_of(server.url) as theirs,
    ):
        theirs.execute_command(
            "ACL", "SETUSER", "guest", "on", ">pw", "~*", "+@all", "-config"
        )
        with new_client(server.url.replace("//", "//guest:pw@"), 1) as client:
            nodes = cache_on(client).nodes
            assert config_warnings(nodes, time.time) == ["store_policy"]
            theirs.config_set("appendonly", "yes")
            assert config_warnings(nodes, time.time) == [
                "store_persists",
                "store_policy",
            ]
        server.kill()  # it would first end what it has to write


@pytest.mark.parametrize("store_url", ["embedded", "cluster"], indirect=True)
@pytest.mark.parametrize(
    ("ahead", "warnings"),
    [(31.0, ["clock_skew"]), (-31.0, ["clock_skew"]), (29.0, []), (-29.0, [])],
)
def test_clock_that_differs_by_half_a_minute_is_a_warning(
    cache: ProfileCache, ahead: float, warnings: list[str]
) -> None:
    """The warning does not claim which of the two clocks is wrong."""
    assert config_warnings(cache.nodes, lambda: time.time() + ahead) == warnings


def test_slow_reply_is_not_taken_for_a_wrong_clock(
    tcp_url: str, cache_on: CacheOn
) -> None:
    """The store reads its clock somewhere between our question and its answer."""
    moments = iter((time.time() - 40, time.time() + 40))
    with new_client(tcp_url, connections=1) as client:
        nodes = cache_on(client).nodes
        assert "clock_skew" not in config_warnings(nodes, lambda: next(moments))


def test_store_that_hides_its_clock_has_no_clock_warning(cache_on: CacheOn) -> None:
    """Its settings are checked all the same."""
    with RedisServer("tcp") as server, client_of(server.url) as theirs:
        theirs.execute_command(
            "ACL", "SETUSER", "guest", "on", ">pw", "~*", "+@all", "-time"
        )
        with new_client(server.url.replace("//", "//guest:pw@"), 1) as client:
            warnings = config_warnings(
                cache_on(client).nodes, lambda: time.time() + 3600
            )
    assert warnings == ["store_policy"]


def test_settings_of_the_store_are_read_at_most_every_ten_seconds(
    tcp_url: str, cache_on: CacheOn
) -> None:
    """A prober of ours may come often."""
    with new_client(tcp_url, connections=1) as client:
        entries = EntryStore(cache_on(client), "default")
        client.config_resetstat()

        warnings = [entries.config_warnings(time.time) for _ in range(20)]

        asked = client.info("commandstats")["cmdstat_config|get"]["calls"]
    assert warnings == [["store_policy"]] * 20
    assert asked == 1
