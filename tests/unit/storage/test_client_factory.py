"""The client behind a URL, and URLs as people may see them; no server is needed."""

import ssl
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, cast

import pytest
import redis

from proxy.storage.client_factory import REDIS_TIMEOUT, Sentinels, masked, new_client
from proxy.storage.cluster import Cluster
from proxy.storage.flask_cache import ProfileCache

URLS = [
    "redis://store.invalid/3",
    "rediss://store.invalid/3",
    "unix:///no.sock?db=3",
    "redis+sentinel://one.invalid,two.invalid/people?db=3",
]
CLUSTER = "redis+cluster://ada:s3%2Fcret@one.invalid:7000,two.invalid,[::1]:7001"

each_url = pytest.mark.parametrize("url", URLS)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:s3cret@h:6379/0", "redis://:***@h:6379/0"),
        ("redis://ada:s3cret@h/0", "redis://ada:***@h/0"),
        ("rediss://ada:s3cret@[::1]:6379/0", "rediss://ada:***@[::1]:6379/0"),
        ("redis://ada:s3@cret@h/0", "redis://ada:***@h/0"),
        ("redis://ada:s3%2Fcret@h/0", "redis://ada:***@h/0"),
        ("unix://ada:s3cret@/run/s.sock?db=1", "unix://ada:***@/run/s.sock"),
        (
            "redis+sentinel://ada:s3cret@h1:26379,h2/people?db=1",
            "redis+sentinel://ada:***@h1:26379,h2/people",
        ),
        ("redis+cluster://:s3cret@h1:6379,h2", "redis+cluster://:***@h1:6379,h2"),
    ],
)
def test_a_password_is_shown_as_stars(url: str, shown: str) -> None:
    """What is left tells an operator which store it is."""
    assert masked(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "redis://h/0?password=s3cret",
        "redis://h/0?db=1&username=ada&password=s3cret",
        "unix:///run/s.sock?password=s3cret",
        "rediss://h/0?ssl_password=s3cret",
        "rediss://ada:s3cret@h/0?password=s3cret",
        "redis://h/0?passw%6Frd=s3cret",
        "redis+sentinel://h1,h2/people?sentinel_password=s3cret",
    ],
)
def test_a_password_in_the_query_is_not_shown(url: str) -> None:
    """However its name is written: redis-py decodes that, too."""
    assert "s3cret" not in masked(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:12/s3cret@h:6379/0",
        "redis://ada:12/s3cret@h:6379/0",
        "redis://:/s3cret@h:6379/0",
        "redis://ada:12#s3cret@h:6379/0",
        "redis://ada:12?s3cret@h:6379/0",
        "unix://ada:12/s3cret@/run/s.sock",
    ],
)
def test_a_password_that_should_have_been_quoted_is_not_shown(url: str) -> None:
    """Made passwords often have a slash, and such a URL is still read, as another."""
    assert "s3cret" not in masked(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:6379/0",
        "rediss://h:6380/0?ssl_ca_certs=/etc/ca.pem",
        "unix:///run/s.sock?db=1",
    ],
)
def test_a_url_without_a_password_is_shown_as_it_is(url: str) -> None:
    """There is nothing to hide."""
    assert masked(url) == url


@each_url
def test_a_client_waits_a_quarter_of_a_second(url: str) -> None:
    """For a connection, and for an answer."""
    kept = new_client(url, 7).connection_pool.connection_kwargs

    assert kept["socket_timeout"] == REDIS_TIMEOUT == 0.25
    assert kept["socket_connect_timeout"] == REDIS_TIMEOUT
    assert kept["db"] == 3


@each_url
def test_a_client_opens_no_more_connections_than_told(url: str) -> None:
    """And none at all before it is used, so that a store may come later."""
    assert new_client(url, 7).connection_pool.max_connections == 7


@each_url
@pytest.mark.parametrize(
    ("error", "tries"),
    [(redis.ConnectionError, 2), (redis.TimeoutError, 1), (redis.ResponseError, 1)],
)
def test_a_dead_connection_is_tried_once_more_and_a_slow_one_is_not(
    url: str, error: type[redis.RedisError], tries: int
) -> None:
    """A store that hangs hangs the second time."""
    tried: list[None] = []

    def ask() -> None:
        tried.append(None)
        raise error("away")

    with pytest.raises(error):
        new_client(url, 7).get_retry().call_with_retry(ask, lambda failure: None)

    assert len(tried) == tries


