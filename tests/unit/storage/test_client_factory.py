"""The client for each kind of store URL; no server is needed."""

import ssl
import warnings
from typing import Any

import pytest
import redis

from proxy.storage.client_factory import REDIS_TIMEOUT
from proxy.storage.cluster import Cluster
from proxy.storage.flask_cache import ProfileCache
from tests.helpers.store_clients import new_client

URLS = [
    "redis://store.invalid/3",
    "rediss://store.invalid/3",
    "unix:///no.sock?db=3",
    "redis+sentinel://one.invalid,two.invalid/people?db=3",
]
CLUSTER = "redis+cluster://ada:s3%2Fcret@one.invalid:7000,two.invalid,[::1]:7001"

each_url = pytest.mark.parametrize("url", URLS)


def connection_options(client: redis.Redis) -> dict[str, Any]:
    return dict(client.connection_pool.connection_kwargs)


@each_url
def test_client_waits_a_quarter_of_a_second(url: str) -> None:
    """For a connection, and for a reply."""
    options = connection_options(new_client(url, 7))

    assert options["socket_timeout"] == REDIS_TIMEOUT == 0.25
    assert options["socket_connect_timeout"] == REDIS_TIMEOUT
    assert options["db"] == 3


@each_url
def test_client_opens_at_most_as_many_connections_as_given(url: str) -> None:
    """And none before it is used, so that the store may start later."""
    assert new_client(url, 7).connection_pool.max_connections == 7


@each_url
@pytest.mark.parametrize(
    ("error", "tries"),
    [(redis.ConnectionError, 2), (redis.TimeoutError, 1), (redis.ResponseError, 1)],
)
def test_client_retries_a_dead_connection_once_and_a_timeout_never(
    url: str, error: type[redis.RedisError], tries: int
) -> None:
    """A store that hangs hangs the second time."""
    attempts: list[None] = []

    def send() -> None:
        attempts.append(None)
        raise error("away")

    with pytest.raises(error):
        new_client(url, 7).get_retry().call_with_retry(send, lambda failure: None)

    assert len(attempts) == tries


def test_client_of_a_cluster_node_is_that_of_a_single_server() -> None:
    """The same timeouts, retries and connections to each, and the same user."""
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


def test_client_of_a_sentinel_is_that_of_a_single_server() -> None:
    """The same timeouts and retries, with a user of the Sentinels."""
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


def test_sentinels_do_not_receive_the_stores_user() -> None:
    """A Sentinel without users refuses a client that names one."""
    client = new_client("redis+sentinel://ada:s3cret@one.invalid/people", 7)

    [sentinel] = client.connection_pool.sentinel_manager.sentinels

    assert connection_options(sentinel)["password"] is None


def test_client_verifies_the_certificate_of_a_tls_server() -> None:
    """And that it is for this host."""
    connection = new_client("rediss://store.invalid/0", 7).connection_pool

    made = connection.make_connection()

    assert made.cert_reqs == ssl.CERT_REQUIRED
    assert made.check_hostname is True


def test_backend_is_built_without_a_warning() -> None:
    """A warning of cachelib's is an error of its next version."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ProfileCache(
            host=new_client("redis://store.invalid/0", 7),
            default_timeout=3600,
            key_prefix="pp:",
        )