def connection_options(client: redis.Redis) -> dict[str, Any]:
    return dict(client.connection_pool.connection_kwargs)


def test_the_nodes_of_a_cluster_are_what_a_single_server_is() -> None:
    """The same timeouts, tries and connections to each; and no more said of it."""
    cluster = new_client(CLUSTER, 7)
    single = new_client("redis://ada:s3%2Fcret@one.invalid:7000", 7)

    assert isinstance(cluster, Cluster)
    node = cluster.node("one.invalid", 7000)
    assert node.connection_pool.max_connections == 7
    for name in ("socket_timeout", "socket_connect_timeout", "retry", "protocol"):
        assert connection_options(node)[name] == connection_options(single)[name]
    for name in ("host", "port", "username", "password"):
        assert connection_options(node)[name] == connection_options(single)[name]
    assert cluster.seeds == [
        ("one.invalid", 7000),
        ("two.invalid", 6379),
        ("::1", 7001),
    ]


def test_sentinels_are_asked_as_any_server_is() -> None:
    """With the same timeouts and tries, and with users of their own."""
    client = new_client(
        "redis+sentinel://ada:s3%2Fcret@one.invalid:7000,two.invalid/people"
        "?sentinel_username=watcher&sentinel_password=other",
        7,
    )

    assert connection_options(client)["password"] == "s3/cret"
    assert client.connection_pool.service_name == "people"
    one, two = client.connection_pool.sentinel_manager.sentinels
    assert connection_options(one)["port"] == 7000
    assert connection_options(two)["port"] == 26379
    assert connection_options(one)["username"] == "watcher"
    assert connection_options(one)["password"] == "other"
    assert connection_options(one)["socket_timeout"] == REDIS_TIMEOUT
    assert one.get_retry() == client.get_retry()


def test_sentinels_without_a_user_are_not_told_the_stores() -> None:
    """A Sentinel that expects none refuses whoever names one."""
    client = new_client("redis+sentinel://ada:s3cret@one.invalid/people", 7)

    [sentinel] = client.connection_pool.sentinel_manager.sentinels

    assert connection_options(sentinel)["password"] is None


def test_no_sentinel_is_forgotten_however_many_threads_ask() -> None:
    """All of them answer that the master is where it is, in whatever order."""

    class Watcher:
        def __init__(self) -> None:
            self.asked = 0

        def sentinel_masters(self) -> dict[str, Any]:
            self.asked += 1
            if self.asked % 3:
                raise redis.ConnectionError
            here = {"ip": "::1", "port": 6379, "is_master": True, "is_sdown": False}
            return {"people": here}

    watchers = [Watcher() for _ in range(3)]
    sentinels = Sentinels(cast(Any, watchers))

    def ask(_: int) -> None:
        with suppress(redis.TimeoutError):
            assert sentinels.discover_master("people") == ("::1", 6379)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(2000)))

    assert cast(Any, sentinels.sentinels) == watchers


def test_a_master_that_is_down_is_not_the_master() -> None:
    """Nor is one of another name; and it is said at once, without a second try."""
    down = {"ip": "::1", "port": 6379, "is_master": True, "is_sdown": True}

    class Watcher:
        def sentinel_masters(self) -> dict[str, Any]:
            return {"people": down, "others": down | {"is_sdown": False}}

    with pytest.raises(redis.TimeoutError):
        Sentinels(cast(Any, [Watcher()])).discover_master("people")


def test_tls_is_verified() -> None:
    """The certificate, and that it is for this host."""
    connection = new_client("rediss://store.invalid/0", 7).connection_pool

    made = connection.make_connection()

    assert made.cert_reqs == ssl.CERT_REQUIRED
    assert made.check_hostname is True


def test_a_backend_is_built_without_a_warning() -> None:
    """A warning of today is an error of tomorrow's cachelib."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ProfileCache(
            host=new_client("redis://store.invalid/0", 7),
            default_timeout=3600,
            key_prefix="pp:",
        )
